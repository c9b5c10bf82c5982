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

mod allocate;
mod connect;
mod keys;
mod list;
mod publish;
mod store;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, WatchOptions, WatchResponse, WatchStream};
use rand_core::{OsRng, RngCore as _};
use tokio::time::{Instant, sleep, timeout};
use warren_overlay::mesh::{Cluster, Snapshot};
use warren_overlay::record::NodeName;

use super::{Channels, Event, Health};
use crate::config::{Cidrs, Etcd};
pub use allocate::{AllocateError, Want, allocate, release};
pub use connect::connect;
pub use keys::Keys;
pub use list::list;
use publish::Publisher;
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

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The store or the way to it.
    #[error("{0}")]
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
    cidrs: Cidrs,
    channels: Channels,
    store: Store,
    publisher: Publisher,
    health: Option<Health>,
    /// A store that went back in time shows what was long since replaced: nodes publish themselves again until then,
    /// and what was known before stays in force.
    settled_at: Instant,
    /// What the control plane knows.
    told: Option<Arc<Snapshot>>,
    /// The cluster as last seen: a store that shows another one is another store.
    cluster: Option<Cluster>,
}

/// Runs until this node leaves or the control plane is gone. `known` is the cluster of the last good mesh on disk.
pub async fn run(config: Etcd, node: NodeName, cidrs: Cidrs, known: Option<Cluster>, channels: Channels) {
    let keys = Keys::new(&config.cluster);
    let publisher = Publisher::new(keys.clone(), node, Duration::from_secs(config.lease_seconds));
    let store = Store::default();
    let mut registry = Registry {
        config,
        keys,
        cidrs,
        channels,
        store,
        publisher,
        health: None,
        settled_at: Instant::now(),
        told: None,
        cluster: known,
    };
    let mut pause = BACKOFF.0;
    loop {
        let began = Instant::now();
        match registry.connection().await {
            Err(Ended::Left) => return,
            Err(ended) => registry.unwell(&format!("{ended}; trying again")).await,
            Ok(()) => {}
        }
        if began.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        sleep(pause + jitter(pause)).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Up to half of `pause`, at random.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(f64::from(OsRng.next_u32()) / f64::from(u32::MAX) / 2.0)
}

impl Registry {
    /// One connection, from its making to its end.
    async fn connection(&mut self) -> Result<(), Ended> {
        let mut client = connect(&self.config).await.map_err(Ended::Local)?;
        loop {
            self.refresh(&mut client).await?;
            match self.follow(&mut client).await {
                Err(Ended::Relist(why)) => {
                    tracing::debug!(why, "reading the store again");
                    self.store.forget_revision();
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
        if self.store.is_newer_than(revision) || history == History::Another {
            tracing::warn!(had = self.store.revision(), has = revision, "the store was restored or wiped");
            self.settled_at = Instant::now() + SETTLING;
        }
        self.store = list(client, &self.keys).await?;
        self.store.set_cluster_id(cluster_id);
        self.publisher.forget();
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
        let mut publish = self.channels.publish.clone();
        let mut settled = Instant::now() >= self.settled_at;
        loop {
            tokio::select! {
                message = watch.message() => {
                    let response = message?.ok_or(Ended::Silent)?;
                    self.take(&response)?;
                    (quiet, asked) = (Instant::now() + QUIET, false);
                    self.drain(&mut watch).await?;
                    self.settle(client).await?;
                }
                changed = publish.changed() => {
                    changed.map_err(|_| Ended::Left)?;
                    self.settle(client).await?;
                }
                () = tokio::time::sleep_until(self.settled_at), if !settled => {
                    settled = true;
                    self.settle(client).await?;
                }
                () = tokio::time::sleep_until(self.publisher.deadline()) => self.keep_alive(client).await?,
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
        Ok(client.watch(self.keys.prefix(), Some(options)).await?)
    }

    /// Everything else that is already there.
    async fn drain(&mut self, watch: &mut WatchStream) -> Result<(), Ended> {
        while let Ok(message) = timeout(DEBOUNCE, watch.message()).await {
            let response = message?.ok_or(Ended::Silent)?;
            self.take(&response)?;
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
            self.store.apply(event);
        }
        if let Some(header) = response.header() {
            self.store.advance(header.revision());
        }
        Ok(())
    }

    /// Tells what is known and publishes what is to be known of us.
    async fn settle(&mut self, client: &mut Client) -> Result<(), Ended> {
        if !self.check_cluster(client).await? {
            return Ok(());
        }
        self.claim(client).await?;
        let (snapshot, faults) = self.store.snapshot(&self.keys);
        self.tell(snapshot).await?;
        let wanted = self.channels.publish.borrow_and_update().clone();
        let refused = match wanted {
            Some(record) => self.publisher.publish(client, &record).await?,
            None if self.publisher.has_published() => {
                self.publisher.withdraw(client).await?;
                return Err(Ended::Left);
            }
            None => None,
        };
        match refused.into_iter().chain(faults).reduce(|all, one| format!("{all}; {one}")) {
            Some(problem) => self.unwell(&problem).await,
            None => self.well().await,
        }
        Ok(())
    }

    /// A store without our cluster: never set up, wiped, or another one.
    async fn check_cluster(&mut self, client: &mut Client) -> Result<bool, Ended> {
        match (self.store.cluster(&self.keys), &self.cluster) {
            (Ok(Some(seen)), Some(known)) if seen.id != known.id => {
                let problem = format!(
                    "the store belongs to another cluster ({} instead of {}): check etcd.endpoints and etcd.cluster; if it \
                     was lost and set up anew, run `warren cluster init --change --id {}` with the same networks",
                    seen.id, known.id, known.id
                );
                self.unwell(&problem).await;
                Ok(false)
            }
            (Ok(Some(seen)), _) => {
                self.cluster = Some(seen);
                Ok(true)
            }
            (Ok(None), Some(known)) => {
                let known = known.clone();
                self.restore_cluster(client, &known).await?;
                Ok(false)
            }
            (Ok(None), None) => {
                let cluster = &self.config.cluster;
                self.unwell(&format!("cluster {cluster:?} is not set up in this store: run `warren cluster init`"))
                    .await;
                Ok(false)
            }
            (Err(problem), _) => {
                self.unwell(&problem).await;
                Ok(false)
            }
        }
    }

    /// The store was wiped: put back what this node knows of the cluster, if it may; the watch will show it.
    async fn restore_cluster(&mut self, client: &mut Client, known: &Cluster) -> Result<(), Ended> {
        match allocate::put_cluster(client, &self.keys, known).await {
            Ok(_) => self.unwell("the store was wiped; the cluster was put back, nodes publish themselves again").await,
            Err(error) => {
                let problem = format!(
                    "the store was wiped and this node may not put the cluster back ({error}): \
                     run `warren cluster init` and `warren cluster add-node` again; the mesh stays as it was"
                );
                self.unwell(&problem).await;
            }
        }
        Ok(())
    }

    /// Makes sure that the CIDRs that this node should have are allocated to it, as far as it may.
    async fn claim(&mut self, client: &mut Client) -> Result<(), Ended> {
        let networks = self.cluster.as_ref().map(|cluster| cluster.networks.clone()).unwrap_or_default();
        let node = self.publisher.node().clone();
        let missing = self.store.missing(&self.keys, &node, &self.cidrs, &networks);
        for want in missing {
            match allocate(client, &self.keys, &node, &want, &networks).await {
                Ok(cidr) => tracing::info!(%cidr, "allocated to this node"),
                Err(AllocateError::Store(error)) if is_denied(&error) => {}
                Err(AllocateError::Store(error)) => return Err(error.into()),
                Err(error) => self.unwell(&error.to_string()).await,
            }
        }
        Ok(())
    }

    async fn keep_alive(&mut self, client: &mut Client) -> Result<(), Ended> {
        if self.publisher.has_lease() {
            if self.publisher.keep_alive(client).await? {
                return Ok(());
            }
            tracing::warn!("the lease was lost; publishing again");
        }
        self.publisher.postpone();
        self.settle(client).await
    }

    /// Tells what is known, when it differs from what was told in more than the revision.
    async fn tell(&mut self, snapshot: Snapshot) -> Result<(), Ended> {
        let revision = snapshot.revision;
        let told = self.told.as_ref().is_some_and(|told| Snapshot { revision, ..(**told).clone() } == snapshot);
        if told || Instant::now() < self.settled_at {
            return Ok(());
        }
        let snapshot = Arc::new(snapshot);
        self.told = Some(Arc::clone(&snapshot));
        self.send(Event::Snapshot(snapshot)).await
    }

    async fn send(&self, event: Event) -> Result<(), Ended> {
        self.channels.events.send(event).await.map_err(|_| Ended::Left)
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

    async fn unwell(&mut self, detail: &str) {
        let health = Health { registry: "etcd", ok: false, detail: detail.to_owned() };
        if self.health.as_ref() != Some(&health) {
            self.health = Some(health.clone());
            let _ = self.send(Event::Health(health)).await;
        }
    }
}

fn is_denied(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("permission denied"))
}
