//! `enforcement = "permissive"`: a pair of nodes that once had a tunnel never falls back to clear, whatever becomes of
//! its agents and hosts.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pod
//!   └──── flood ──────────────────────────►
//!                      sniffer
//! ```

use nix::sys::signal::Signal;
use warren_tests::{
    Agent, Etcd, Flood, Lab, Node, Pod, Settings, Sniffer, assert_seen_without_warren, between, eventually, holds_for,
    ping, static_mesh_with,
};

/// Seconds that a silence is watched.
const SILENCE: u64 = 5;

/// Two nodes in `permissive` whose Pods have talked through the tunnel and go on talking.
struct Proven {
    floods: Vec<Flood>,
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    sniffer: Sniffer,
    lab: Lab,
}

fn proven() -> Proven {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh_with(&nodes, permissive);
    prove(Proven { floods: Vec::new(), agents, pods, nodes, sniffer, lab })
}

/// Waits until both guards hold the pair to its tunnel; from then on nothing may be in clear.
fn prove(mut pair: Proven) -> Proven {
    pair.connected();
    for (own, other) in [(0, 1), (1, 0)] {
        let cidr = pair.nodes[other].cidrs()[0].to_string();
        eventually(10, "the guard knows the pair", || {
            let listed = pair.nodes[own].namespace().run(&["nft", "list", "set", "inet", "warren", "proven4"]);
            listed.contains(&cidr).then_some(())
        });
    }
    pair.sniffer.reset();
    pair.floods = between(&pair.pods).into_iter().map(|(from, to)| Flood::start(from, to)).collect();
    pair
}

fn permissive(_: &Node, settings: &mut Settings) {
    settings.text("overlay", "enforcement", "permissive");
}

impl Proven {
    #[track_caller]
    fn connected(&self) {
        let all = || between(&self.pods).into_iter().all(|(from, to)| ping(from, to));
        eventually(15, "Pods reach each other", || all().then_some(()));
    }

    /// Fails the test as soon as anything is in clear within a while, or if Pods reach each other.
    #[track_caller]
    fn cut(&self) {
        holds_for(SILENCE, "nothing is in clear", || self.sniffer.clear() == 0);
        assert!(between(&self.pods).into_iter().all(|(from, to)| !ping(from, to)), "Pods talk without a tunnel");
        self.sniffer.assert_nothing_in_clear();
    }

    /// Fails the test if anything was in clear, or unless the same Pods are seen in clear without Warren.
    #[track_caller]
    fn finish(mut self) {
        self.connected();
        self.sniffer.assert_encrypted();
        self.floods.clear();
        assert_seen_without_warren(&self.sniffer, &mut self.agents, between(&self.pods));
    }
}

#[test]
#[ignore = "half a minute; its kin run always"]
fn a_pair_stays_encrypted_when_one_agent_is_gone_and_the_other_starts_anew() {
    let mut pair = proven();
    pair.agents[1].kill();
    for _ in 0..2 {
        pair.agents[0].kill();
        pair.agents[0].up();
        pair.agents[0].ready();
        pair.cut();
    }
    pair.agents[1].up();
    pair.finish();
}

#[test]
#[ignore = "half a minute; its kin run always"]
fn a_pair_stays_encrypted_when_both_agents_start_anew_one_after_the_other() {
    let mut pair = proven();
    for agent in &mut pair.agents {
        agent.terminate();
    }
    pair.cut();
    pair.agents[0].up();
    pair.agents[0].ready();
    pair.cut();
    pair.agents[1].up();
    pair.finish();
}

#[test]
fn a_pair_stays_encrypted_when_the_peer_lives_and_its_tunnel_is_silent() {
    let pair = proven();
    pair.agents[1].signal(Signal::SIGSTOP);
    pair.cut();
    pair.agents[1].signal(Signal::SIGCONT);
    pair.finish();
}

#[test]
fn a_pair_stays_encrypted_when_the_agent_starts_anew_beside_a_silent_peer() {
    let mut pair = proven();
    pair.agents[1].signal(Signal::SIGSTOP);
    for _ in 0..2 {
        pair.agents[0].terminate();
        pair.agents[0].up();
        pair.agents[0].ready();
        pair.cut();
    }
    pair.agents[0].terminate();
    pair.cut();
    pair.agents[0].up();
    pair.agents[1].signal(Signal::SIGCONT);
    pair.finish();
}

#[test]
#[ignore = "half a minute; its kin run always"]
fn a_pair_stays_encrypted_when_one_node_boots_while_the_other_agent_is_gone() {
    let mut pair = proven();
    pair.agents[1].kill();
    pair.agents[0].kill();
    // Its Pod goes down with it.
    let Proven { lab, nodes, sniffer, agents, pods: [one, two], floods } = pair;
    drop((floods, one));
    nodes[0].reboot(&lab);
    agents[0].guard();
    nodes[0].connect(&lab);
    let pods = [nodes[0].pod(), two];
    let floods = between(&pods).into_iter().map(|(from, to)| Flood::start(from, to)).collect();
    pair = Proven { floods, agents, pods, nodes, sniffer, lab };
    pair.cut();
    pair.agents[0].up();
    pair.agents[0].ready();
    pair.cut();
    pair.agents[1].up();
    pair.finish();
}

/// What `warren cluster add-node` wrote of the cluster into the node's file.
fn begins_as_told(settings: &mut Settings, written: &str) {
    for key in ["networks", "enforcement"] {
        let said = written.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        settings.set("overlay", key, said.expect("add-node says it"));
    }
}

#[test]
fn an_agent_that_has_yet_to_reach_etcd_cuts_nobody_off_in_a_roll_out() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let mut etcd = Etcd::start(&lab);
    etcd.init(&lab, &["--permissive"]);
    let added = etcd.cluster(&["add-node", &nodes[0].name, "--cidr", &nodes[0].cidrs()[0].to_string()]);
    let mut settings = etcd.settings(&nodes[0]);
    begins_as_told(&mut settings, &added.stdout);
    etcd.kill();
    let talk = || between(&pods).into_iter().all(|(from, to)| ping(from, to));
    assert!(talk(), "Pods do not reach each other without any agent");
    let mut agent = nodes[0].start(&settings);
    let guards = |agent: &Agent| _ = agent.until("guards", |status| status.value()["guard"]["active"] == true);
    guards(&agent);
    holds_for(SILENCE, "Pods go on talking in clear", talk);
    // The same without what the file says: this would have been noticed.
    agent.terminate();
    agent.configure(settings.unset("overlay", "enforcement"));
    agent.up();
    guards(&agent);
    eventually(10, "Pods of a strict node are cut off", || (!talk()).then_some(()));
}

#[test]
fn a_pair_from_etcd_stays_encrypted_when_the_agent_starts_anew_without_etcd_and_peer() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let mut etcd = Etcd::start(&lab);
    etcd.init(&lab, &["--permissive"]);
    let agents = etcd.mesh(&nodes);
    let mut pair = prove(Proven { floods: Vec::new(), agents, pods, nodes, sniffer, lab });
    etcd.kill();
    pair.agents[1].kill();
    for _ in 0..2 {
        pair.agents[0].kill();
        pair.agents[0].up();
        pair.agents[0].ready();
        pair.cut();
    }
    pair.agents[0].kill();
    pair.cut();
    pair.agents[0].up();
    pair.agents[1].up();
    pair.finish();
}
