//! Trains that hold datagrams for several workers. Network cards make such trains when several workers of a peer send at
//! once; a lab's devices do not, so they are made by hand: of what a peer really sealed, and of noise.
//!
//! ```text
//! pod ── node1 ═══ hub: collects what node1 sends on its lanes, sends it on as mixed trains ═══ node2 ── pod
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use warren_tests::command::run;
use warren_tests::flows::Flows;
use warren_tests::node::PORT;
use warren_tests::relay::{Relay, Side};
use warren_tests::wire::{Kind, forged, kind, noise, worker};
use warren_tests::{Agent, Lab, Node, Pod, eventually, ping, stock};

/// Of both nodes.
const WORKERS: usize = 4;
/// Datagrams in a train, so that it is no larger than a UDP datagram may be.
const TRAIN: usize = 32;
/// Inner packets from this length on are the flows': what they send is all of one length.
const LONG: usize = 1000;

type Held = Arc<Mutex<VecDeque<Vec<u8>>>>;

struct Pair {
    relay: Relay,
    /// What node1 sent on associations and was not sent on yet.
    held: Held,
    pods: [Pod; 2],
    agents: [Agent; 2],
    _nodes: [Node; 2],
    _lab: Lab,
}

fn pair() -> Pair {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let at = |node: &Node| SocketAddr::new(node.address(), PORT);
    let held = Held::default();
    let relay = Relay::start_with(&lab, at(&nodes[0]), at(&nodes[1]), |side| {
        let held = Arc::clone(&held);
        move |_, datagram, _| {
            let flow = matches!(kind(datagram), Kind::Association(_)) && datagram.len() > LONG;
            if side == Side::First || !flow {
                return vec![datagram.to_vec()];
            }
            held.lock().expect("no thread panics with it").push_back(datagram.to_vec());
            Vec::new()
        }
    });
    let start = |own: &Node, other: &Node, endpoint: SocketAddr| {
        let mut peer = stock::section(other, None);
        peer.text("", "endpoint", endpoint).set("", "associations", true);
        let mut settings = own.settings();
        // A probe by another port is as long as what is held.
        settings.set("workers", "count", WORKERS).text("underlay", "source_ports", "single").add_peer(peer);
        own.start(&settings)
    };
    let agents = [start(&nodes[0], &nodes[1], relay.second), start(&nodes[1], &nodes[0], relay.first)];
    for (agent, other) in agents.iter().zip(["node2", "node1"]) {
        agent.ready().until("data goes on every lane", |status| {
            ping(pods[0].namespace(), pods[1].address());
            status.peer(other).is_some_and(|peer| peer["association"]["lanes"] == WORKERS)
        });
    }
    Pair { relay, held, pods, agents, _nodes: nodes, _lab: lab }
}

impl Pair {
    /// Sends on what waits, each lane in its order, but lane by lane in turn; how many datagrams were not of the worker
    /// whose socket their train came to.
    fn mix(&self) -> u64 {
        let waiting: Vec<_> = self.held.lock().expect("no thread panics with it").drain(..).collect();
        let mut lanes = BTreeMap::<usize, VecDeque<Vec<u8>>>::new();
        for datagram in waiting {
            let Kind::Association(index) = kind(&datagram) else { panic!("only these are held") };
            lanes.entry(worker(index, WORKERS)).or_default().push_back(datagram);
        }
        let mut mixed: Vec<(usize, Vec<u8>)> = Vec::new();
        while lanes.values().any(|lane| !lane.is_empty()) {
            mixed.extend(lanes.iter_mut().filter_map(|(worker, lane)| Some((*worker, lane.pop_front()?))));
        }
        let strays = mixed.chunks(TRAIN).map(|train| train.iter().filter(|(worker, _)| *worker != train[0].0).count());
        let strays = strays.sum::<usize>() as u64;
        let datagrams: Vec<_> = mixed.into_iter().map(|(_, datagram)| datagram).collect();
        datagrams.chunks(TRAIN).for_each(|train| self.relay.send_train(train));
        strays
    }
}

