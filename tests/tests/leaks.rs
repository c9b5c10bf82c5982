//! Agents end in every way, and the host is changed under them: whatever happens, nothing is in clear. Each test ends
//! with its control: the same Pods without Warren are seen.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pod
//!   └──── flood ──────────────────────────►
//!                      sniffer
//! ```

use warren_tests::dump::dump;
use warren_tests::{
    Agent, Family, Flood, Lab, Node, Plan, Pod, Settings, Sniffer, assert_seen_without_warren, between, eventually,
    ping, static_mesh_with,
};

/// Two nodes whose Pods talk in both directions all the time, and everything that watches them.
struct Pair {
    floods: Vec<Flood>,
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    sniffer: Sniffer,
    _lab: Lab,
}

fn pair() -> Pair {
    pair_with(|_, _| {})
}

fn pair_with(change: impl Fn(&Node, &mut Settings)) -> Pair {
    let lab = Lab::with(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() });
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh_with(&nodes, change);
    let ends = |from: usize| pods[1 - from].addresses().iter().map(move |to| (from, *to)).collect::<Vec<_>>();
    let floods = [ends(0), ends(1)].concat();
    let floods = floods.into_iter().map(|(from, to)| Flood::start(pods[from].namespace(), to)).collect();
    Pair { floods, agents, pods, nodes, sniffer, _lab: lab }
}

impl Pair {
    /// Waits until Pods reach each other, by both versions of IP.
    #[track_caller]
    fn connected(&self) {
        eventually(15, "Pods reach each other", || self.reach().then_some(()));
    }

    /// Waits until both guards hold the pair to its tunnel, by both versions of IP.
    #[track_caller]
    fn proven(&self) {
        for (own, other) in [(0, 1), (1, 0)] {
            for (set, cidr) in ["proven4", "proven6"].into_iter().zip(self.nodes[other].cidrs()) {
                let listed = || self.nodes[own].namespace().run(&["nft", "list", "set", "inet", "warren", set]);
                eventually(10, "the guard knows the pair", || listed().contains(&cidr.to_string()).then_some(()));
            }
        }
    }

    /// Fails the test unless Pods cannot reach each other and nothing is in clear.
    #[track_caller]
    fn cut(&self) {
        assert!(!self.reach(), "Pods reach each other without a tunnel");
        self.sniffer.assert_nothing_in_clear();
    }

    /// Fails the test if anything was in clear, or unless the same Pods are seen in clear without Warren.
    #[track_caller]
    fn finish(mut self) {
        self.sniffer.assert_encrypted();
        self.floods.clear();
        assert_seen_without_warren(&self.sniffer, &mut self.agents, between(&self.pods));
    }

    fn reach(&self) -> bool {
        self.pods[1].addresses().iter().all(|address| ping(self.pods[0].namespace(), *address))
    }
}

#[test]
fn an_agent_that_is_killed_leaves_nothing_in_clear_and_comes_back() {
    let mut pair = pair();
    pair.connected();
    for _ in 0..3 {
        pair.agents[0].kill();
        pair.cut();
        pair.agents[0].up();
        pair.connected();
    }
    pair.finish();
}

#[test]
fn an_agent_that_is_stopped_leaves_nothing_in_clear_and_comes_back() {
    let mut pair = pair();
    pair.connected();
    for _ in 0..3 {
        let status = pair.agents[0].terminate();
        assert!(status.success(), "SIGTERM ended the agent with {status}");
        pair.cut();
        pair.agents[0].up();
        pair.connected();
    }
    pair.finish();
}

#[test]
fn both_agents_killed_at_once_leave_nothing_in_clear() {
    let mut pair = pair();
    pair.connected();
    pair.agents.iter_mut().for_each(Agent::kill);
    pair.cut();
    pair.agents.iter_mut().for_each(Agent::up);
    pair.connected();
    pair.finish();
}

#[test]
fn an_agent_that_starts_under_traffic_leaves_nothing_in_clear() {
    let mut pair = pair();
    for _ in 0..5 {
        pair.agents[1].kill();
        pair.agents[1].up();
        pair.agents[1].ready();
    }
    pair.connected();
    pair.finish();
}

#[test]
fn what_somebody_deletes_is_repaired_and_nothing_is_in_clear_meanwhile() {
    let deletions: [&[&str]; 7] = [
        &["ip", "-4", "route", "flush", "table", "51840"],
        &["ip", "-6", "route", "flush", "table", "51840"],
        &["ip", "-4", "rule", "del", "pref", "94"],
        &["ip", "addr", "flush", "dev", "warren0"],
        &["ip", "link", "set", "warren0", "down"],
        &["nft", "flush", "ruleset"],
        &["tc", "qdisc", "del", "dev", "eth0", "clsact"],
    ];
    let pair = pair();
    pair.connected();
    for (number, deletion) in deletions.into_iter().enumerate() {
        // By turns: an agent slows down when it repairs more than three times in a row.
        let (agent, node) = (&pair.agents[number % 2], &pair.nodes[number % 2]);
        let repairs = agent.now().repairs();
        node.namespace().run(deletion);
        agent.until(&format!("`{}` is repaired", deletion.join(" ")), |status| {
            status.repairs() > repairs && status.ready()
        });
        pair.connected();
        pair.sniffer.assert_encrypted();
    }
    pair.finish();
}

