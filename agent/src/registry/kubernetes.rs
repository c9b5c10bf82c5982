//! The Kubernetes registry: custom resources are merged here and told as a whole; what this node publishes is kept there.
//!
//! ```text
//! connect -> which cluster is this? -> follow four kinds, each list -> watch -> ... (`follow`)
//!    ^                                     | together, within a moment
//!    |                                     v
//!    |                             tell -> claim own blocks -> publish own record (`settle`)
//!    \--- whatever ends it: a pause, growing, with jitter; watches then go on where they were
//! ```
//!
//! Ownership is ordered by `creationTimestamp`, which no client can write: the oldest block owns, and within a second the
//! prefix decides. There are no leases: a record lives as long as the Node that owns it. Nothing here ever stops the data
//! path.

mod absence;
mod access;
mod administration;
mod brake;
mod claim;
mod connect;
mod definitions;
mod events;
mod fault;
mod follow;
mod herald;
mod names;
mod node;
mod object;
mod patience;
pub mod prefixes;
mod publish;
pub mod resources;
mod server;
mod settle;
mod store;
mod surplus;
mod written;
mod yaml;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use warren_overlay::mesh::Cluster;
use warren_overlay::record::NodeName;

use super::rest::rest;
use super::sequence::Doubts;
use super::voice::{Deaf, Voice};
use super::{Channels, Concerns, Known, jitter};
use crate::config::Kubernetes;
use absence::Absences;
pub use access::{ACCESS, Access, SOURCES};
pub(crate) use administration::Administration;
use brake::Brake;
use claim::Claims;
pub use connect::server;
pub use definitions::definitions;
use fault::Fault;
use follow::{News, follow};
use herald::Herald;
use object::Kind;
use publish::Publisher;
use server::Server;
use settle::brief;
use store::Store;

/// Between two attempts to reach the API server; the second is doubled up to the last, each with jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Before the first attempt after a loss, which all nodes may have had at once: half of it at most, at random.
const HERD: Duration = Duration::from_secs(8);
/// News that come close together are told once.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Nothing is looked at again, without news, sooner than this.
const CALM: Duration = Duration::from_secs(1);
/// After most records or blocks were gone at once, or the store went back in time: what it takes all nodes to publish again, the
/// one that waits longest before its next attempt included. Counted only while this node is connected.
const SETTLING: Duration = Duration::from_secs(60);
/// What belonged to somebody is given back after it was missing for this long.
const ABSENCE: Duration = Duration::from_secs(600);
/// A record that is older than what was told is believed after twice this.
const DOUBT: Duration = Duration::from_secs(60);
/// What is said while that is waited for.
const UNSETTLED: &str =
    "most records or blocks are gone at once, or the API server went back in time: waiting for the nodes";

impl From<Deaf> for Fault {
    fn from(Deaf: Deaf) -> Self {
        Self::Left
    }
}

/// What the task keeps between connections.
struct Registry {
    config: Kubernetes,
    channels: Channels,
    voice: Voice,
    store: Store,
    publisher: Publisher,
    herald: Herald,
    /// Which cluster the store is of.
    id: String,
    /// Until when what was known before stays in force.
    settled_at: Instant,
    /// The last connection ended before that.
    unsettled: bool,
    /// Of records and of blocks.
    brakes: [(Kind, Brake); 2],
    absences: Absences,
    known: Known,
    doubts: Doubts,
    claims: Claims,
    /// What cannot be heard for now, and why.
    ailing: BTreeMap<Kind, String>,
}

