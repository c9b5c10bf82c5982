//! An API server on the loopback for one test, and nodes that register in it, each as its registry sees it. No root.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use warren_agent::cidrs::Given;
use warren_agent::config::{Cidrs, Kubernetes};
use warren_agent::registry::kubernetes::{self, ACCESS, SOURCES};
use warren_agent::registry::{Channels, Concerns, Event, Health, Known};
use warren_crypto::{PrivateKey, PublicKey};
use warren_overlay::mesh::Snapshot;
use warren_overlay::record::{RECORD_VERSION, Record};
use warren_tests::ApiServer;
use warren_tests::api_server::{BLOCKS, CILIUM_NODES, NODES, RECORDS};

/// How long anything may take: longer than the longest pause between two attempts, 45 seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(75);

/// Runs a test on a runtime as the agent has it, for at most five minutes.
pub(crate) fn scenario(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let limited = async { tokio::time::timeout(Duration::from_secs(300), local.run_until(test)).await };
    runtime.block_on(limited).expect("the test ends in time");
}

/// A cluster with an API server. When it goes, everything that was asked of it must be in the agent's table.
pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    folder: TempDir,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let cluster = Self { api: ApiServer::start(), folder: tempfile::tempdir().expect("a folder") };
        cluster.api.cluster(&["10.0.0.0/8"], "strict");
        cluster
    }

    pub(crate) fn config(&self) -> Kubernetes {
        self.config_of(&self.api.kubeconfig())
    }

    /// With this text as the kubeconfig.
    pub(crate) fn config_of(&self, kubeconfig: &str) -> Kubernetes {
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig).expect("the folder is ours");
        Kubernetes { kubeconfig: Some(path), ..Kubernetes::default() }
    }

    /// A Node and its agent's registry, which is told at once what the Node gives.
    pub(crate) fn node(&self, name: &str, address: &str, pod_cidrs: &[&str]) -> Node {
        self.api.node(name, pod_cidrs, &[address.parse().expect("an address")]);
        Node::start(self.config(), record(name, address), given(pod_cidrs), Known::default())
    }

    /// A host outside of the cluster.
    pub(crate) fn host(&self, name: &str, address: &str, cidrs: Cidrs) -> Node {
        Node::start(self.config(), record(name, address), cidrs, Known::default())
    }

    /// A block that an administrator made.
    pub(crate) fn block(&self, name: &str, cidr: &str, node: &str) {
        self.api.put(BLOCKS, json!({"metadata": {"name": name}, "spec": {"cidr": cidr, "node": node}}));
    }

    /// The record of somebody of whom there is no agent.
    pub(crate) fn publish(&self, record: &Record, sequence: u64) {
        self.api.put(RECORDS, object(record, sequence));
    }

    pub(crate) fn record(&self, name: &str) -> Option<Value> {
        self.api.get(RECORDS, name)
    }

    /// Waits until this holds of what stands in the API server.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&ApiServer) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.api) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for asked in self.api.asked() {
            let of_sources = SOURCES.iter().flat_map(|(_, all)| all.iter());
            let known = ACCESS.iter().chain(of_sources).any(|access| {
                (access.group, access.resource, access.verb) == (&*asked.group, &*asked.resource, &*asked.verb)
                    && access.name.is_none_or(|name| asked.name.as_deref() == Some(name))
            });
            let own = !matches!(&*asked.resource, NODES | CILIUM_NODES)
                || asked.query.contains("fieldSelector=metadata.name");
            assert!(
                (known && own) || std::thread::panicking(),
                "the agent asks for what is not in its table: {asked:?}"
            );
        }
    }
}

/// The record as it stands in the API server.
pub(crate) fn object(record: &Record, sequence: u64) -> Value {
    let mut spec = serde_json::to_value(record).expect("JSON");
    spec["publicKey"] = spec["public_key"].take();
    spec["sequence"] = sequence.into();
    let fields = spec.as_object_mut().expect("a record");
    fields.remove("public_key");
    fields.remove("name");
    json!({"metadata": {"name": record.name}, "spec": spec})
}

