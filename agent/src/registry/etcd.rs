//! The etcd registry: what it holds is merged here and told as a whole; what this node publishes is kept alive here.
//!
//! ```text
//! connect -> (list at one revision, paged) -> claim own CIDRs, publish -> watch from revision + 1
//!    ^              ^                                                       |
//!    |              \-- compacted, wiped, restored, every five minutes -----|
//!    \-- connection lost, silent, leaderless, token refused: backoff -------/
//! ```
//!
//! The lease is a hint of liveness only. Nothing here ever stops the data path.

mod admit;
mod allocate;
mod connect;
mod explain;
mod keys;
mod list;
mod publish;
mod store;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, sleep, timeout_at};
use warren_overlay::mesh::Snapshot;
use warren_overlay::record::NodeName;

pub use super::known::Known;
use super::rest::rest;
use super::sequence::Doubts;
use super::{Channels, Event, Health, jitter};
use crate::config::Etcd;
use admit::Unclaimed;
pub use allocate::{AllocateError, Want, allocate, put_cluster, release};
#[cfg(feature = "kubernetes")]
pub(in crate::registry) use allocate::{Given, choose, missing};
pub use connect::connect;
pub(crate) use explain::explain;
pub use keys::Keys;
pub(crate) use list::end_of;
pub use list::list;
use publish::Publisher;
#[cfg(feature = "kubernetes")]
pub(in crate::registry) use publish::is_another_host;
use store::History;
pub use store::Store;

/// Between two attempts to reach the store; the second is doubled up to the last, each with jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// After the store went back in time: about what it takes all nodes to publish themselves again.
const SETTLING: Duration = Duration::from_secs(10);
/// Watch events that come close together are told once.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A watch that says nothing for this long is asked for its progress ...
const QUIET: Duration = Duration::from_secs(20);
/// ... and given up when it does not answer within this.
const PROGRESS: Duration = Duration::from_secs(10);
/// However quiet all is, everything is read again after this: watches have lost events before.
const RELIST: Duration = Duration::from_secs(300);

