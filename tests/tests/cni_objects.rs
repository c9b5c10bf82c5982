//! Prefixes that Cilium and Calico give to nodes by objects of the API server, which is the registry too; the CNI's own devices,
//! routes and chains are on every node, and its Pods talk.
//!
//! ```text
//!     API server: CiliumNodes or BlockAffinities
//!                   │
//! pod ── node1 ═══ hub ═══ node2 ── pod
//!                 sniffer
//! ```

use ipnet::IpNet;
use serde_json::json;
use warren_tests::api_server::{AFFINITIES, BLOCKS, CILIUM_NODES, Mood};
use warren_tests::cni::Cni;
use warren_tests::secret::write_secret;
use warren_tests::{
    Agent, ApiServer, Lab, Node, Pod, Settings, Sniffer, assert_seen_without_warren, between, eventually, ping,
};

/// Out of the cluster's network, and nobody's.
const SPARE: &str = "10.42.99.0/26";

/// Two nodes with a CNI that has told none of them what its prefixes are.
struct World {
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    cni: Cni,
    api: ApiServer,
    sniffer: Sniffer,
    _lab: Lab,
}

impl World {
    fn start(cni: Cni, source: &str) -> Self {
        let lab = Lab::new();
        let api = ApiServer::start_in(&lab);
        api.cluster(&["10.42.0.0/16"], "strict");
        let sniffer = lab.sniff();
        let nodes: [Node; 2] = lab.nodes();
        cni.install(&nodes);
        let pods = nodes.each_ref().map(|node| cni.attach(node, &[]));
        let agents = nodes.iter().map(|node| node.start(&settings(&api, node, source))).collect();
        Self { agents, pods, nodes, cni, api, sniffer, _lab: lab }
    }

    fn own(&self, node: usize) -> Vec<IpNet> {
        self.cni.prefixes(&self.nodes[node])
    }

    /// Both agents know these as a node's prefixes.
    #[track_caller]
    fn until_known(&self, node: usize, cidrs: &[IpNet]) {
        let (name, texts) = (&self.nodes[node].name, cidrs.iter().map(ToString::to_string).collect::<Vec<_>>());
        self.agents[node].within(30, "has its prefixes", |status| status.ready() && status.cidrs() == texts);
        self.agents[1 - node].within(30, "sees the other's prefixes", |status| {
            status.peer(name).is_some_and(|peer| peer["cidrs"] == json!(texts))
        });
    }

    #[track_caller]
    fn until_reached(&self) {
        for (from, to) in between(&self.pods) {
            eventually(15, "Pods reach each other", || ping(from, to).then_some(()));
        }
        self.sniffer.assert_encrypted();
    }

    /// One node's Pod is in no prefix of its node until the CNI says that it is.
    fn told(mut self, tell: impl Fn(&ApiServer, &Node, &[IpNet])) {
        let (spare, second): (IpNet, Vec<IpNet>) = (SPARE.parse().expect("a prefix"), self.own(1));
        let processes: Vec<_> = self.agents.iter().map(Agent::pid).collect();
        tell(&self.api, &self.nodes[0], &self.own(0));
        tell(&self.api, &self.nodes[1], &[spare]);
        self.until_known(0, &self.own(0));
        self.until_known(1, &[spare]);
        assert!(
            !ping(self.pods[0].namespace(), self.pods[1].address()),
            "a Pod outside of its node's prefix is carried"
        );

        let both = [&second[..], &[spare]].concat();
        tell(&self.api, &self.nodes[1], &both);
        self.until_known(1, &both);
        self.until_reached();

        tell(&self.api, &self.nodes[1], &second);
        self.until_known(1, &second);
        eventually(15, "what the CNI took back is given back", || {
            let blocks = self.api.all(BLOCKS);
            blocks.iter().all(|block| block["spec"]["cidr"] != SPARE).then_some(())
        });
        self.api.be(Mood::Status(500));
        self.until_reached();
        assert!(self.agents.iter().map(Agent::pid).eq(processes), "an agent was restarted");
        assert_seen_without_warren(&self.sniffer, &mut self.agents, between(&self.pods));
    }
}

fn settings(api: &ApiServer, node: &Node, source: &str) -> Settings {
    let kubeconfig = node.folder().join("kubeconfig");
    write_secret(&kubeconfig, &api.kubeconfig());
    // What Kubernetes gives to the Node is not what its Pods have.
    api.node(&node.name, &[&format!("10.43.{}.0/24", node.number)], &node.addresses());
    let mut settings = node.settings();
    settings.text("node", "cidrs", source).text("kubernetes", "kubeconfig", kubeconfig.display());
    settings
}

/// As Cilium's agent and operator write it in the mode `cluster-pool`.
fn cilium_node(api: &ApiServer, node: &Node, cidrs: &[IpNet]) {
    let ipam = if cidrs.is_empty() { json!({}) } else { json!({"podCIDRs": cidrs, "pools": {}}) };
    let spec = json!({"alibaba-cloud": {}, "azure": {}, "encryption": {}, "eni": {}, "ipam": ipam});
    api.put(CILIUM_NODES, json!({"metadata": {"name": node.name}, "spec": spec}));
}

/// One object for each block; what is no longer among them is released as Calico does it.
fn affinities(api: &ApiServer, node: &Node, cidrs: &[IpNet]) {
    let put = |cidr: &IpNet, state: &str| {
        let name = format!("{}-{}", node.name, cidr.to_string().replace(['.', '/'], "-"));
        let spec = json!({"cidr": cidr, "deleted": "false", "node": node.name, "state": state, "type": "host"});
        api.put(AFFINITIES, json!({"metadata": {"name": name}, "spec": spec}));
        name
    };
    let spare = SPARE.parse().expect("a prefix");
    if !cidrs.contains(&spare) && node.number == 2 {
        api.remove(AFFINITIES, &put(&spare, "pendingDeletion"));
    }
    cidrs.iter().for_each(|cidr| drop(put(cidr, "confirmed")));
}

#[test]
fn beneath_cilium_pods_talk_encrypted_as_soon_as_its_operator_gave_their_node_the_prefix() {
    let world = World::start(Cni::CiliumNative, "cilium");
    let says = |words: &str| {
        for agent in &world.agents {
            agent.until(words, |status| {
                status.cidrs().is_empty() && status.problems().iter().any(|problem| problem.contains(words))
            });
        }
    };
    says("there is no CiliumNode of this node's name yet");
    world.nodes.iter().for_each(|node| cilium_node(&world.api, node, &[]));
    says("Cilium's operator gave it none yet");
    world.told(cilium_node);
}

#[test]
fn beneath_calico_pods_talk_encrypted_as_soon_as_their_nodes_have_the_blocks() {
    World::start(Cni::CalicoBgp, "calico").told(affinities);
}
