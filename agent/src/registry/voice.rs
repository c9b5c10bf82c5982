//! What a registry tells the control plane, once each: snapshots that differ, and health that changed.

use std::sync::Arc;

use tokio::sync::mpsc;
use warren_overlay::mesh::{Entry, Snapshot};

use super::{Event, Health, Known};

/// The control plane is gone.
#[derive(Debug)]
pub(super) struct Deaf;

/// Speaks for one registry.
pub(super) struct Voice {
    registry: &'static str,
    events: mpsc::Sender<Event>,
    health: Option<Health>,
    told: Option<Arc<Snapshot>>,
}

impl Voice {
    pub(super) fn new(registry: &'static str, events: mpsc::Sender<Event>) -> Self {
        Self { registry, events, health: None, told: None }
    }

    /// Whether the control plane knows anything from here.
    pub(super) fn has_told(&self) -> bool {
        self.told.is_some()
    }

    /// The records that the control plane knows, in the order of their keys.
    pub(super) fn entries<'v>(&'v self, known: &'v Known) -> &'v [Entry] {
        self.told.as_ref().map_or(&known.entries, |told| &told.entries)
    }

    /// Tells what is known, when it differs from what was told in more than the revision; and remembers it.
    pub(super) async fn tell(&mut self, mut snapshot: Snapshot, known: &mut Known) -> Result<(), Deaf> {
        if let Some(told) = &self.told {
            let revision = std::mem::replace(&mut snapshot.revision, told.revision);
            if **told == snapshot {
                return Ok(());
            }
            snapshot.revision = revision;
        }
        known.learn(&snapshot);
        let snapshot = Arc::new(snapshot);
        self.told = Some(Arc::clone(&snapshot));
        self.events.send(Event::Snapshot(snapshot)).await.map_err(|_| Deaf)
    }

    /// The store answered: for who wants to know when it did last. Not worth waiting for anybody.
    pub(super) fn contact(&self, revision: u64) {
        let _ = self.events.try_send(Event::Contact { registry: self.registry, revision });
    }

    /// All is well; said when it was not before.
    pub(super) async fn well(&mut self, detail: String) {
        let was_well = self.health.as_ref().is_some_and(|health| health.ok);
        let health = Health { registry: self.registry, ok: true, detail };
        self.health = Some(health.clone());
        if !was_well {
            let _ = self.events.send(Event::Health(health)).await;
        }
    }

    /// Something is wrong; said once.
    pub(super) async fn unwell(&mut self, detail: &str) {
        let health = Health { registry: self.registry, ok: false, detail: detail.to_owned() };
        if self.health.as_ref() != Some(&health) {
            self.health = Some(health.clone());
            let _ = self.events.send(Event::Health(health)).await;
        }
    }
}
