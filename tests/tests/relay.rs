//! A hostile network between two agents.
//!
//! ```text
//! pod ── node1 ═══ hub: relay ═══ node2 ── pod
//!                  sniffer
//! ```

use std::net::SocketAddr;

use warren_tests::node::PORT;
use warren_tests::ping::answered;
use warren_tests::relay::{Mischief, Relay};
use warren_tests::stream::transfer;
use warren_tests::{Agent, Lab, Node, Pod, Sniffer, assert_seen_without_warren, between, ping, stock};

struct Pair {
    agents: [Agent; 2],
    relay: Relay,
    pods: [Pod; 2],
    _nodes: [Node; 2],
    sniffer: Sniffer,
    _lab: Lab,
}

fn pair(mischief: Mischief) -> Pair {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let at = |node: &Node| SocketAddr::new(node.address(), PORT);
    let relay = Relay::start(&lab, at(&nodes[0]), at(&nodes[1]), mischief);
    let start = |own: &Node, other: &Node, endpoint: SocketAddr| {
        let mut peer = stock::section(other, None);
        peer.text("", "endpoint", endpoint);
        own.start(own.settings().add_peer(peer))
    };
    let agents = [start(&nodes[0], &nodes[1], relay.second), start(&nodes[1], &nodes[0], relay.first)];
    agents.iter().for_each(|agent| drop(agent.ready().now()));
    Pair { agents, relay, pods, _nodes: nodes, sniffer, _lab: lab }
}

impl Pair {
    /// How many of fifty echo requests are answered.
    fn answered(&self) -> u32 {
        assert!(answered(self.pods[0].namespace(), self.pods[1].address(), 5, &[]) > 0, "no session");
        answered(self.pods[0].namespace(), self.pods[1].address(), 50, &[])
    }

    /// Fails the test if anything was in clear, or unless the same Pods are seen in clear without Warren.
    fn finish(mut self) {
        self.sniffer.assert_nothing_in_clear();
        assert_seen_without_warren(&self.sniffer, &mut self.agents, between(&self.pods));
    }

    fn drops(&self, reason: &str) -> u64 {
        self.agents.iter().map(|agent| agent.now().drops(reason)).sum()
    }
}

#[test]
fn an_honest_relay_changes_nothing() {
    let pair = pair(|_, datagram, _| vec![datagram.to_vec()]);
    assert_eq!(pair.answered(), 50);
    transfer(pair.pods[0].namespace(), pair.pods[1].namespace(), pair.pods[1].address(), 100);
    assert!(pair.relay.passed() > 100);
    assert_eq!(pair.drops("replay") + pair.drops("forged"), 0);
    pair.finish();
}

#[test]
fn what_is_repeated_is_taken_once() {
    let pair = pair(|_, datagram, _| vec![datagram.to_vec(), datagram.to_vec()]);
    assert_eq!(pair.answered(), 50);
    assert!(pair.drops("replay") >= 50, "replays dropped: {}", pair.drops("replay"));
}

#[test]
fn what_was_recorded_and_comes_again_later_is_dropped() {
    let pair = pair(|number, datagram, past| {
        past.recorded.push(datagram.to_vec());
        if number % 20 == 0 { past.recorded.clone() } else { vec![datagram.to_vec()] }
    });
    assert_eq!(pair.answered(), 50);
    assert!(pair.drops("replay") >= 50, "replays dropped: {}", pair.drops("replay"));
}

#[test]
fn what_is_forged_is_dropped_and_the_session_lives() {
    let pair = pair(|_, datagram, _| {
        let mut forged = datagram.to_vec();
        if let Some(byte) = forged.last_mut() {
            *byte ^= 1;
        }
        vec![forged, datagram.to_vec()]
    });
    assert_eq!(pair.answered(), 50);
    assert!(pair.drops("forged") >= 50, "forgeries dropped: {}", pair.drops("forged"));
}

#[test]
fn datagrams_of_noise_of_every_length_are_dropped() {
    let pair = pair(|number, datagram, _| {
        let noise = (0..usize::try_from(number * 13 % 300).unwrap_or(0)).map(|at| (at * 7) as u8).collect();
        let mut header = vec![(number % 6) as u8, 0, 0, 0];
        header.resize(usize::try_from(number % 160).unwrap_or(0), 0x55);
        vec![noise, header, datagram[..datagram.len() / 2].to_vec(), datagram.to_vec()]
    });
    assert_eq!(pair.answered(), 50);
}

#[test]
fn what_arrives_in_another_order_arrives() {
    let pair = pair(|number, datagram, past| {
        past.held.push(datagram.to_vec());
        // Handshakes pass at once; data waits until four are there or no more come, and leaves backwards.
        let data = datagram.first() == Some(&4);
        if data && number % 4 != 0 {
            return Vec::new();
        }
        past.let_go()
    });
    transfer(pair.pods[0].namespace(), pair.pods[1].namespace(), pair.pods[1].address(), 20);
    assert_eq!(pair.drops("replay"), 0, "the window is too small for a little disorder");
}

#[test]
fn a_transfer_survives_the_loss_of_every_tenth_datagram() {
    let pair = pair(|number, datagram, _| if number % 10 == 0 { Vec::new() } else { vec![datagram.to_vec()] });
    transfer(pair.pods[0].namespace(), pair.pods[1].namespace(), pair.pods[1].address(), 40);
    assert!(ping(pair.pods[1].namespace(), pair.pods[0].address()) || pair.relay.passed() > 400);
    pair.finish();
}
