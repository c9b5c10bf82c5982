//! A node as its registry sees it: what it publishes, what it is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use warren_agent::config::{Cidrs, Etcd};
use warren_agent::registry::etcd::{self, Known};
use warren_agent::registry::{Channels, Event, Health};
use warren_crypto::{PrivateKey, PublicKey};
use warren_overlay::mesh::Snapshot;
use warren_overlay::record::{RECORD_VERSION, Record};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Node {
    pub(crate) record: Record,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) health: Option<Health>,
    /// Every health that was told.
    pub(crate) healths: Vec<Health>,
    /// The revision of every contact that was told.
    pub(crate) contacts: Vec<u64>,
    events: mpsc::Receiver<Event>,
    pub(crate) publish: watch::Sender<Option<Record>>,
    cidrs: watch::Sender<Cidrs>,
    task: JoinHandle<()>,
}

/// A record with a fresh key and this address.
pub(crate) fn record(name: &str, address: &str) -> Record {
    let address = address.parse().expect("an address");
    Record {
        version: RECORD_VERSION,
        name: name.parse().expect("a name"),
        public_key: PrivateKey::generate().public_key(),
        endpoints: vec![(address, 51840).into()],
        addresses: [address].into(),
        cidrs: Default::default(),
        mtu: 1420,
        workers: 1,
        suites: Vec::new(),
        features: Default::default(),
        agent: "test".to_owned(),
    }
}

pub(crate) fn auto() -> Cidrs {
    Cidrs::Auto { length: (24, 64) }
}

pub(crate) fn listed(cidrs: &[&str]) -> Cidrs {
    Cidrs::Listed(cidrs.iter().map(|cidr| cidr.parse().expect("a prefix")).collect())
}

impl Node {
    /// A node without memory that publishes a record with a fresh key.
    pub(crate) fn start(config: Etcd, name: &str, address: &str, cidrs: Cidrs) -> Self {
        Self::with(config, record(name, address), cidrs, Known::default())
    }

    pub(crate) fn with(config: Etcd, record: Record, cidrs: Cidrs, known: Known) -> Self {
        let (publish, published) = watch::channel(Some(record.clone()));
        let (told, events) = mpsc::channel(64);
        let (cidrs, wanted) = watch::channel(cidrs);
        let channels = Channels { events: told, publish: published, cidrs: wanted };
        let task = tokio::task::spawn_local(etcd::run(config, record.name.clone(), known, channels));
        let (healths, contacts) = (Vec::new(), Vec::new());
        Self { record, snapshot: None, health: None, healths, contacts, events, publish, cidrs, task }
    }

    /// What an agent that starts again finds on its disk.
    pub(crate) fn memory(&self) -> Known {
        let snapshot = self.snapshot.as_deref().cloned().unwrap_or_default();
        let owners = snapshot.allocations.into_iter().map(|given| (given.cidr, given.node)).collect();
        Known { cluster: snapshot.cluster, owners, entries: snapshot.entries }
    }

    /// Takes events until this holds.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        self.within(PATIENCE, what, holds)
    }

    #[track_caller]
    pub(crate) fn within(
        &mut self,
        limit: Duration,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> impl Future<Output = ()> {
        let (caller, until) = (std::panic::Location::caller(), Instant::now() + limit);
        async move {
            while !holds(self) {
                let Ok(event) = timeout_at(until, self.events.recv()).await else {
                    panic!("{caller}: not within {limit:?}: {what}; health {:?}, told {}", self.health, self.summary());
                };
                self.take(event.expect("the registry runs"));
            }
        }
    }

    /// What this node was told, without its bytes.
    fn summary(&self) -> String {
        let Some(told) = &self.snapshot else { return "nothing".to_owned() };
        let keys = told.entries.iter().take(20).map(|entry| entry.key.as_str());
        format!("{:?} with {:?}, {:?}", keys.collect::<Vec<_>>(), told.allocations, told.cluster)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Snapshot(snapshot) => self.snapshot = Some(snapshot),
            Event::Health(health) => {
                self.health = Some(health.clone());
                self.healths.push(health);
            }
            Event::Contact { revision, .. } => self.contacts.push(revision),
            Event::Static(_) | Event::Cidrs(_) => panic!("etcd knows no files"),
        }
    }

    /// Takes what is told in this time.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(event) = timeout_at(until, self.events.recv()).await {
            self.take(event.expect("the registry runs"));
        }
    }

    /// Runs the registry until the store holds this; etcdctl is asked in between.
    #[track_caller]
    pub(crate) fn until_stored(&mut self, what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
        let (caller, until) = (std::panic::Location::caller(), Instant::now() + PATIENCE);
        async move {
            while !holds() {
                assert!(Instant::now() < until, "{caller}: not in time: {what}; health {:?}", self.health);
                self.listen(Duration::from_millis(100)).await;
            }
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.ok)
    }

    pub(crate) fn complains_of(&self, text: &str) -> bool {
        self.health.as_ref().is_some_and(|health| !health.ok && health.detail.contains(text))
    }

    /// The key in this node's record, as this node was told.
    pub(crate) fn sees(&self, name: &str) -> Option<PublicKey> {
        let entries = self.snapshot.iter().flat_map(|snapshot| &snapshot.entries);
        let mut entries = entries.filter(|entry| entry.key == name);
        Some(Record::parse(&entries.next()?.value).ok()?.public_key)
    }

    /// The owner of a prefix, as this node was told.
    pub(crate) fn owner(&self, cidr: &str) -> Option<String> {
        let mut given = self.snapshot.iter().flat_map(|snapshot| &snapshot.allocations);
        given.find(|given| given.cidr.to_string() == cidr).map(|given| given.node.to_string())
    }

    /// What this node was told to have.
    pub(crate) fn cidrs(&self) -> Vec<String> {
        let given = self.snapshot.iter().flat_map(|snapshot| &snapshot.allocations);
        given.filter(|given| given.node == self.record.name).map(|given| given.cidr.to_string()).collect()
    }

    /// It should have these from now on.
    pub(crate) fn should_have(&self, cidrs: Cidrs) {
        self.cidrs.send_replace(cidrs);
    }

    /// As SIGTERM or a crash ends it.
    pub(crate) fn stop(self) {
        self.task.abort();
    }

    /// `warren leave`; true when the registry confirmed.
    pub(crate) async fn leave(self) -> bool {
        self.publish.send_replace(None);
        tokio::time::timeout(Duration::from_secs(10), self.publish.closed()).await.is_ok()
    }
}
