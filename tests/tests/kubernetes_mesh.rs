//! Agents that find each other by way of an API server of Kubernetes (the lab's own, no real one).
//!
//! ```text
//!        API server
//! pod ── node1 ══╗  │       ╔══ node2 ── pod
//!                ╠══ hub ═══╣
//!                   sniffer ╚══ host outside of the cluster ── pod
//! ```

use warren_tests::api_server::{BLOCKS, CLUSTERS, Mood, NODES, RECORDS, kubeconfig};
use warren_tests::certificates::Authority;
use warren_tests::secret::write_secret;
use warren_tests::{
    Agent, ApiServer, Family, Lab, Node, Plan, Pod, Settings, Sniffer, assert_seen_without_warren, between, eventually,
    ping,
};

struct Mesh {
    agents: Vec<Agent>,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    api: ApiServer,
    sniffer: Sniffer,
    _lab: Lab,
}

/// What the agent of a node is configured with, and its Node made.
fn join(api: &ApiServer, node: &Node) -> Settings {
    let cidrs: Vec<_> = node.cidrs().iter().map(ToString::to_string).collect();
    api.node(&node.name, &cidrs.iter().map(String::as_str).collect::<Vec<_>>(), &node.addresses());
    let mut settings = settings(api, node);
    settings.text("node", "cidrs", "kubernetes");
    settings
}

fn settings(api: &ApiServer, node: &Node) -> Settings {
    let kubeconfig = node.folder().join("kubeconfig");
    write_secret(&kubeconfig, &api.kubeconfig());
    let mut settings = node.settings();
    settings.text("kubernetes", "kubeconfig", kubeconfig.display());
    settings
}

impl Mesh {
    fn start(plan: Plan, count: usize) -> Self {
        let lab = Lab::with(plan);
        let api = ApiServer::start_in(&lab);
        let networks: Vec<_> = lab.networks().iter().map(ToString::to_string).collect();
        api.cluster(&networks.iter().map(String::as_str).collect::<Vec<_>>(), "strict");
        let sniffer = lab.sniff();
        let nodes: Vec<Node> = (0..count).map(|_| lab.node()).collect();
        let pods = nodes.iter().map(Node::pod).collect();
        let agents: Vec<_> = nodes.iter().map(|node| node.start(&join(&api, node))).collect();
        let mesh = Self { agents, pods, nodes, api, sniffer, _lab: lab };
        mesh.until_known();
        mesh.until_connected();
        mesh
    }

    /// Until each agent is ready and knows all others: before that nobody guards its node.
    fn until_known(&self) {
        for agent in &self.agents {
            agent.until("ready with all peers", |status| {
                status.ready() && status.peers().len() == self.agents.len() - 1
            });
        }
    }

    fn until_connected(&self) {
        for from in &self.pods {
            for to in self.pods.iter().flat_map(Pod::addresses).filter(|to| !from.addresses().contains(to)) {
                eventually(20, "one Pod reaches the other", || ping(from.namespace(), *to).then_some(()));
            }
        }
        self.sniffer.assert_encrypted();
    }

    fn finish(mut self) {
        self.sniffer.assert_encrypted();
        assert_seen_without_warren(&self.sniffer, &mut self.agents, between(&self.pods));
    }
}

#[test]
fn nodes_find_each_other_in_kubernetes_and_survive_its_absence() {
    let mesh = Mesh::start(Plan::default(), 2);
    for mood in [Mood::Silent, Mood::Lying, Mood::Status(500)] {
        mesh.api.be(mood);
        mesh.until_connected();
    }
    mesh.agents[0].until("the agent says so", |status| status.registry_ok("kubernetes") == Some(false));
    mesh.until_connected();
    mesh.api.be(Mood::Well);
    // Pauses between attempts have grown meanwhile: up to 45 seconds, behind an answer that is waited for.
    mesh.agents[0].within(75, "all is well again", |status| status.registry_ok("kubernetes") == Some(true));
    mesh.finish();
}

#[test]
fn dual_stack_nodes_find_each_other_in_kubernetes() {
    let mesh = Mesh::start(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() }, 2);
    mesh.finish();
}

