//! Flows keep their order, however many workers carry them: told by the numbers in datagrams, and by what the Pods'
//! kernels count of TCP. No test here depends on how fast the machine is.
//!
//! The lab's links are made to keep the order themselves: a plain veth does not, with or without an agent.

use std::net::SocketAddr;

use serde_json::Value;
use warren_tests::flows::{Flows, Order};
use warren_tests::long::long;
use warren_tests::namespace::Namespace;
use warren_tests::node::PORT;
use warren_tests::relay::Relay;
use warren_tests::tcp::{Counters, streams};
use warren_tests::{Agent, Lab, Node, Pod, ping, static_mesh_with, stock};

/// Flows at once: more than there are workers, so that every worker has some.
const FLOWS: usize = 16;
/// Datagrams of a run, all flows together.
const DATAGRAMS: u64 = 20_000;
/// What a paced stream may have on the way: with all streams less than any socket's buffer.
const WINDOW: usize = 64 << 10;

struct Pair {
    pods: [Pod; 2],
    agents: Vec<Agent>,
    _nodes: [Node; 2],
    _lab: Lab,
}

fn pair(workers: [usize; 2]) -> Pair {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    lab.hub().steer();
    nodes.iter().map(Node::namespace).chain(pods.iter().map(Pod::namespace)).for_each(Namespace::steer);
    let agents = static_mesh_with(&nodes, |node, settings| {
        settings.set("workers", "count", workers[usize::from(node.number) - 1]);
    });
    Pair { pods, agents, _nodes: nodes, _lab: lab }
}

impl Pair {
    fn until_associated(&self, workers: [usize; 2]) {
        let others = ["node2", "node1"];
        for ((agent, other), lanes) in self.agents.iter().zip(others).zip(workers) {
            agent.until("all lanes are there", |status| {
                ping(self.pods[0].namespace(), self.pods[1].address());
                status.peer(other).is_some_and(|peer| peer["association"]["lanes"] == lanes)
            });
        }
    }

    /// Runs `work`; what TCP counted meanwhile in the Pods.
    fn counted(&self, work: impl FnOnce(&Pod, &Pod)) -> [Counters; 2] {
        let [one, two] = &self.pods;
        let before = [one, two].map(|pod| Counters::of(pod.namespace()));
        assert!(before.iter().all(|counters| counters.signs().is_empty()), "these Pods have spoken before");
        work(one, two);
        [one, two].map(|pod| Counters::of(pod.namespace()))
    }

    /// What the agents dropped, by reason. That the kernel greets its IPv6 neighbours by every device is no loss.
    fn drops(&self) -> Vec<Value> {
        let drops = |agent: &Agent| {
            let mut drops = agent.now().value()["drops"].clone();
            drops.as_object_mut().map(|all| all.remove("reserved_address"));
            drops
        };
        self.agents.iter().map(drops).collect()
    }
}

/// Numbers of workers: equal ones, and more at either end. (With equal ones a flow begins on the same queue at both ends,
/// but only because both devices are one kernel's: it is the unequal ones that show whether flows settle.)
fn numbers() -> Vec<[usize; 2]> {
    let some = [[1, 1], [2, 2], [4, 4], [8, 8], [2, 4], [4, 3]];
    let others = [[4, 2], [3, 4], [1, 8], [8, 2]];
    some.into_iter().chain(others.into_iter().filter(|_| long())).collect()
}

#[test]
fn numbered_datagrams_and_their_echoes_arrive_each_once_and_in_turn() {
    for workers in numbers() {
        let pair = pair(workers);
        pair.until_associated(workers);
        let [one, two] = &pair.pods;
        let before = pair.drops();
        let flows = Flows::start(one.namespace(), two.namespace(), two.address(), FLOWS);
        flows.pass(DATAGRAMS);
        let orders = flows.finish();
        assert!(orders.iter().all(|order| order.is_kept()), "{workers:?} workers: there and back {orders:?}");
        assert_eq!(pair.drops(), before, "{workers:?} workers");
    }
}