/// Runs until this node leaves or the control plane is gone. As with etcd, the record is withdrawn only when
/// `channels.publish` turns to `None` after it was something; that this returns is the acknowledgement. `concerns` is what
/// else there is to be told to whoever describes the Node.
pub async fn run(
    config: Kubernetes,
    node: NodeName,
    known: Known,
    channels: Channels,
    concerns: watch::Receiver<Concerns>,
) {
    let mut registry = Registry {
        config,
        voice: Voice::new("kubernetes", channels.events.clone()),
        channels,
        store: Store::default(),
        herald: Herald::start(node.clone(), concerns),
        publisher: Publisher::new(node),
        id: String::new(),
        settled_at: Instant::now(),
        unsettled: false,
        brakes: [(Kind::Record, known.entries.len()), (Kind::Block, known.owners.len())]
            .map(|(kind, count)| (kind, Brake::new(count, SETTLING, Instant::now()))),
        absences: Absences::new(ABSENCE),
        known,
        doubts: Doubts::new(DOUBT),
        claims: Claims::new(),
        ailing: BTreeMap::new(),
    };
    let mut pause = BACKOFF.0;
    loop {
        let began = Instant::now();
        let fault = match registry.connection().await {
            Fault::Left => return,
            fault => fault,
        };
        registry.voice.unwell(&format!("{fault}; trying again")).await;
        if began.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        let wait = if pause == BACKOFF.0 { jitter(HERD) } else { pause + jitter(pause) };
        rest(&mut registry.channels.publish, registry.publisher.has_wanted(), wait).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// The first of these, but not at once: what is due and stays due, whatever the reason, must not keep a core busy.
fn soonest(deadlines: impl Iterator<Item = Instant>, now: Instant) -> Option<Instant> {
    deadlines.min().map(|at| at.max(now + CALM))
}

impl Registry {
    /// One connection, from its making to why it ended.
    async fn connection(&mut self) -> Fault {
        let server = match self.open().await {
            Ok(server) => server,
            Err(fault) => return fault,
        };
        self.absences.go_on(SETTLING, Instant::now());
        if self.unsettled {
            self.settled_at = Instant::now() + SETTLING;
        }
        let (told, mut news) = mpsc::channel(64);
        // Dropped, and with it what it runs, when any of them fails.
        let mut followers = JoinSet::new();
        for kind in Kind::REGISTRY {
            followers.spawn(follow(server.clone(), self.id.clone(), kind, self.store.start(kind), told.clone()));
        }
        let Err(fault) = self.listen(&server, &mut news, &mut followers).await;
        self.ailing.clear();
        self.herald.hush();
        self.absences.pause(Instant::now());
        self.unsettled = Instant::now() < self.settled_at;
        fault
    }

    /// Connects, and makes sure that this is the cluster that it was.
    async fn open(&mut self) -> Result<Server, Fault> {
        let server = Server::new(connect::connect(&self.config).await?, self.publisher.node().clone());
        let id = server.cluster_id().await?;
        if let Some(Cluster { id: known, .. }) = self.known.cluster.as_ref().filter(|known| known.id != id) {
            return Err(Fault::Local(format!(
                "this API server is of another cluster ({id} instead of {known}): check kubernetes.server and \
                 kubernetes.kubeconfig; if this host is to join it, stop the agent and remove mesh.json from node.state_dir, \
                 which forgets all it knows of the old one"
            )));
        }
        if self.id != id {
            self.store = Store::default();
            self.id = id;
        }
        Ok(server)
    }

    async fn listen(
        &mut self,
        server: &Server,
        news: &mut mpsc::Receiver<News>,
        followers: &mut JoinSet<Fault>,
    ) -> Result<std::convert::Infallible, Fault> {
        let (mut publish, mut cidrs) = (self.channels.publish.clone(), self.channels.cidrs.clone());
        // Nobody need say anything for a node that leaves to go on with it.
        let _ = self.leaves(server).await?;
        loop {
            let wake = self.wake();
            tokio::select! {
                Some(heard) = news.recv() => {
                    self.take(heard);
                    self.drain(news).await;
                }
                Some(ended) = followers.join_next() => {
                    return Err(ended.unwrap_or_else(|error| Fault::Local(error.to_string())));
                }
                changed = publish.changed() => changed.map_err(|_| Fault::Left)?,
                changed = cidrs.changed() => changed.map_err(|_| Fault::Left)?,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            if self.store.is_complete() {
                self.settle(server).await?;
            } else if !self.ailing.is_empty() {
                self.voice.unwell(&brief(&self.ails())).await;
            }
        }
    }

    /// When to look again although nothing was heard.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let settled = Some(self.settled_at).filter(|at| *at > now);
        let others =
            [self.claims.deadline(now), self.absences.deadline(now), self.doubts.deadline(), self.publisher.deadline()];
        soonest(settled.into_iter().chain(others.into_iter().flatten()), now)
    }

    fn take(&mut self, heard: News) {
        let now = Instant::now();
        self.watch_over(&heard, now);
        let went_back = self.store.apply(heard);
        let store = &self.store;
        let pull = |(kind, brake): &mut (Kind, Brake)| store.count(*kind).is_some_and(|count| brake.pulls(count, now));
        let pulls = self.brakes.iter_mut().map(pull).fold(false, |one, other| one | other);
        if went_back || pulls {
            tracing::warn!("{UNSETTLED}");
            self.settled_at = now + SETTLING;
            self.absences.forget();
        }
    }

    /// Whether what is missing is still being looked for.
    fn watch_over(&mut self, heard: &News, now: Instant) {
        match heard {
            News::Ailing(kind, why) => {
                self.ailing.insert(*kind, why.clone());
                self.absences.pause(now);
            }
            News::Mended(kind) => {
                self.ailing.remove(kind);
                if self.ailing.is_empty() {
                    self.absences.go_on(SETTLING, now);
                }
            }
            // Nobody knows what was there in between.
            News::Listed(Kind::Block | Kind::Record, ..) | News::Doubted(_) => self.absences.forget(),
            _ => {}
        }
    }

    fn ails(&self) -> Vec<String> {
        self.ailing
            .values()
            .map(|why| format!("{why}; trying again"))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Everything else that comes within a moment; no longer than that, however much there is.
    async fn drain(&mut self, news: &mut mpsc::Receiver<News>) {
        let until = Instant::now() + DEBOUNCE;
        while let Ok(Some(heard)) = timeout_at(until, news.recv()).await {
            self.take(heard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_due_is_looked_at_once_a_second() {
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        let past = now.checked_sub(CALM).unwrap_or(now);
        assert_eq!(soonest([now + hour, past].into_iter(), now), Some(now + CALM));
        assert_eq!(soonest([now + hour].into_iter(), now), Some(now + hour));
        assert_eq!(soonest([].into_iter(), now), None);
    }
}
