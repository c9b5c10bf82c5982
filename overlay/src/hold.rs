//! What is kept although the registry no longer says so: peers whose record vanished while their tunnel lives (grace),
//! and most of the mesh when it vanishes in one step (brake). Time comes in as an argument.
//!
//! ```text
//! record gone --- tunnel lives, grace runs ------------------ grace over: peer goes
//!             \-- tunnel dead ------------------------------- peer goes
//! more than half gone in one step: nothing goes until their tunnels are dead, or a person accepts
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::mesh::{Origin, PeerSpec};
use crate::record::NodeName;

/// Fewer than this many are never "most of the mesh".
const BRAKE_MIN: usize = 3;

/// The peers in force and what is kept of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// The peers in force.
    pub peers: BTreeMap<NodeName, PeerSpec>,
    /// Of these, the ones whose record is gone, and since when.
    pub vanished: BTreeMap<NodeName, Instant>,
    /// A step that is held, for people.
    pub held: Option<String>,
    /// When to ask again, and why.
    pub next_deadline: Option<(Instant, &'static str)>,
}

/// Remembers what was in force.
#[derive(Clone, Debug)]
pub struct Hold {
    grace: Duration,
    peers: BTreeMap<NodeName, PeerSpec>,
    vanished: BTreeMap<NodeName, Instant>,
    braked: BTreeSet<NodeName>,
}

impl Hold {
    /// `grace`: how long a vanished record's peer is kept while its tunnel lives.
    pub fn new(grace: Duration) -> Self {
        Self { grace, peers: BTreeMap::new(), vanished: BTreeMap::new(), braked: BTreeSet::new() }
    }

    /// Lets the held step happen at the next [`Hold::apply`].
    pub fn accept(&mut self) {
        for name in std::mem::take(&mut self.braked) {
            self.peers.remove(&name);
            self.vanished.remove(&name);
        }
    }

    /// What should be in force now. `alive`: peers whose tunnel stands.
    pub fn apply(
        &mut self,
        desired: BTreeMap<NodeName, PeerSpec>,
        alive: &BTreeSet<NodeName>,
        now: Instant,
    ) -> Effective {
        let gone: Vec<_> = self
            .peers
            .iter()
            .filter(|(name, old)| is_gone(name, old, &desired))
            .map(|(name, old)| (name.clone(), old.clone()))
            .collect();
        self.brake(&gone);
        self.vanished.retain(|name, _| !desired.contains_key(name));
        let mut peers = desired;
        for (name, old) in gone {
            let since = *self.vanished.entry(name.clone()).or_insert(now);
            let braked = self.braked.contains(&name);
            if alive.contains(&name) && (braked || now < since + self.grace) {
                peers.insert(name, old);
            } else {
                self.vanished.remove(&name);
                self.braked.remove(&name);
            }
        }
        self.braked.retain(|name| self.vanished.contains_key(name));
        self.peers = peers.clone();
        let waiting = self.vanished.iter().filter(|(name, _)| !self.braked.contains(*name));
        let deadline = waiting.map(|(_, since)| *since + self.grace).min();
        Effective {
            peers,
            vanished: self.vanished.clone(),
            held: self.held(),
            next_deadline: deadline.map(|at| (at, "the grace of a vanished peer ends")),
        }
    }

    /// Most of the mesh at once is a mistake until shown otherwise.
    fn brake(&mut self, gone: &[(NodeName, PeerSpec)]) {
        let fresh: Vec<_> = gone.iter().filter(|(name, _)| !self.vanished.contains_key(name)).collect();
        let registry = self.peers.values().filter(|peer| peer.origin == Origin::Registry).count();
        if fresh.len() >= BRAKE_MIN && fresh.len() * 2 > registry {
            self.braked.extend(fresh.into_iter().map(|(name, _)| name.clone()));
        }
    }

    fn held(&self) -> Option<String> {
        if self.braked.is_empty() {
            return None;
        }
        let names: Vec<_> = self.braked.iter().map(NodeName::as_str).collect();
        Some(format!(
            "{} peers vanished from the registry in one step ({}); they are kept while their tunnels live: \
             repair the registry, or run `warren mesh accept` if they are gone for good",
            names.len(),
            names.join(", ")
        ))
    }
}

/// A registry peer whose record is gone, and whose key and prefixes nobody else has now. A static peer goes at once.
fn is_gone(name: &NodeName, old: &PeerSpec, desired: &BTreeMap<NodeName, PeerSpec>) -> bool {
    let taken = |new: &PeerSpec| {
        new.public_key == old.public_key
            || new.addresses.intersection(&old.addresses).next().is_some()
            || new.cidrs.iter().any(|a| old.cidrs.iter().any(|b| a.contains(b) || b.contains(a)))
    };
    old.origin == Origin::Registry && !desired.contains_key(name) && !desired.values().any(taken)
}