#[test]
fn tcp_in_bulk_sees_no_segment_overtake_another() {
    for workers in numbers() {
        let pair = pair(workers);
        pair.until_associated(workers);
        let before = pair.drops();
        // First so that nothing can be lost: then each sign of disorder is one.
        let counted = pair.counted(|one, two| {
            for (from, to) in [(one, two), (two, one)] {
                streams(from.namespace(), to.namespace(), to.address(), FLOWS, 4 << 20, Some(WINDOW));
            }
        });
        assert_eq!(pair.drops(), before, "{workers:?} workers");
        for counters in &counted {
            assert_eq!(counters.signs(), [], "{workers:?} workers, paced");
        }
        // Then as fast as it goes. What overload loses is sent again; that is told apart from overtaking by the kernel.
        let [one, two] = &pair.pods;
        streams(one.namespace(), two.namespace(), two.address(), FLOWS, 8 << 20, None);
        for counters in [one, two].map(|pod| Counters::of(pod.namespace())) {
            let lost = counters.get("RetransSegs");
            assert_eq!(counters.reordering(), [], "{workers:?} workers, at full speed, {lost} sent again");
        }
    }
}

#[test]
fn a_network_that_reorders_is_told_by_the_same_means() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let at = |node: &Node| SocketAddr::new(node.address(), PORT);
    let relay = Relay::start(&lab, at(&nodes[0]), at(&nodes[1]), |number, datagram, past| {
        past.held.push(datagram.to_vec());
        let waits = datagram.first() == Some(&4) && datagram.len() > 500 && number % 3 != 0;
        if waits { Vec::new() } else { past.let_go() }
    });
    let start = |own: &Node, other: &Node, endpoint: SocketAddr| {
        let mut peer = stock::section(other, None);
        peer.text("", "endpoint", endpoint);
        own.start(own.settings().add_peer(peer))
    };
    let agents = [start(&nodes[0], &nodes[1], relay.second), start(&nodes[1], &nodes[0], relay.first)];
    agents.iter().for_each(|agent| drop(agent.ready().now()));
    assert!(ping(pods[0].namespace(), pods[1].address()));
    let flows = Flows::start(pods[0].namespace(), pods[1].namespace(), pods[1].address(), 2);
    flows.pass(500);
    let [there, _] = flows.finish();
    assert!(there.late > 50, "{there:?}");
    streams(pods[0].namespace(), pods[1].namespace(), pods[1].address(), 2, 2 << 20, Some(WINDOW));
    let [sender, receiver] = pods.each_ref().map(|pod| Counters::of(pod.namespace()));
    assert!(receiver.get("TCPOFOQueue") > 10, "{:?}", receiver.signs());
    assert!(!sender.reordering().is_empty(), "{:?}", sender.signs());
}

#[test]
#[ignore = "a generation lives for two minutes"]
fn flows_keep_their_order_while_their_associations_are_renewed_by_time() {
    let workers = [2, 4];
    let pair = pair(workers);
    pair.until_associated(workers);
    let before = pair.drops();
    let [one, two] = &pair.pods;
    let flows = Flows::start(one.namespace(), two.namespace(), two.address(), FLOWS);
    let age = |agent: &Agent, peer: &str| agent.now().peer(peer).and_then(|peer| peer["association"]["age"].as_u64());
    for (agent, peer) in pair.agents.iter().zip(["node2", "node1"]) {
        agent.within(60, "they are old", |_| age(agent, peer).is_some_and(|age| age > 30));
    }
    for (agent, peer) in pair.agents.iter().zip(["node2", "node1"]) {
        agent.within(150, "they are renewed", |_| age(agent, peer).is_some_and(|age| age < 20));
    }
    flows.pass(DATAGRAMS);
    let orders: [Order; 2] = flows.finish();
    assert!(orders.iter().all(|order| order.is_kept()), "there and back {orders:?}");
    assert_eq!(pair.drops(), before, "{workers:?} workers");
}
