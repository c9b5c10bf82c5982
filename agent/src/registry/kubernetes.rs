//! The Kubernetes registry: custom resources are merged here and told as a whole; what this node publishes is kept there.
//!
//! ```text
//! connect -> which cluster is this? -> follow four kinds, each list -> watch -> ... (`follow`)
//!    ^                                     | together, within a moment
//!    |                                     v
//!    |                                  claim own blocks -> tell -> publish own record
//!    \--- whatever fails: a pause, growing, with jitter; watches then go on where they were
//! ```
//!
//! Ownership is ordered by `creationTimestamp`, which no client can write: the oldest block owns, and within a second the
//! prefix decides. There are no leases: a record lives as long as the Node that owns it. Nothing here ever stops the data
//! path.

mod absence;
mod access;
mod brake;
mod claim;
mod connect;
mod definitions;
mod fault;
mod follow;
mod names;
mod node;
mod object;
mod publish;
pub mod resources;
mod server;
mod store;
mod yaml;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use warren_overlay::mesh::{Allocation, Cluster};
use warren_overlay::record::NodeName;

use super::sequence::Doubts;
use super::voice::{Deaf, Voice};
use super::{Channels, Known, jitter};
use crate::config::{Cidrs, Kubernetes};
use absence::Absences;
pub use access::{ACCESS, Access};
use brake::Brake;
pub use connect::server;
pub use definitions::definitions;
use fault::Fault;
use follow::{News, follow};
use object::Kind;
use publish::Publisher;
use server::Server;
use store::Store;

/// Between two attempts to reach the API server; the second is doubled up to the last, each with jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// News that come close together are told once.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Nothing is looked at again, without news, sooner than this.
const CALM: Duration = Duration::from_secs(1);
/// So many problems are said at once.
const SAID: usize = 8;
/// After most records or blocks were gone at once, or the store went back in time: what it takes all nodes to publish again, the
/// one that waits longest before its next attempt included. Counted only while this node is connected.
const SETTLING: Duration = Duration::from_secs(60);
/// What belonged to somebody is given back after it was missing for this long.
const ABSENCE: Duration = Duration::from_secs(600);
/// A record that is older than what was told is believed after twice this.
const DOUBT: Duration = Duration::from_secs(60);

impl From<Deaf> for Fault {
    fn from(Deaf: Deaf) -> Self {
        Self::Left
    }
}

/// What the task keeps between connections.
struct Registry {
    config: Kubernetes,
    cidrs: Cidrs,
    channels: Channels,
    voice: Voice,
    store: Store,
    publisher: Publisher,
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
    /// What could not be claimed, and when to try again.
    unclaimed: (Instant, Vec<String>),
    /// Blocks that were made (`true`) or given back, and until when the watch is waited for to tell of them.
    changed: Vec<(String, bool)>,
    echo: Option<Instant>,
}