#[test]
fn an_agent_that_starts_again_while_kubernetes_is_away_finds_its_mesh() {
    let mut mesh = Mesh::start(Plan::default(), 2);
    mesh.api.be(Mood::Silent);
    mesh.agents[0].terminate();
    mesh.agents[0].up();
    mesh.until_connected();
    mesh.finish();
}

#[test]
fn a_host_outside_of_the_cluster_becomes_a_node_of_the_same_mesh() {
    let mut mesh = Mesh::start(Plan::default(), 2);
    let host = mesh._lab.node();
    for cidr in host.cidrs() {
        let name = cidr.to_string().replace(['.', ':', '/'], "-");
        let spec = serde_json::json!({"cidr": cidr, "node": host.name});
        mesh.api.put(BLOCKS, serde_json::json!({"metadata": {"name": name}, "spec": spec}));
    }
    mesh.pods.push(host.pod());
    mesh.agents.push(host.start(&settings(&mesh.api, &host)));
    mesh.nodes.push(host);
    mesh.until_known();
    mesh.until_connected();
    mesh.finish();
}

#[test]
fn an_api_server_inside_of_the_cluster_network_is_refused() {
    let lab = Lab::with(Plan::default());
    let node = lab.node();
    let mut settings = node.settings();
    let (path, authority) = (node.folder().join("kubeconfig"), Authority::new(node.folder()).ca_file());
    write_secret(&path, &kubeconfig("https://10.42.9.9:6443", &authority));
    settings.text("kubernetes", "kubeconfig", path.display());
    let mut agent = node.start(&settings);
    assert!(!agent.ended(15).success());
    assert!(agent.log().contains("the API server 10.42.9.9 is inside the cluster network"), "{}", agent.log());
}

#[test]
fn what_its_node_gives_is_followed_twice_and_no_prefix_with_a_pod_in_it_is_given_back() {
    let mesh = Mesh::start(Plan::default(), 2);
    let (one, two) = (&mesh.agents[0], &mesh.agents[1]);
    let (right, first, second) = (mesh.nodes[1].cidrs()[0].to_string(), "10.42.98.0/24", "10.42.99.0/24");
    let process = two.pid();
    let give = |cidrs: &[&str]| {
        let spec = serde_json::json!({"podCIDRs": cidrs});
        mesh.api.put(NODES, serde_json::json!({"metadata": {"name": mesh.nodes[1].name}, "spec": spec}));
    };
    let published = |cidrs: &[&str]| {
        one.within(45, "sees these prefixes of the other", |status| {
            status.peer("node2").is_some_and(|peer| peer["cidrs"] == serde_json::json!(cidrs))
        });
    };
    let block = |cidr: &str| mesh.api.get(BLOCKS, &cidr.replace(['.', '/'], "-"));
    give(&[&right, first]);
    published(&[&right, first]);
    give(&[&right, second]);
    published(&[&right, second]);
    eventually(15, "the first is given back", || block(first).is_none().then_some(()));

    give(&[second]);
    two.within(30, "says that a prefix with a Pod in it is taken, and holds it", |status| {
        let said = status.problems().iter().any(|problem| problem.contains("addresses in it are in use here"));
        said && status.ready() && status.cidrs() == [right.as_str(), second]
    });
    mesh.until_connected();
    assert!(block(&right).is_some(), "another node may have it");
    assert_eq!(two.pid(), process, "it was restarted");
    mesh.finish();
}

#[test]
fn a_node_that_is_removed_from_kubernetes_is_removed_from_the_mesh() {
    let mut mesh = Mesh::start(Plan::default(), 3);
    mesh.agents[2].terminate();
    let gone = mesh.nodes[2].name.clone();
    mesh.api.remove(NODES, &gone);
    assert!(mesh.api.get(RECORDS, &gone).is_none() && mesh.api.get(CLUSTERS, "default").is_some());
    mesh.agents[0]
        .until("the node is gone", |status| status.peer(&gone).is_none_or(|peer| peer["state"] == "vanished"));
    assert!(ping(mesh.pods[0].namespace(), mesh.pods[1].address()));
    mesh.finish();
}
