//! Everything begins at once on empty disks, in the worst order, with what the cluster needs on its own nodes: Pods that
//! talk as soon as anybody lets them, agents, and last of all the registry that they wait for.
//!
//! ```text
//! Pods by ptp, host-local, portmap, warren-gate
//!   ║                     ║            ║
//! node1 ═══════ hub ═══ node2 ═════ node3
//! etcd, API server on     │
//! its host network     sniffer
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::json;
use warren_tests::api_server::BLOCKS;
use warren_tests::cni::plugin::{Conflist, default_routes, host_local, portmap};
use warren_tests::http;
use warren_tests::secret::write_secret;
use warren_tests::{
    Agent, ApiServer, Etcd, Flood, Lab, Node, Pod, Runtime, Settings, Sniffer, assert_seen_without_warren, between,
    eventually, ping,
};

/// Where an agent answers a kubelet.
const PROBES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9587);
/// In pcap's language: Pods in clear.
const PODS: &str = "ip and net 10.42.0.0/16";
/// The same, and nodes, but for exempt ports and the tunnel.
const PODS_AND_NODES: &str = "(ip and net 10.42.0.0/16) or (ip and src net 10.77.0.0/24 and dst net 10.77.0.0/24 and \
     not host 10.77.0.254 and not udp port 51840 and not (port 22 or port 6443 or portrange 2379-2380 or port 10250))";

/// Nodes with nothing on their disks but the CNI's own file, which has the gate in it, as a node's image brings it.
struct Cluster {
    agents: Vec<Agent>,
    /// Pods talk from the moment on in which they are there.
    talking: Vec<Flood>,
    pods: Vec<Pod>,
    runtimes: Vec<Runtime>,
    nodes: Vec<Node>,
    sniffer: Sniffer,
    lab: Lab,
}

impl Cluster {
    fn of(count: usize, in_clear: &str) -> Self {
        let lab = Lab::new();
        let sniffer = Sniffer::start_with(lab.hub(), in_clear);
        let nodes: Vec<Node> = (0..count).map(|_| lab.node()).collect();
        let runtimes = nodes.iter().map(Runtime::of).collect();
        nodes.iter().for_each(|node| install(node, true));
        Self { agents: vec![], talking: vec![], pods: vec![], runtimes, nodes, sniffer, lab }
    }

    /// Fails the test unless no node lets a Pod in, for want of a guard.
    #[track_caller]
    fn refused(&self, node: usize) {
        let refused = self.runtimes[node].add("pod").expect_err("the Pod is added");
        let said = refused.said["msg"].as_str().unwrap_or_default();
        assert!(refused.by_gate() && said.contains("there is no nftables table inet warren"), "{refused:?}");
    }

    /// Starts the agents, all of which take their prefixes from the API server.
    fn start(&mut self, api: &ApiServer, settings: impl Fn(&Node) -> Settings) {
        for (node, runtime) in self.nodes.iter().zip(&self.runtimes) {
            let (mut settings, kubeconfig) = (settings(node), node.folder().join("kubeconfig"));
            write_secret(&kubeconfig, &api.kubeconfig());
            settings.text("node", "cidrs", "kubernetes").text("kubernetes", "kubeconfig", kubeconfig.display());
            runtime.ask(&mut settings, "gate");
            self.agents.push(node.start(&settings));
        }
    }

    /// Adds a Pod to a node as a kubelet does; from then on it talks to the next node's.
    #[track_caller]
    fn add(&mut self, node: usize) {
        let pod = self.runtimes[node].until_added("pod");
        let next = &self.nodes[(node + 1) % self.nodes.len()];
        self.talking.push(Flood::start(pod.namespace(), warren_tests::node::nth(next.cidrs()[0], 2)));
        self.pods.push(pod);
    }

    /// Waits until each agent hears its registry and knows all others.
    #[track_caller]
    fn until_known(&self, registry: &str) {
        for agent in &self.agents {
            agent.within(45, "has its prefix, its registry and all peers", |status| {
                let heard = status.registry_ok(registry) == Some(true);
                status.ready() && heard && status.peers().len() == self.agents.len() - 1 && !status.cidrs().is_empty()
            });
        }
    }

    #[track_caller]
    fn until_connected(&self) {
        for (from, to) in between(&self.pods) {
            eventually(20, "Pods reach each other", || ping(from, to).then_some(()));
        }
        self.sniffer.assert_encrypted();
    }

    /// Fails the test if a node calls itself ready, if a Pod reaches another, or if anything was in clear.
    #[track_caller]
    fn cut(&self) {
        for node in &self.nodes {
            let told = http::get(node.namespace(), PROBES, "/readyz").map(|reply| reply.status);
            assert_eq!(told, Some(503), "{} without any mesh", node.name);
        }
        for pair in self.pods.windows(2) {
            let (from, to) = (pair[0].namespace(), pair[1].address());
            assert!(!ping(from, to), "{} reaches {to} without a tunnel", from.name());
        }
        self.sniffer.assert_nothing_in_clear();
    }