/// What the control plane takes over from an API server that says these.
pub(crate) fn given(cidrs: &[&str]) -> Cidrs {
    let cidrs = cidrs.iter().map(|cidr| cidr.parse().expect("a prefix")).collect();
    Cidrs::Given(Given { cidrs, ..Given::default() })
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

/// What a node publishes, and what it is told.
pub(crate) struct Node {
    pub(crate) record: Record,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) health: Option<Health>,
    /// The version at which the API server was last heard of.
    pub(crate) contact: Option<u64>,
    /// What its control plane finds.
    pub(crate) concerns: watch::Sender<Concerns>,
    events: mpsc::Receiver<Event>,
    publish: watch::Sender<Option<Record>>,
    cidrs: watch::Sender<Cidrs>,
    task: JoinHandle<()>,
}

impl Node {
    pub(crate) fn start(config: Kubernetes, record: Record, cidrs: Cidrs, known: Known) -> Self {
        let (publish, published) = watch::channel(Some(record.clone()));
        let (told, events) = mpsc::channel(64);
        let (cidrs, wanted) = watch::channel(cidrs);
        let channels = Channels { events: told, publish: published, cidrs: wanted };
        let (concerns, found) = watch::channel(Concerns::new());
        let registry = kubernetes::run(config, record.name.clone(), known, channels, found);
        let task = tokio::task::spawn_local(registry);
        Self { record, snapshot: None, health: None, contact: None, concerns, events, publish, cidrs, task }
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
        let (caller, until) = (std::panic::Location::caller(), Instant::now() + PATIENCE);
        async move {
            while !holds(self) {
                let Ok(event) = timeout_at(until, self.events.recv()).await else {
                    let told = self.snapshot.as_ref().map(|told| (&told.allocations, told.entries.len()));
                    panic!("{caller}: not within {PATIENCE:?}: {what}; health {:?}, told {told:?}", self.health);
                };
                self.take(event.expect("the registry runs"));
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Snapshot(snapshot) => self.snapshot = Some(snapshot),
            Event::Health(health) => self.health = Some(health),
            Event::Contact { registry: "kubernetes", revision } => self.contact = Some(revision),
            other => panic!("Kubernetes does not tell {other:?}"),
        }
    }

    /// Takes what is told in this time.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(Some(event)) = timeout_at(until, self.events.recv()).await {
            self.take(event);
        }
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record);
        self.publish.send_replace(Some(self.record.clone()));
    }

    /// It should have these from now on.
    pub(crate) fn should_have(&self, cidrs: Cidrs) {
        self.cidrs.send_replace(cidrs);
    }

    /// Asks that the record be withdrawn.
    pub(crate) fn ask_to_leave(&self) {
        self.publish.send_replace(None);
    }

    /// Gives up to ask for that.
    pub(crate) fn ask_to_stay(&self) {
        self.publish.send_replace(Some(self.record.clone()));
    }

    pub(crate) fn has_left(&self) -> bool {
        self.task.is_finished()
    }

    /// Withdraws the record and waits until the registry has ended.
    pub(crate) async fn leave(mut self) {
        self.ask_to_leave();
        tokio::time::timeout(PATIENCE, &mut self.task).await.expect("leaving ends").expect("without panic");
    }

    /// The key that it was told of this node, if the record is one.
    pub(crate) fn sees(&self, name: &str) -> Option<PublicKey> {
        let entries = &self.snapshot.as_ref()?.entries;
        let entry = entries.iter().find(|entry| entry.key == name)?;
        Record::parse(&entry.value).ok().map(|record| record.public_key)
    }

    /// Who it was told owns the prefix.
    pub(crate) fn owner(&self, cidr: &str) -> Option<String> {
        let cidr = cidr.parse().expect("a prefix");
        let given = self.snapshot.as_ref()?.allocations.iter().find(|given| given.cidr == cidr)?;
        Some(given.node.to_string())
    }

    pub(crate) fn is_well(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.ok)
    }

    /// Unwell, for a reason that has these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        self.health.as_ref().is_some_and(|health| !health.ok && health.detail.contains(words))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}
