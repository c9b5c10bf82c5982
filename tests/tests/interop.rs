//! One mesh of all that an upgrade meets: two agents with associations, one that has them off, one that knows none, and
//! wireguard-go.
//!
//! The one that knows none is this version with them off, in whose description nothing names them: that is all that
//! others can tell of the version before associations. It is not that version itself. An older build, in a mesh of its own
//! with this one, is run by `make interop-old` alone.

use warren_tests::agent::{old_program, program};
use warren_tests::stock::{Kind, Stock, section};
use warren_tests::stream::transfer;
use warren_tests::{
    Agent, Lab, Node, Pod, Settings, assert_seen_without_warren, between, eventually, ping, static_settings,
};

const NEW: [usize; 2] = [0, 1];
const OFF: usize = 2;
const OLD: usize = 3;
const STOCK: usize = 4;

fn peer(settings: &mut Settings, other: &Node, knows: bool) {
    if knows {
        settings.peer(other);
    } else {
        settings.add_peer(section(other, Some(other.address())).list("", "addresses", other.addresses()).clone());
    }
}

fn agents(nodes: &[Node; 5]) -> Vec<Agent> {
    let start = |own: usize| {
        let mut settings = nodes[own].settings();
        for other in (0..nodes.len()).filter(|other| *other != own) {
            peer(&mut settings, &nodes[other], own != OLD && other < OLD);
        }
        if own >= OFF {
            settings.text("overlay", "associations", "off");
        }
        nodes[own].start(&settings)
    };
    let agents: Vec<Agent> = (0..STOCK).map(start).collect();
    agents.iter().for_each(|agent| drop(agent.ready().now()));
    agents
}

#[test]
fn agents_with_without_and_before_associations_and_wireguard_go_are_one_mesh() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 5] = lab.nodes();
    let pods: [Pod; 5] = nodes.each_ref().map(Node::pod);
    let stock = Kind::Go.installed().then(|| Stock::start(Kind::Go, &nodes[STOCK]));
    for other in &nodes[..STOCK] {
        stock.iter().for_each(|stock| stock.peer(&nodes[STOCK], other, Some(other.address()), &[]));
    }
    let agents = agents(&nodes);
    let all = if stock.is_some() { &pods[..] } else { &pods[..STOCK] };
    for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (from, to))) {
        if from.address() != to.address() {
            eventually(10, "each Pod reaches each", || ping(from.namespace(), to.address()).then_some(()));
        }
    }
    for [own, other] in [NEW, [NEW[1], NEW[0]]] {
        agents[own].until("the two new ones use associations", |status| {
            ping(pods[own].namespace(), pods[other].address());
            status.suite(&nodes[other].name).is_some()
        });
    }
    for (from, to) in (0..all.len()).flat_map(|from| (0..from).map(move |to| (from, to))) {
        transfer(pods[from].namespace(), pods[to].namespace(), pods[to].address(), 20);
    }
    for (own, agent) in agents.iter().enumerate() {
        let status = agent.now();
        let with: Vec<_> = nodes.iter().filter(|node| status.suite(&node.name).is_some()).collect();
        assert_eq!(with.len(), usize::from(NEW.contains(&own)), "node{}", own + 1);
    }
    sniffer.assert_encrypted();
}

/// This build, this one with associations off, and the older one with and without.
#[test]
#[ignore = "needs an older build: make interop-old"]
fn agents_of_this_and_of_an_older_version_are_one_mesh() {
    let old = old_program();
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 4] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let mut settings = static_settings(&nodes);
    for without in [1, 3] {
        settings[without].text("overlay", "associations", "off");
    }
    let start = |(own, settings): (&Node, &Settings)| {
        Agent::start_of(if own.number > 2 { old } else { program() }, own, settings)
    };
    let mut agents: Vec<Agent> = nodes.iter().zip(&settings).map(start).collect();
    agents.iter().for_each(|agent| drop(agent.ready().now()));
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        eventually(10, "each Pod reaches each", || ping(pods[from].namespace(), pods[to].address()).then_some(()));
    }
    for (own, other) in [(0, 2), (2, 0)] {
        agents[own].until("both versions use associations with each other", |status| {
            ping(pods[own].namespace(), pods[other].address());
            status.suite(&nodes[other].name).is_some()
        });
    }
    for (from, to) in (0..4).flat_map(|from| (0..from).map(move |to| (from, to))) {
        transfer(pods[from].namespace(), pods[to].namespace(), pods[to].address(), 20);
        transfer(pods[to].namespace(), pods[from].namespace(), pods[from].address(), 20);
    }
    for own in [1, 3] {
        let status = agents[own].now();
        assert!(nodes.iter().all(|node| status.suite(&node.name).is_none()), "node{} has them off", own + 1);
    }
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
}