/// Reading everything again sooner than this after the last time is worth a pause.
const RELIST_PAUSE: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The store or the way to it.
    #[error("{}", explain(.0))]
    Store(#[from] etcd_client::Error),
    /// A file of ours.
    #[error("{0}")]
    Local(String),
    /// The watch is behind the store's history, or a periodic look is due: list again on the same connection.
    #[error("{0}")]
    Relist(&'static str),
    /// The connection is up but nobody answers.
    #[error("the watch is silent")]
    Silent,
    /// This node leaves; nothing more to do.
    #[error("left")]
    Left,
}

/// What the task keeps between connections.
struct Registry {
    config: Etcd,
    keys: Keys,
    channels: Channels,
    store: Store,
    publisher: Publisher,
    health: Option<Health>,
    /// A store that went back in time shows what was long since replaced: nodes publish themselves again until then,
    /// and what was known before stays in force.
    settled_at: Instant,
    /// What the control plane knows.
    told: Option<Arc<Snapshot>>,
    /// What the store must not contradict.
    known: Known,
    /// Records that are older than what was told.
    doubts: Doubts,
    unclaimed: Unclaimed,
}

/// Runs until this node leaves or the control plane is gone. The record is withdrawn only when `channels.publish` turns
/// to `None` after it was something (`warren leave`); then this returns, which closes the channel: that is the
/// acknowledgement. An agent that is stopped just drops the task: its record stays until the lease ends.
pub async fn run(config: Etcd, node: NodeName, known: Known, channels: Channels) {
    let keys = Keys::new(&config.cluster);
    let publisher = Publisher::new(keys.clone(), node, Duration::from_secs(config.lease_seconds));
    let store = Store::default();
    let doubts = Doubts::new(Duration::from_secs(config.lease_seconds));
    let mut registry = Registry {
        config,
        keys,
        channels,
        store,
        publisher,
        health: None,
        settled_at: Instant::now(),
        told: None,
        known,
        doubts,
        unclaimed: Unclaimed::new(),
    };
    let mut pause = BACKOFF.0;
    loop {
        let began = Instant::now();
        match registry.connection().await {
            Err(Ended::Left) => return,
            Err(ended) => registry.ended(&ended).await,
            Ok(()) => {}
        }
        if began.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        rest(&mut registry.channels.publish, registry.publisher.has_wanted(), pause + jitter(pause)).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

impl Registry {
    /// One connection, from its making to its end.
    async fn connection(&mut self) -> Result<(), Ended> {
        let mut client = connect(&self.config).await.map_err(Ended::Local)?;
        loop {
            let began = Instant::now();
            self.refresh(&mut client).await?;
            match self.follow(&mut client).await {
                Err(Ended::Relist(why)) => {
                    tracing::debug!(why, "reading the store again");
                    self.store.forget_revision();
                    if began.elapsed() < RELIST_PAUSE {
                        sleep(RELIST_PAUSE + jitter(RELIST_PAUSE)).await;
                    }
                }
                ended => return ended,
            }
        }
    }

    /// Everything that the store holds now, unless a watch can go on where the last one ended.
    async fn refresh(&mut self, client: &mut Client) -> Result<(), Ended> {
        let header = client.get(self.keys.cluster(), None).await?.header().cloned();
        let (cluster_id, revision) = header.map_or((0, 0), |header| (header.cluster_id(), header.revision()));
        let history = self.history(client).await?;
        if self.store.can_resume(cluster_id, revision) && history == History::Same {
            return Ok(());
        }
        let went_back = self.store.is_newer_than(revision) || history == History::Another;
        if went_back {
            tracing::warn!(had = self.store.revision(), has = revision, "the store was restored or wiped");
            self.settled_at = Instant::now() + SETTLING;
        }
        if went_back || !self.store.is_of(cluster_id) {
            self.publisher.forget();
        }
        self.store = list(client, &self.keys).await?;
        self.store.set_cluster_id(cluster_id);
        Ok(())
    }

    /// Looks at what was written last.
    async fn history(&self, client: &mut Client) -> Result<History, Ended> {
        let Some(latest) = self.store.latest() else { return Ok(History::Same) };
        let found = client.get(latest, None).await?;
        Ok(self.store.history(latest, found.kvs().first()))
    }

    /// Publishes and watches until something ends it.
    async fn follow(&mut self, client: &mut Client) -> Result<(), Ended> {
        let mut watch = self.watch(client).await?;
        self.settle(client).await?;
        let relist = Instant::now() + RELIST + jitter(RELIST);
        let (mut quiet, mut asked) = (Instant::now() + QUIET, false);
        let (mut publish, mut cidrs) = (self.channels.publish.clone(), self.channels.cidrs.clone());
        let mut settled = Instant::now() >= self.settled_at;
        loop {
            tokio::select! {
                message = watch.message() => {
                    self.take(&message.map_err(broken)?.ok_or(Ended::Silent)?)?;
                    (quiet, asked) = (Instant::now() + QUIET, false);
                    self.drain(&mut watch).await?;
                    self.settle(client).await?;
                }
                changed = publish.changed() => {
                    changed.map_err(|_| Ended::Left)?;
                    self.settle(client).await?;
                }
                changed = cidrs.changed() => {
                    changed.map_err(|_| Ended::Left)?;
                    // What is wanted now does not wait for what was wanted before.
                    self.unclaimed = Unclaimed::new();
                    self.settle(client).await?;
                }
                () = tokio::time::sleep_until(self.settled_at), if !settled => {
                    settled = true;
                    self.settle(client).await?;
                }
                () = tokio::time::sleep_until(self.doubts.deadline().unwrap_or(relist)) => self.settle(client).await?,
                () = tokio::time::sleep_until(self.publisher.deadline()) => self.keep_alive(client).await?,
                () = tokio::time::sleep_until(self.unclaimed.deadline().unwrap_or(relist)) => self.settle(client).await?,
                () = tokio::time::sleep_until(quiet) => {
                    if asked {
                        return Err(Ended::Silent);
                    }
                    watch.request_progress().await?;
                    (quiet, asked) = (Instant::now() + PROGRESS, true);
                }
                () = tokio::time::sleep_until(relist) => return Err(Ended::Relist("it is time")),
            }
        }
    }

    async fn watch(&self, client: &mut Client) -> Result<WatchStream, Ended> {
        let options =
            WatchOptions::new().with_prefix().with_start_revision(self.store.revision() + 1).with_progress_notify();
        let mut client = client.watch_client().max_decoding_message_size(list::REPLY_MAX);
        Ok(client.watch(self.keys.prefix(), Some(options)).await?)
    }

    /// Everything else that comes within a moment; no longer than that, however much there is.
    async fn drain(&mut self, watch: &mut WatchStream) -> Result<(), Ended> {
        let until = Instant::now() + DEBOUNCE;
        while let Ok(message) = timeout_at(until, watch.message()).await {
            self.take(&message.map_err(broken)?.ok_or(Ended::Silent)?)?;
        }
        Ok(())
    }

    fn take(&mut self, response: &WatchResponse) -> Result<(), Ended> {
        if response.compact_revision() > 0 {
            return Err(Ended::Relist("the watch was behind the store's history"));
        }
        if response.canceled() {
            return Err(Ended::Local(format!("the watch was ended by the store: {}", response.cancel_reason())));
        }
        for event in response.events() {
            if self.store.apply(event, &self.keys) {
                self.unclaimed.hasten();
            }
        }
        Ok(())
    }

    /// Tells what is known and publishes what is to be known of us.
    async fn settle(&mut self, client: &mut Client) -> Result<(), Ended> {
        let wanted = self.channels.publish.borrow_and_update().clone();
        match &wanted {
            Some(record) => self.publisher.want(record),
            None if self.publisher.has_wanted() => {
                self.publisher.withdraw(client).await?;
                // Whoever asked may have given up meanwhile.
                let leaves = self.channels.publish.borrow().is_none();
                return if leaves { Err(Ended::Left) } else { Ok(()) };
            }
            None => {}
        }
        if let Err(problem) = self.check_cluster(client).await? {
            // Nothing is claimed before the store is the right one, and nothing need be tried again.
            self.unclaimed = Unclaimed::new();
            self.unwell(&problem).await;
            return Ok(());
        }
        // What is newly allocated comes back by the watch. Until then nobody is told anything: it would be that the
        // node has no prefix, and its routes and everybody's to it would go and come back.
        let Some(mut problems) = self.claim(client).await? else { return Ok(()) };
        let (mut snapshot, faults) = self.store.snapshot(&self.keys);
        problems.extend(faults);
        let told = self.told.as_ref().map_or(&self.known.entries, |told| &told.entries);
        problems.extend(self.doubts.hold_back(told, &mut snapshot.entries, Instant::now()));
        self.tell(snapshot).await?;
        if let Some(record) = wanted {
            problems.extend(self.publisher.publish(client, &record).await?);
        }
        self.contact();
        if problems.is_empty() {
            self.well().await
        } else {
            self.unwell(&problems.join("; ")).await
        }
        Ok(())
    }

    async fn keep_alive(&mut self, client: &mut Client) -> Result<(), Ended> {
        if self.publisher.has_lease() {
            if self.publisher.keep_alive(client).await? {
                self.contact();
                return Ok(());
            }
            tracing::warn!("the lease was lost; publishing again");
        }
        self.publisher.postpone();
        self.settle(client).await
    }

    /// Tells what is known, when it differs from what was told in more than the revision.
    async fn tell(&mut self, mut snapshot: Snapshot) -> Result<(), Ended> {
        if Instant::now() < self.settled_at {
            return Ok(());
        }
        if let Some(told) = &self.told {
            let revision = std::mem::replace(&mut snapshot.revision, told.revision);
            if **told == snapshot {
                return Ok(());
            }
            snapshot.revision = revision;
        }
        self.known.learn(&snapshot);
        let snapshot = Arc::new(snapshot);
        self.told = Some(Arc::clone(&snapshot));
        self.send(Event::Snapshot(snapshot)).await
    }

    async fn send(&self, event: Event) -> Result<(), Ended> {
        self.channels.events.send(event).await.map_err(|_| Ended::Left)
    }

    /// The store answered: for who wants to know when it did last. Not worth waiting for anybody.
    fn contact(&self) {
        let revision = u64::try_from(self.store.revision()).unwrap_or(0);
        let _ = self.channels.events.try_send(Event::Contact { registry: "etcd", revision });
    }

    async fn well(&mut self) {
        let detail = format!("connected, revision {}", self.store.revision());
        let was_well = self.health.as_ref().is_some_and(|health| health.ok);
        let health = Health { registry: "etcd", ok: true, detail };
        self.health = Some(health.clone());
        if !was_well {
            let _ = self.send(Event::Health(health)).await;
        }
    }

    /// Why the connection ended, and which it was where that is not said already.
    async fn ended(&mut self, ended: &Ended) {
        let detail = match ended {
            Ended::Local(problem) => format!("{problem}; trying again"),
            other => format!("etcd at {}: {other}; trying again", self.config.endpoints.join(", ")),
        };
        self.unwell(&detail).await;
    }

    async fn unwell(&mut self, detail: &str) {
        let health = Health { registry: "etcd", ok: false, detail: detail.to_owned() };
        if self.health.as_ref() != Some(&health) {
            self.health = Some(health.clone());
            let _ = self.send(Event::Health(health)).await;
        }
    }
}

/// A reply that is too large is left behind by reading everything again.
fn broken(error: etcd_client::Error) -> Ended {
    if list::is_out_of_range(&error) { Ended::Relist("the watch's reply is too large") } else { error.into() }
}
