//! Networks that fail in the midst of an exchange, and peers that die there: what it costs is a lane for a while, and
//! nothing of the tunnel.
//!
//! ```text
//! pod ── node1 ═══ hub: a relay for each pair ═══ node2, node3 … ── a Pod each
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use warren_tests::long::long;
use warren_tests::node::PORT;
use warren_tests::relay::{Relay, Side};
use warren_tests::wire::{Kind, kind};
use warren_tests::{Agent, Flood, Lab, Node, Pod, Settings, eventually, holds_for, ping, stock};

/// How long a network is silent, in seconds: an exchange sends again after one and two.
const SILENT: u64 = 4;
/// What a cut may cost of a lane, in seconds.
const LANE: u64 = 15;
/// What a loaded machine may add.
const TICK: u64 = 5;
/// What it may cost of the tunnel after the network is back: one more try of a handshake.
const TUNNEL: u64 = 10;

/// Where a network stops to carry, until it is healed.
#[derive(Debug, Default)]
struct Cut {
    /// After so many messages in the tunnel to the second node, or else to the first.
    after: u64,
    to_first: bool,
    /// Nothing is carried, or else nothing that way.
    both: bool,
    /// Only associations are not carried.
    associations: bool,
    seen: AtomicU64,
    happened: AtomicBool,
    healed: AtomicBool,
}

impl Cut {
    fn carries(&self, side: Side, datagram: &[u8]) -> bool {
        let that_way = (side == Side::First) == self.to_first;
        let kind = kind(datagram);
        if that_way && kind == Kind::Tunnel && self.seen.fetch_add(1, Ordering::SeqCst) >= self.after {
            self.happened.store(true, Ordering::SeqCst);
        }
        let silent = self.happened.load(Ordering::SeqCst) && !self.healed.load(Ordering::SeqCst);
        let concerned = (that_way || self.both) && (!self.associations || matches!(kind, Kind::Association(_)));
        !(silent && concerned)
    }
}

/// A node in the middle of others, each behind a network of its own.
struct Star {
    cuts: Vec<Arc<Cut>>,
    agents: Vec<Agent>,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    _relays: Vec<Relay>,
    _lab: Lab,
}

fn described(other: &Node, endpoint: SocketAddr) -> Settings {
    let mut peer = stock::section(other, None);
    peer.text("", "endpoint", endpoint).set("", "associations", true);
    peer
}

fn star(cuts: Vec<Cut>) -> Star {
    let lab = Lab::new();
    let nodes: Vec<Node> = (0..=cuts.len()).map(|_| lab.node()).collect();
    let pods = nodes.iter().map(Node::pod).collect();
    let cuts: Vec<Arc<Cut>> = cuts.into_iter().map(Arc::new).collect();
    let at = |node: &Node| SocketAddr::new(node.address(), PORT);
    let relay = |(cut, node): (&Arc<Cut>, &Node)| {
        Relay::start_with(&lab, at(&nodes[0]), at(node), |side| {
            let cut = Arc::clone(cut);
            move |_, datagram, _| if cut.carries(side, datagram) { vec![datagram.to_vec()] } else { Vec::new() }
        })
    };
    let relays: Vec<Relay> = cuts.iter().zip(&nodes[1..]).map(relay).collect();
    let mut middle = nodes[0].settings();
    for (node, relay) in nodes[1..].iter().zip(&relays) {
        middle.add_peer(described(node, relay.second));
    }
    let outer =
        |(node, relay): (&Node, &Relay)| node.start(node.settings().add_peer(described(&nodes[0], relay.first)));
    let mut agents = vec![nodes[0].start(&middle)];
    agents.extend(nodes[1..].iter().zip(&relays).map(outer));
    agents.iter().for_each(|agent| drop(agent.ready().now()));
    Star { cuts, agents, pods, nodes, _relays: relays, _lab: lab }
}

