//! An API server of Kubernetes, as far as the agent can tell: HTTP/1.1 over TLS on a real socket, list, watch, create, server-side
//! apply, delete with preconditions, resource versions, bookmarks, continuation, compaction; and every way to misbehave
//! that a test asks for. Where a test demands it, it answers only who shows a token or a client certificate. It knows nothing of roles
//! and admission: tests hold what was asked to the manifests.
//!
//! It was written from the API's documentation, beside the agent, and has never been compared with a real one.

mod http;
mod objects;
mod routes;
mod tls;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Authority, Certificate};
use crate::command;
use crate::namespace::Namespace;
use crate::{Lab, Node};
use objects::Objects;
pub use objects::{AFFINITIES, BLOCKS, CILIUM_NODES, CLUSTERS, EVENTS, NODES, PODS, RECORDS};
use tls::Tls;

/// Of the host network that it is in.
const PORT: u16 = 6443;

/// How it behaves towards whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// Takes requests and answers none.
    Silent,
    /// Answers each so much later.
    Slow(Duration),
    /// Answers all with this status.
    Status(u16),
    /// Answers whoever reads, and all who write with this status.
    Refusing(u16),
    /// Answers whoever writes Events with this status, and all else as it should.
    Eventless(u16),
    /// Answers every other request of a kind that it is too busy.
    Busy,
    /// Tells watches of what happens so much later.
    Lagging(Duration),
    /// Does not know the custom resources yet.
    Strange,
    /// Answers with what is no JSON.
    Babbling,
    /// Answers lists and events without what belongs to them.
    Lying,
}

/// A request that was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// API group; empty for the core.
    pub group: String,
    /// Plural name, with its subresource.
    pub resource: String,
    /// As RBAC names it.
    pub verb: String,
    /// The object, for what asks for one by name.
    pub name: Option<String>,
    /// What stands behind the question mark.
    pub query: String,
}

/// What an API server knew at one moment.
#[derive(Clone, Debug)]
pub struct Backup(Objects);

/// Shared by all connections.
#[derive(Debug)]
struct Shared {
    objects: Mutex<Objects>,
    mood: Mutex<Mood>,
    /// Tokens that are good; without a set of them nobody is asked who they are.
    tokens: Mutex<Option<BTreeSet<String>>>,
    asked: Mutex<Vec<Asked>>,
    /// Of how many more lists the rest is asked for too late.
    forgets: Mutex<usize>,
    /// Whether records are held to their Nodes' prefixes.
    compares: AtomicBool,
    /// Counts how often all connections were cut.
    cuts: watch::Sender<u64>,
    /// Counts changes of objects.
    changes: watch::Sender<u64>,
}

impl Shared {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().expect("no request panics")
    }

    /// Whether whoever shows this may ask; `certified`: and a certificate by the server's own authority.
    fn admits(&self, token: Option<&str>, certified: bool) -> bool {
        let tokens = self.tokens.lock().expect("no request panics");
        tokens.as_ref().is_none_or(|good| certified || token.is_some_and(|token| good.contains(token)))
    }
}

/// One API server; gone when dropped.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Tls,
    serving: Option<Serving>,
}

/// The thread that takes connections, until what stops it is dropped.
#[derive(Debug)]
struct Serving {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ApiServer {
    /// On the loopback of wherever the caller is.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
        let mut server = Self::absent(listener.local_addr().expect("it is bound"));
        server.serve(listener);
        server
    }

    /// In the lab's hub, where all nodes reach it.
    pub fn start_in(lab: &Lab) -> Self {
        let mut server = Self::absent(SocketAddr::new(lab.hub_address(), PORT));
        server.up(lab.hub());
        server
    }

    /// Of a node's host network, at its first address, where nobody listens yet: what nodes are told of it is known.
    pub fn absent_on(node: &Node) -> Self {
        Self::absent(SocketAddr::new(node.address(), PORT))
    }

