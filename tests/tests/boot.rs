//! A node loses its power while Pods talk, and boots: the guard comes before the network, the agent long after. Until
//! the agent is up nothing passes and nothing is in clear.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pod
//!        reboots       sniffer
//! ```

use warren_tests::{
    Agent, Family, Flood, Lab, Node, Plan, Pod, Settings, Sniffer, assert_seen_without_warren, between, eventually,
    ping, static_mesh_with,
};

/// Two nodes, of which the first has just been booted: there is a network and a Pod that talks, but no agent yet.
struct Booted {
    floods: Vec<Flood>,
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    sniffer: Sniffer,
    _lab: Lab,
}

/// `at_boot` is what happens before the network comes up.
fn booted(change: impl Fn(&Node, &mut Settings), at_boot: impl Fn(&Agent)) -> Booted {
    let lab = Lab::with(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() });
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let (before, peer) = (nodes[0].pod(), nodes[1].pod());
    let mut agents = static_mesh_with(&nodes, change);
    eventually(15, "Pods reach each other before the reboot", || {
        ping(before.namespace(), peer.address()).then_some(())
    });
    agents[0].kill();
    drop(before);
    nodes[0].reboot(&lab);
    assert_eq!(nodes[0].namespace().run(&["nft", "list", "ruleset"]), "", "this is no reboot");
    at_boot(&agents[0]);
    nodes[0].connect(&lab);
    let pods = [nodes[0].pod(), peer];
    let floods = between(&pods).into_iter().map(|(from, to)| Flood::start(from, to)).collect();
    Booted { floods, agents, pods, nodes, sniffer, _lab: lab }
}

impl Booted {
    #[track_caller]
    fn connected(&self) {
        eventually(15, "Pods reach each other", || {
            between(&self.pods).into_iter().all(|(from, to)| ping(from, to)).then_some(())
        });
    }

    /// Fails the test unless Pods cannot reach each other and nothing is in clear.
    #[track_caller]
    fn cut(&self) {
        for (from, to) in between(&self.pods) {
            assert!(!ping(from, to), "{} reaches {to} without a tunnel", from.name());
        }
        self.sniffer.assert_nothing_in_clear();
    }

    fn rules(&self) -> String {
        self.nodes[0].namespace().run(&["nft", "list", "ruleset"])
    }
}

#[test]
fn a_node_that_boots_leaks_nothing_before_its_agent_runs_and_talks_once_it_does() {
    let mut booted = booted(|_, _| {}, Agent::guard);
    booted.cut();
    assert!(refused(&booted.rules()) > 0, "it was not the guard that held Pods back:\n{}", booted.rules());
    booted.agents[0].up();
    booted.connected();
    booted.agents[0].ready();
    booted.agents[0].kill();
    booted.cut();
    assert!(booted.rules().contains("table inet warren"), "the guard went with the agent");
    booted.agents[0].up();
    booted.connected();
    booted.sniffer.assert_encrypted();
    booted.floods.clear();
    assert_seen_without_warren(&booted.sniffer, &mut booted.agents, between(&booted.pods));
    assert_gone(&booted.nodes[0]);
}

#[test]
fn without_the_guard_the_sniffer_sees_pods_that_talk_before_the_agent_runs() {
    let booted = booted(|_, _| {}, |_| {});
    eventually(10, "the sniffer sees the leak", || (booted.sniffer.clear() > 100).then_some(()));
}

#[test]
fn the_guard_loaded_under_a_running_agent_disturbs_nobody() {
    let mut booted = booted(|_, _| {}, Agent::guard);
    booted.agents[0].up();
    booted.agents[0].ready();
    booted.connected();
    for _ in 0..3 {
        booted.agents[0].guard();
        booted.agents[0].until("guarded", |status| status.ready() && status.value()["guard"]["active"] == true);
        booted.connected();
    }
    booted.sniffer.assert_encrypted();
    booted.floods.clear();
    assert_seen_without_warren(&booted.sniffer, &mut booted.agents, between(&booted.pods));
}

/// What the guard's counter `refused` shows, over all families.
fn refused(rules: &str) -> u64 {
    let numbers =
        rules.split("counter refused {").skip(1).filter_map(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok());
    numbers.sum()
}

/// Fails the test if `warren cleanup` left anything in the kernel or anything that would come back at the next boot.
#[track_caller]
fn assert_gone(node: &Node) {
    let namespace = node.namespace();
    assert_eq!(namespace.run(&["nft", "list", "ruleset"]), "");
    assert!(!namespace.ip("rule show").contains("51840") && !namespace.ip("-6 rule show").contains("51840"));
    assert!(!namespace.ip("-o link show").contains("warren0"));
    assert!(!node.folder().join("guard.json").exists(), "the guard would be back after the next boot");
}