#[test]
fn each_datagram_of_a_mixed_train_reaches_its_worker_and_is_opened_once() {
    let pair = pair();
    let [one, two] = &pair.pods;
    let flows = Flows::start(one.namespace(), two.namespace(), two.address(), 16);
    let mut strays = 0;
    eventually(20, "many were in a train of another worker's", || {
        std::thread::sleep(Duration::from_millis(2));
        strays += pair.mix();
        (strays > 3000).then_some(())
    });
    std::thread::scope(|scope| {
        let finished = scope.spawn(|| flows.finish());
        while !finished.is_finished() {
            strays += pair.mix();
            std::thread::sleep(Duration::from_millis(2));
        }
        let [there, back] = finished.join().expect("the flows end");
        assert!(there.lost == 0 && there.repeated == 0, "{there:?}");
        assert!(back.lost == 0 && back.repeated == 0, "{back:?}");
    });
    let status = pair.agents[1].now();
    assert_eq!(status.value()["strays"], strays, "so many had to be handed over");
    for reason in ["queue_full", "replay", "forged", "unknown_tunnel", "malformed"] {
        assert_eq!(status.drops(reason), 0, "{reason}");
    }
}

#[test]
fn a_train_of_the_tunnel_and_an_association_from_an_unknown_address_stops_no_worker() {
    let pair = pair();
    let agent = &pair.agents[1];
    let [one, two] = &pair.pods;
    let flows = Flows::start(one.namespace(), two.namespace(), two.address(), 16);
    // What the tunnel's first peer sends comes to the first worker, and so does this lane.
    let first = |datagram: &Vec<u8>| matches!(kind(datagram), Kind::Association(index) if worker(index, WORKERS) == 0);
    let sealed = eventually(20, "a flow uses the first worker's association", || {
        let mut held = pair.held.lock().expect("no thread panics with it");
        let at = held.iter().position(first)?;
        held.remove(at)
    });
    // To look the address up, the worker asks the peer's session, which it holds for the datagram before.
    pair.relay.send_train_from_elsewhere(&[forged(sealed.len()), sealed]);
    eventually(20, "the flows go on", || {
        pair.mix();
        std::thread::sleep(Duration::from_millis(2));
        flows.passed(500).then_some(())
    });
    assert_eq!(agent.now().drops("forged") + agent.now().drops("no_session"), 1);
}

/// One thread of an agent, by its name.
fn thread(agent: &Agent, name: &str) -> String {
    let tasks = format!("/proc/{}/task", agent.pid());
    let threads = std::fs::read_dir(tasks).expect("the agent runs").filter_map(Result::ok);
    let found = threads
        .into_iter()
        .find(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
    found.expect("the worker has a name").file_name().into_string().expect("a number")
}

#[test]
fn what_a_worker_cannot_take_in_time_is_dropped_by_name_and_the_rest_goes_on() {
    let pair = pair();
    let agent = &pair.agents[1];
    // Two workers on one core, of which the second has its turn only when the first one rests.
    let (busy, late) = (thread(agent, "warren-worker-0"), thread(agent, "warren-worker-1"));
    for thread in [&busy, &late] {
        run(&["taskset", "-p", "-c", "0", thread]);
    }
    run(&["chrt", "--idle", "-p", "0", &late]);
    // A train for the first one's socket with noise for the second.
    let train: Vec<_> = (0..60).map(|number| noise(u8::from(number > 0), number)).collect();
    eventually(30, "the queue is full", || {
        (0..200).for_each(|_| pair.relay.send_train(&train));
        (agent.now().drops("queue_full") > 0).then_some(())
    });
    run(&["chrt", "--other", "-p", "0", &late]);
    let status = agent.now();
    assert!(status.drops("unknown_tunnel") > 0, "noise for nobody's association");
    let [one, two] = &pair.pods;
    eventually(10, "the Pods reach each other", || ping(one.namespace(), two.address()).then_some(()));
    let flows = Flows::start(one.namespace(), two.namespace(), two.address(), 16);
    eventually(20, "what is in mixed trains comes again", || {
        pair.mix();
        std::thread::sleep(Duration::from_millis(2));
        flows.passed(500).then_some(())
    });
}
