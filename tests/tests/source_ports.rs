//! Lanes that leave by source ports of their own, on networks that let them, that do not, and that no longer do.

use warren_tests::flows::Flows;
use warren_tests::namespace::Namespace;
use warren_tests::stream::transfer;
use warren_tests::{Agent, Lab, Node, Pod, Sniffer, eventually, ping, static_mesh_with};

const WORKERS: u64 = 3;
const BLOCKS: u64 = 50;
/// What a lane may cost when its way ends, in seconds, with what a loaded machine adds.
const LANE: u64 = 20;

struct Pair {
    nodes: [Node; 2],
    pods: [Pod; 2],
    agents: Vec<Agent>,
    sniffer: Sniffer,
    _lab: Lab,
}

/// Two agents with three workers each; `prepare` acts on the first node before they start.
fn pair(source_ports: &str, prepare: impl FnOnce(&Namespace)) -> Pair {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    prepare(nodes[0].namespace());
    let agents = static_mesh_with(&nodes, |_, settings| {
        settings.set("workers", "count", WORKERS).text("underlay", "source_ports", source_ports);
    });
    let pair = Pair { nodes, pods, agents, sniffer, _lab: lab };
    for (agent, other) in pair.agents.iter().zip(["node2", "node1"]) {
        agent.until("data goes on every lane", |status| {
            pair.reached();
            status.peer(other).is_some_and(|peer| peer["association"]["lanes"] == WORKERS)
        });
    }
    pair
}

impl Pair {
    fn reached(&self) -> bool {
        ping(self.pods[0].namespace(), self.pods[1].address())
    }

    /// Lanes of the first node that leave by ports of their own.
    fn own_ports(&self) -> u64 {
        let status = self.agents[0].now();
        status.peer("node2").and_then(|peer| peer["association"]["own_ports"].as_u64()).unwrap_or_default()
    }

    fn transfers(&self) {
        for _ in 0..4 {
            transfer(self.pods[0].namespace(), self.pods[1].namespace(), self.pods[1].address(), BLOCKS);
            transfer(self.pods[1].namespace(), self.pods[0].namespace(), self.pods[0].address(), BLOCKS);
        }
    }
}

/// Makes a chain that sees what leaves the node.
fn chain(node: &Namespace, rule: &str) {
    node.nft(&format!(
        "add table inet lanes; add chain inet lanes out {{ type filter hook postrouting priority 0; }}; \
         add rule inet lanes out udp dport 51840 {rule}"
    ));
}

/// Large datagrams that left by another port than the known one.
fn by_other_ports(node: &Namespace) -> u64 {
    let listed = node.run(&["nft", "list", "chain", "inet", "lanes", "out"]);
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|packets| packets.parse().ok()).unwrap_or_else(|| panic!("no counter in {listed}"))
}

const COUNT: &str = "udp sport != 51840 udp length > 600 counter";

#[test]
fn lanes_leave_by_ports_of_their_own_and_lose_nothing() {
    let pair = pair("auto", |node| chain(node, COUNT));
    assert_eq!(pair.own_ports(), WORKERS - 1);
    let node = pair.nodes[0].namespace();
    eventually(60, "bulk data leaves by other ports", || {
        pair.transfers();
        (by_other_ports(node) > 0).then_some(())
    });
    pair.sniffer.assert_encrypted();
}

#[test]
fn with_single_everything_leaves_by_the_one_port() {
    let pair = pair("single", |node| chain(node, "udp sport != 51840 counter"));
    pair.transfers();
    assert_eq!((pair.own_ports(), by_other_ports(pair.nodes[0].namespace())), (0, 0));
    pair.sniffer.assert_encrypted();
}

#[test]
fn a_firewall_that_wants_the_known_port_gets_it() {
    let pair = pair("auto", |node| chain(node, "udp sport != 51840 drop"));
    assert_eq!(pair.own_ports(), 0);
    pair.transfers();
    pair.sniffer.assert_encrypted();
}

#[test]
fn a_network_that_writes_other_ports_keeps_the_one_port() {
    let pair = pair("auto", |node| {
        node.nft(
            "add table ip nat1; add chain ip nat1 out { type nat hook postrouting priority 100; }; \
             add rule ip nat1 out udp dport 51840 udp sport != 51840 masquerade to :20000-20999",
        );
    });
    assert_eq!(pair.own_ports(), 0);
    pair.transfers();
    pair.sniffer.assert_encrypted();
}

#[test]
fn a_port_that_dies_under_a_lane_is_replaced_by_the_one_port() {
    let pair = pair("auto", |_| ());
    assert_eq!(pair.own_ports(), WORKERS - 1);
    let flows = Flows::start(pair.pods[0].namespace(), pair.pods[1].namespace(), pair.pods[1].address(), 32);
    chain(pair.nodes[0].namespace(), "udp sport != 51840 drop");
    pair.agents[0].within(LANE, "every lane returned to the one port", |status| {
        status.peer("node2").is_some_and(|peer| {
            let association = &peer["association"];
            association["own_ports"] == 0 && association["lanes"] == WORKERS
        })
    });
    flows.finish();
    pair.transfers();
    pair.sniffer.assert_encrypted();
}

#[test]
fn in_mode_nodes_our_datagrams_are_known_by_the_one_port() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    chain(nodes[0].namespace(), "udp sport != 51840 counter");
    let agents = static_mesh_with(&nodes, |_, settings| {
        settings.set("workers", "count", WORKERS).text("overlay", "mode", "nodes");
    });
    agents[0].until("data goes on every lane", |status| {
        ping(pods[0].namespace(), pods[1].address());
        status.peer("node2").is_some_and(|peer| peer["association"]["lanes"] == WORKERS)
    });
    transfer(pods[0].namespace(), pods[1].namespace(), pods[1].address(), BLOCKS);
    assert_eq!(by_other_ports(nodes[0].namespace()), 0);
}