impl Star {
    fn reached(&self, outer: usize) -> bool {
        ping(self.pods[0].namespace(), self.pods[outer].address())
    }

    fn associated(&self, outer: usize) {
        let cut = &self.cuts[outer - 1];
        let within = |agent: &Agent, peer: &str| {
            agent.within(LANE, &format!("data goes on associations again after {cut:?}"), |s| s.suite(peer).is_some());
        };
        within(&self.agents[outer], "node1");
        within(&self.agents[0], &self.nodes[outer].name);
    }
}

/// Cuts after each of the first messages in the tunnel, both ways, of one direction or of both.
fn everywhere() -> Vec<Cut> {
    let cut = |number: u64| Cut {
        after: 1 + number / 2,
        to_first: number % 2 == 1,
        both: number.is_multiple_of(3),
        ..Cut::default()
    };
    (0..if long() { 16 } else { 8 }).map(cut).collect()
}

#[test]
fn an_exchange_that_is_cut_off_anywhere_costs_a_lane_for_a_while_and_no_tunnel() {
    let mut star = star(everywhere());
    let outer = 1..star.nodes.len();
    let flood = |outer: usize| Flood::start(star.pods[0].namespace(), star.pods[outer].address());
    let floods: Vec<Flood> = outer.clone().map(flood).collect();
    eventually(20, "every network was cut", || {
        star.cuts.iter().all(|cut| cut.happened.load(Ordering::SeqCst)).then_some(())
    });
    // Of some, the peer dies as well.
    for killed in outer.clone().filter(|outer| outer % 3 == 0) {
        star.agents[killed].kill();
        star.agents[killed].up();
    }
    holds_for(SILENT, "the agent in the middle lives", || star.agents[0].status().is_some());
    star.cuts.iter().for_each(|cut| cut.healed.store(true, Ordering::SeqCst));
    for outer in outer.clone() {
        let what = format!("the Pods reach each other after {:?}", star.cuts[outer - 1]);
        eventually(TUNNEL, &what, || star.reached(outer).then_some(()));
    }
    outer.clone().for_each(|outer| star.associated(outer));
    drop(floods);
    assert!(outer.into_iter().all(|outer| star.reached(outer)));
}

#[test]
fn associations_that_fall_silent_leave_their_data_to_the_tunnel_for_good() {
    let cut = |to_first, both| Cut { after: u64::MAX, to_first, both, associations: true, ..Cut::default() };
    let star = star(vec![cut(false, false), cut(true, false), cut(false, true)]);
    let outer = 1..star.nodes.len();
    let flood = |outer: usize| Flood::start(star.pods[0].namespace(), star.pods[outer].address());
    let _floods: Vec<Flood> = outer.clone().map(flood).collect();
    outer.clone().for_each(|outer| star.associated(outer));
    star.cuts.iter().for_each(|cut| cut.happened.store(true, Ordering::SeqCst));
    for outer in outer.clone() {
        eventually(5, "nothing passes", || (!star.reached(outer)).then_some(()));
    }
    for outer in outer.clone() {
        let what = format!("the tunnel carries after {:?}", star.cuts[outer - 1]);
        eventually(LANE + TICK, &what, || star.reached(outer).then_some(()));
    }
    star.agents[0].within(LANE, "it is said why", |status| {
        let why = star.nodes.last().and_then(|node| status.why_tunnel(&node.name));
        why.is_some_and(|why| why.contains("lanes do not arrive"))
    });
    // They are tried again meanwhile, and no data is lost by that.
    holds_for(2 * LANE, "the tunnel goes on carrying", || outer.clone().all(|outer| star.reached(outer)));
    star.cuts.iter().for_each(|cut| cut.healed.store(true, Ordering::SeqCst));
    for outer in outer {
        let (middle, peer) = (&star.agents[0], &star.nodes[outer].name);
        middle.within(4 * LANE, "they are used again", |status| star.reached(outer) && status.suite(peer).is_some());
    }
}