    /// The API server learns of the Nodes, as kubelets and the controller manager write them.
    fn register(&self, api: &ApiServer) {
        for node in &self.nodes {
            api.node(&node.name, &[&node.cidrs()[0].to_string()], &node.addresses());
        }
    }

    /// Nothing was in clear. Without Warren and its gate the same Pods are seen, and so is one of a node that boots.
    #[track_caller]
    fn finish(mut self) {
        self.sniffer.assert_encrypted();
        self.talking.clear();
        self.nodes.iter().for_each(|node| install(node, false));
        assert_seen_without_warren(&self.sniffer, &mut self.agents, between(&self.pods));
        self.pods.clear();
        self.nodes[1].reboot(&self.lab);
        self.sniffer.reset();
        self.nodes[1].connect(&self.lab);
        self.add(1);
        eventually(10, "the sniffer sees the leak", || (self.sniffer.clear() > 100).then_some(()));
    }
}

/// The CNI's file.
fn install(node: &Node, gated: bool) {
    let ptp = json!({ "type": "ptp", "ipam": host_local(node, &default_routes(node)) });
    let gate = gated.then(|| json!({ "type": "warren-gate" }));
    Conflist::new("lab", [ptp, portmap()].into_iter().chain(gate)).write(node);
}

#[test]
fn a_cluster_that_starts_cold_with_its_registry_last_comes_up_and_says_nothing_in_clear() {
    let mut cluster = Cluster::of(3, PODS_AND_NODES);
    let mut etcd = Etcd::absent_on(&cluster.nodes[0]);
    let mut api = ApiServer::absent_on(&cluster.nodes[0]);
    (0..3).for_each(|node| cluster.refused(node));
    cluster.start(&api, |node| {
        let mut settings = etcd.settings(node);
        settings.text("overlay", "mode", "nodes").set("kubernetes", "enabled", false);
        settings
    });
    // The guard stands before anybody has heard anything: Pods come, and talk into nothing.
    (0..3).for_each(|node| cluster.add(node));
    for agent in &cluster.agents {
        agent.until("misses everything, and says so", |status| {
            let said = status.problems().iter().any(|said| said.starts_with("node.cidrs: nobody listens there"));
            said && status.registry_ok("etcd") == Some(false) && status.cidrs().is_empty()
        });
    }
    cluster.cut();
    api.up(cluster.nodes[0].namespace());
    cluster.register(&api);
    etcd.up();
    // What the administrator, or the chart's first Job, does once there is a store.
    etcd.init(&cluster.lab, &[]);
    etcd.grant(&cluster.nodes[0]);
    cluster.until_known("etcd");
    cluster.until_connected();
    for node in [1, 2] {
        let (from, to) = (cluster.nodes[0].namespace(), cluster.nodes[node].address());
        assert!(ping(from, to), "{} does not reach {to}", from.name());
    }
    cluster.finish();
}

#[test]
fn agents_start_before_the_api_server_that_is_their_registry_and_again_while_it_is_away() {
    let mut cluster = Cluster::of(2, PODS);
    let mut api = ApiServer::absent_on(&cluster.nodes[0]);
    (0..2).for_each(|node| cluster.refused(node));
    cluster.start(&api, Node::settings);
    (0..2).for_each(|node| cluster.add(node));
    for agent in &cluster.agents {
        agent.until("misses its registry, and says so", |status| status.registry_ok("kubernetes") == Some(false));
    }
    cluster.cut();
    api.up(cluster.nodes[0].namespace());
    cluster.register(&api);
    api.cluster(&["10.42.0.0/16"], "strict");
    // No node is believed that its address is the API server's until somebody says so who may.
    let spec = json!({ "cidr": "10.77.0.1/32", "node": cluster.nodes[0].name });
    api.put(BLOCKS, json!({ "metadata": { "name": "10-77-0-1-32" }, "spec": spec }));
    cluster.until_known("kubernetes");
    cluster.until_connected();

    // A node boots with its last mesh, while the API server is away, and the agent comes long after the CNI.
    api.down();
    cluster.agents[1].kill();
    cluster.talking.truncate(1);
    cluster.pods.truncate(1);
    cluster.nodes[1].reboot(&cluster.lab);
    cluster.nodes[1].connect(&cluster.lab);
    cluster.refused(1);
    cluster.sniffer.assert_nothing_in_clear();
    cluster.agents[1].up();
    cluster.add(1);
    cluster.until_connected();
    cluster.agents[1].until("goes by what it knew", |status| {
        status.registry_ok("kubernetes") == Some(false) && status.ready() && status.peers() == ["node1"]
    });
    api.up(cluster.nodes[0].namespace());
    cluster.until_known("kubernetes");
    cluster.finish();
}