/// Runs until this node leaves or the control plane is gone. As with etcd, the record is withdrawn only when
/// `channels.publish` turns to `None` after it was something; that this returns is the acknowledgement.
pub async fn run(config: Kubernetes, node: NodeName, cidrs: Cidrs, known: Known, channels: Channels) {
    let mut registry = Registry {
        config,
        cidrs,
        voice: Voice::new("kubernetes", channels.events.clone()),
        channels,
        store: Store::default(),
        publisher: Publisher::new(node),
        id: String::new(),
        settled_at: Instant::now(),
        unsettled: false,
        brakes: [(Kind::Record, known.entries.len()), (Kind::Block, known.owners.len())]
            .map(|(kind, count)| (kind, Brake::new(count, SETTLING, Instant::now()))),
        absences: Absences::new(ABSENCE),
        known,
        doubts: Doubts::new(DOUBT),
        unclaimed: (Instant::now(), Vec::new()),
        changed: Vec::new(),
        echo: None,
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
        registry.rest(pause + jitter(pause)).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// As much of it as people read.
fn brief(problems: &[String]) -> String {
    let mut said = problems.iter().take(SAID).map(String::as_str).collect::<Vec<_>>().join("; ");
    if problems.len() > SAID {
        said += &format!("; and {} more", problems.len() - SAID);
    }
    said
}

/// The first of these, but not at once: what is due and stays due, whatever the reason, must not keep a core busy.
fn soonest(deadlines: impl Iterator<Item = Instant>, now: Instant) -> Option<Instant> {
    deadlines.min().map(|at| at.max(now + CALM))
}

impl Registry {
    /// Waits before the next attempt; not when the node is to leave, which cannot wait for long.
    async fn rest(&mut self, pause: Duration) {
        let leaves = self.channels.publish.wait_for(Option::is_none);
        if self.publisher.has_wanted() {
            let _ = tokio::time::timeout(pause, leaves).await;
        } else {
            sleep(pause).await;
        }
    }

    /// One connection, from its making to why it ended.
    async fn connection(&mut self) -> Fault {
        let server = match self.open().await {
            Ok(server) => server,
            Err(fault) => return fault,
        };
        if self.unsettled {
            self.settled_at = Instant::now() + SETTLING;
        }
        let (told, mut news) = mpsc::channel(64);
        // Dropped, and with it what it runs, when any of them fails.
        let mut followers = JoinSet::new();
        for kind in Kind::ALL {
            followers.spawn(follow(server.clone(), self.id.clone(), kind, self.store.start(kind), told.clone()));
        }
        let Err(fault) = self.listen(&server, &mut news, &mut followers).await;
        self.absences.forget();
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
        let mut publish = self.channels.publish.clone();
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
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            if self.store.is_complete() {
                self.settle(server).await?;
            }
        }
    }

    /// When to look again although nothing was heard.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let settled = Some(self.settled_at).filter(|at| *at > now);
        let unclaimed = (!self.unclaimed.1.is_empty()).then_some(self.unclaimed.0);
        let others = [
            unclaimed,
            self.echo.filter(|at| *at > now),
            self.absences.deadline(now),
            self.doubts.deadline(),
            self.publisher.deadline(),
        ];
        soonest(settled.into_iter().chain(others.into_iter().flatten()), now)
    }

    fn take(&mut self, heard: News) {
        let now = Instant::now();
        let went_back = self.store.apply(heard);
        let store = &self.store;
        let pull = |(kind, brake): &mut (Kind, Brake)| store.count(*kind).is_some_and(|count| brake.pulls(count, now));
        let pulls = self.brakes.iter_mut().map(pull).fold(false, |one, other| one | other);
        if went_back || pulls {
            tracing::warn!(
                "most records or blocks are gone at once, or the API server went back in time: waiting for the nodes"
            );
            self.settled_at = now + SETTLING;
            self.absences.forget();
        }
    }

    /// Everything else that comes within a moment; no longer than that, however much there is.
    async fn drain(&mut self, news: &mut mpsc::Receiver<News>) {
        let until = Instant::now() + DEBOUNCE;
        while let Ok(Some(heard)) = timeout_at(until, news.recv()).await {
            self.take(heard);
        }
    }

    /// Tells what is known and publishes what is to be known of us.
    async fn settle(&mut self, server: &Server) -> Result<(), Fault> {
        let wanted = self.channels.publish.borrow_and_update().clone();
        match &wanted {
            Some(record) => self.publisher.want(record),
            None if self.publisher.has_wanted() => {
                self.publisher.withdraw(server, &self.store).await?;
                return Err(Fault::Left);
            }
            None => {}
        }
        let cluster = match self.store.cluster(&self.id) {
            Ok(cluster) => cluster,
            Err(problem) => {
                self.voice.unwell(&problem).await;
                return Ok(());
            }
        };
        self.known.cluster = Some(cluster.clone());
        // What is newly claimed comes back by the watch. Until then nobody is told anything: it would be that the node
        // has no prefix, and its routes and everybody's to it would go and come back.
        let Some(problems) = self.claim(server, &cluster).await else { return Ok(()) };
        let mut all = problems.clone();
        all.extend(self.tell(cluster).await?);
        // Without its Node the record would be nobody's, and stay for ever.
        if let Some(record) = wanted.filter(|_| !self.lacks_node()).map(|record| self.store.shown(record)) {
            all.extend(self.publisher.publish(server, &self.store, &record).await);
        }
        self.publisher.report(server, &self.store, &problems).await;
        self.voice.contact(self.store.revision());
        match all.as_slice() {
            [] => self.voice.well(format!("connected, version {}", self.store.revision())).await,
            problems => self.voice.unwell(&brief(problems)).await,
        }
        Ok(())
    }

    /// Tells what is known; what is wrong with it.
    async fn tell(&mut self, cluster: Cluster) -> Result<Vec<String>, Fault> {
        let now = Instant::now();
        let (mut snapshot, mut problems) = self.store.snapshot(cluster, &self.known);
        self.release(&mut snapshot.released, now);
        problems.extend(self.doubts.hold_back(self.voice.entries(&self.known), &mut snapshot.entries, now));
        if now >= self.settled_at {
            self.voice.tell(snapshot, &mut self.known).await?;
        }
        Ok(problems)
    }

    /// Leaves of what is missing only what is given back.
    fn release(&mut self, missing: &mut Vec<Allocation>, now: Instant) {
        if now < self.settled_at {
            missing.clear();
            return self.absences.forget();
        }
        let lasting = self.absences.lasting(std::mem::take(missing), now);
        missing.extend(lasting.into_iter().filter(|gone| self.gives_back(gone)));
    }

    /// Its own prefixes a node gives back only when Kubernetes gave it others.
    fn gives_back(&self, gone: &Allocation) -> bool {
        let own = gone.node == *self.publisher.node();
        let others = || {
            let given = self.store.pod_cidrs(self.publisher.node()).filter(|_| self.cidrs == Cidrs::Kubernetes);
            given.is_some_and(|given| !given.is_empty() && !given.contains(&gone.cidr))
        };
        !own || others()
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

    #[test]
    fn of_many_problems_the_first_are_said_and_the_others_counted() {
        let problems: Vec<_> = (0..5000).map(|number| format!("p{number}")).collect();
        assert_eq!(brief(&problems[..2]), "p0; p1");
        let said = brief(&problems);
        assert!(said.starts_with("p0; p1; ") && said.ends_with("; and 4992 more") && said.len() < 100, "{said}");
    }
}