#[test]
fn a_foreign_route_or_rule_ahead_of_ours_is_reported_and_nothing_is_in_clear() {
    let pair = pair();
    let node = pair.nodes[0].namespace();
    pair.connected();
    node.ip("route add 10.42.2.0/25 via 10.77.0.254");
    pair.connected();
    node.ip("rule add pref 20 to 10.42.2.0/24 lookup main");
    let reached = || ping(pair.pods[0].namespace(), pair.pods[1].address());
    eventually(5, "the foreign rule takes effect", || (!reached()).then_some(()));
    pair.sniffer.assert_nothing_in_clear();
    pair.agents[0].until("not ready, and it says why", |status| !status.ready() && !status.problems().is_empty());
    node.ip("rule del pref 20");
    pair.agents[0].ready();
    pair.connected();
    pair.finish();
}

#[test]
fn another_way_out_than_by_the_addresses_that_are_given_is_guarded_too() {
    let mut pair = pair();
    pair.connected();
    pair.agents[0].kill();
    let (node, hub) = (pair.nodes[0].namespace(), pair._lab.hub());
    hub.ip(&format!("link add second type veth peer name eth1 netns {}", node.name()));
    hub.ip_batch("addr add 10.78.0.254/24 dev second\nlink set second up\n");
    node.ip_batch("addr add 10.78.0.1/24 dev eth1\nlink set eth1 up\n");
    pair.agents[0].up();
    pair.connected();
    node.ip_batch("route add 10.42.2.0/24 via 10.78.0.254 table 7\nrule add pref 20 to 10.42.2.0/24 lookup 7\n");
    eventually(5, "Pods' packets take the second device", || (!pair.reach()).then_some(()));
    pair.cut();
    pair.agents[0].kill();
    pair.cut();
    pair.finish();
}

#[test]
fn cleanup_leaves_the_host_as_it_was() {
    let lab = Lab::with(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() });
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let before = nodes.each_ref().map(|node| dump(node.namespace()));
    let mut agents = static_mesh_with(&nodes, |_, _| {});
    assert!(ping(pods[0].namespace(), pods[1].address()));
    assert_ne!(dump(nodes[0].namespace()), before[0], "an agent that changes nothing proves nothing");
    agents[0].terminate();
    agents[1].kill();
    for ((agent, node), before) in agents.iter().zip(&nodes).zip(&before) {
        agent.cleanup();
        assert_same(&dump(node.namespace()), before);
        agent.cleanup();
    }
}

/// Shows the lines that differ.
#[track_caller]
fn assert_same(after: &str, before: &str) {
    let only = |one: &str, other: &str| {
        one.lines().filter(|line| !other.lines().any(|known| known == *line)).collect::<Vec<_>>().join("\n")
    };
    assert!(after == before, "left behind:\n{}\nmissing:\n{}", only(after, before), only(before, after));
}

#[test]
fn in_permissive_a_node_without_an_agent_is_reached_in_clear_and_counted_then_not_in_strict() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 3] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let mut agents = static_mesh_with(&nodes[..2], permissive);
    assert!(ping(pods[0].namespace(), pods[1].address()));
    sniffer.assert_encrypted();
    assert!(ping(pods[0].namespace(), pods[2].address()), "the node without an agent is not reached");
    assert!(ping(pods[2].namespace(), pods[0].address()), "the node without an agent does not reach");
    assert!(sniffer.clear() > 0);
    agents[0].until("what is in clear is counted", |status| status.guard("passed") > 0);

    agents.iter_mut().for_each(Agent::kill);
    agents.clear();
    let mut agents = static_mesh_with(&nodes[..2], |_, _| {});
    sniffer.reset();
    assert!(ping(pods[0].namespace(), pods[1].address()));
    assert!(!ping(pods[0].namespace(), pods[2].address()), "in strict, what has no tunnel is not reached");
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
}

#[test]
fn in_permissive_a_pair_that_had_a_tunnel_never_falls_back() {
    let mut pair = pair_with(permissive);
    pair.connected();
    pair.proven();
    pair.sniffer.reset();
    pair.agents[1].kill();
    pair.cut();
    pair.agents[1].up();
    pair.connected();
    pair.finish();
}

fn permissive(_: &Node, settings: &mut Settings) {
    settings.text("overlay", "enforcement", "permissive");
}