    fn absent(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            objects: Mutex::new(Objects::new()),
            mood: Mutex::new(Mood::Well),
            tokens: Mutex::default(),
            asked: Mutex::default(),
            forgets: Mutex::default(),
            compares: AtomicBool::new(false),
            cuts: watch::Sender::new(0),
            changes: watch::Sender::new(0),
        });
        Self { shared, address, tls: Tls::new(), serving: None }
    }

    /// Takes connections from now on, in the namespace that has its address, with the objects that it has.
    #[track_caller]
    pub fn up(&mut self, namespace: &Namespace) {
        let address = self.address;
        let listener = namespace.enter(|| std::net::TcpListener::bind(address));
        self.serve(listener.expect("the namespace has the address"));
    }

    /// Ends: connections are cut, and further ones refused. Its objects stay.
    pub fn down(&mut self) {
        if let Some(Serving { stop, thread }) = self.serving.take() {
            drop(stop);
            thread.join().expect("no request panics");
        }
    }

    fn serve(&mut self, listener: std::net::TcpListener) {
        let (stop, stopped) = oneshot::channel();
        let (of_thread, acceptor) = (Arc::clone(&self.shared), self.tls.acceptor(self.address.ip()));
        let thread = std::thread::spawn(move || run(listener, acceptor, of_thread, stopped));
        self.serving = Some(Serving { stop, thread });
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where it listens, as Kubernetes tells a Pod.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who signs its certificate, and those of its clients.
    pub fn authority(&self) -> &Authority {
        self.tls.authority()
    }

    /// What a host is given to reach it.
    pub fn kubeconfig(&self) -> String {
        kubeconfig(&self.url(), &self.authority().ca_file())
    }

    /// What a host outside of the cluster makes itself of its certificate: all is in it, as `kubectl --embed-certs` does it.
    pub fn kubeconfig_of(&self, host: &Certificate) -> String {
        let (authority, certificate, key) =
            (base64(&self.authority().ca_file()), base64(&host.cert), base64(&host.key));
        config(
            &json!({"server": self.url(), "certificate-authority-data": authority}),
            &json!({"client-certificate-data": certificate, "client-key-data": key}),
        )
    }

    /// From now on it answers only who shows one of these tokens, or a certificate by its authority. Who is being answered
    /// goes on being answered, as by a real one.
    pub fn demand(&self, tokens: &[&str]) {
        let tokens = tokens.iter().map(|&token| token.to_owned()).collect();
        *self.shared.tokens.lock().expect("no request panics") = Some(tokens);
    }

    /// From now on it behaves like this; connections that stand are cut.
    pub fn be(&self, mood: Mood) {
        *self.shared.mood.lock().expect("no request panics") = mood;
        self.cut();
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Makes or replaces an object, as an administrator would.
    pub fn put(&self, resource: &str, object: Value) {
        self.change(|objects| objects.put(resource, object));
    }

    /// Deletes an object, and what it owns.
    pub fn remove(&self, resource: &str, name: &str) {
        self.change(|objects| objects.remove(resource, name));
    }

    /// Deletes an object that somebody's finalizer keeps, until it is removed.
    pub fn begin_removal(&self, resource: &str, name: &str) {
        self.change(|objects| objects.begin_removal(resource, name));
    }

    /// A Node with these Pod CIDRs; made anew under another UID when it is there.
    pub fn node(&self, name: &str, pod_cidrs: &[&str], addresses: &[IpAddr]) {
        let addresses: Vec<_> = addresses.iter().map(|at| json!({"type": "InternalIP", "address": at})).collect();
        self.remove(NODES, name);
        self.put(
            NODES,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "spec": {"podCIDRs": pod_cidrs}, "status": {"addresses": addresses}}),
        );
    }

    /// A Pod of the agent on a Node.
    pub fn agent_pod(&self, node: &str, ready: bool) {
        let name = format!("warren-{node}");
        self.remove(PODS, &name);
        let labels = json!({"app.kubernetes.io/name": "warren", "app.kubernetes.io/component": "agent"});
        let status = if ready { "True" } else { "False" };
        self.put(
            PODS,
            json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "warren-system", "labels": labels}, "spec": {"nodeName": node},
            "status": {"conditions": [{"type": "Ready", "status": status}]}}),
        );
    }

    /// The WarrenCluster.
    pub fn cluster(&self, networks: &[&str], enforcement: &str) {
        self.put(
            CLUSTERS,
            json!({"apiVersion": "warren.dev/v1alpha1", "kind": "WarrenCluster",
            "metadata": {"name": "default"}, "spec": {"networks": networks, "enforcement": enforcement}}),
        );
    }

    /// An object as it stands.
    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.shared.objects().get(resource, name).cloned()
    }

    /// All of a resource, in the order of their names.
    pub fn all(&self, resource: &str) -> Vec<Value> {
        self.shared.objects().list(resource, "").into_iter().cloned().collect()
    }

    /// Forgets what happened: watches of the past are too old.
    pub fn compact(&self) {
        self.change(Objects::compact);
    }

    /// Answers the next so many who ask for the rest of a list that its version is too old.
    pub fn forget_lists(&self, times: usize) {
        *self.shared.forgets.lock().expect("no request panics") = times;
    }

    /// From now on refuses records with prefixes that their Nodes do not have, as `admission-node-facts.yaml` does.
    pub fn compare(&self) {
        self.shared.compares.store(true, Relaxed);
    }

    /// Everything, to go back to.
    pub fn backup(&self) -> Backup {
        Backup(self.shared.objects().clone())
    }

    /// Goes back to what was, as after a restore of its store.
    pub fn restore(&self, backup: &Backup) {
        self.change(|objects| objects.clone_from(&backup.0));
        self.cut();
    }

    /// Loses all objects of a resource at once, without telling a watch: its definition was deleted and made anew.
    pub fn wipe(&self, resource: &str) {
        self.change(|objects| objects.wipe(resource));
        self.cut();
    }

    /// Another cluster answers here from now on.
    pub fn become_another(&self) {
        self.change(Objects::become_another);
        self.cut();
    }

    /// Everything that was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no request panics").clone()
    }

    /// How many requests of this kind were made.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        self.asked().iter().filter(|asked| asked.verb == verb && asked.resource == resource).count()
    }

    /// How often all of a resource was read: not only its version, nor by another page.
    pub fn lists(&self, resource: &str) -> usize {
        let asked = self.asked();
        let whole =
            |asked: &&Asked| !asked.query.split('&').any(|one| one == "limit=1" || one.starts_with("continue="));
        asked.iter().filter(|asked| asked.verb == "list" && asked.resource == resource).filter(whole).count()
    }

    fn change(&self, change: impl FnOnce(&mut Objects)) {
        change(&mut self.shared.objects());
        self.shared.changes.send_modify(|changes| *changes += 1);
    }
}

/// The text of a kubeconfig without credentials.
pub fn kubeconfig(url: &str, authority: &Path) -> String {
    config(&json!({"server": url, "certificate-authority": authority}), &json!({}))
}

fn config(cluster: &Value, user: &Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "users": [{"name": "lab", "user": user}],
    })
    .to_string()
}

fn base64(file: &Path) -> String {
    command::run(&["base64", "-w0", &file.display().to_string()])
}

fn run(listener: std::net::TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket can");
        let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
        let accept = async {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(http::serve(stream, acceptor.clone(), Arc::clone(&shared)));
                }
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
}
