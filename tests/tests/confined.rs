//! Agents in a container runtime's default seccomp profile, without what kernels after 5.10 brought.

use warren_tests::datagram::{Echo, echoed};
use warren_tests::stream::transfer;
use warren_tests::{Agent, Container, Lab, Node, Removal, Settings, ping, static_settings};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_warren-confined");

/// Two confined agents whose settings were changed so; they carry everything, on associations.
fn carry(change: impl Fn(&mut Settings)) {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let mut all = static_settings(&nodes);
    all.iter_mut().for_each(change);
    let start = |(node, settings)| Agent::start_by(&[LAUNCHER], node, settings);
    let agents: Vec<Agent> = nodes.iter().zip(&all).map(start).collect();
    for (agent, other) in agents.iter().zip(["node2", "node1"]) {
        agent.ready().until("data goes on associations", |status| {
            ping(pods[0].namespace(), pods[1].address());
            status.suite(other).is_some()
        });
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("the agent runs");
        assert!(status.contains("Seccomp_filters:\t2"), "the agent is not confined:\n{status}");
    }
    let [one, two] = &pods;
    transfer(one.namespace(), two.namespace(), two.address(), 200);
    transfer(two.namespace(), one.namespace(), one.address(), 200);
    let echo = Echo::start(two.namespace(), two.address());
    for size in [1, 1400, 9000] {
        assert!(echoed(one.namespace(), echo.address(), size), "a datagram of {size} bytes");
    }
    sniffer.assert_encrypted();
}

#[test]
fn confined_agents_carry_everything_by_every_offload() {
    carry(|_| {});
}

#[test]
fn confined_agents_carry_everything_without_any_offload() {
    carry(|settings| {
        for key in ["tun_tso", "tun_uso", "udp_gso", "udp_gro"] {
            settings.set("offload", key, false);
        }
    });
}

#[test]
fn confined_agents_carry_everything_with_the_offloads_of_linux_5_10() {
    carry(|settings| {
        settings.set("offload", "tun_uso", false);
    });
}

#[test]
fn an_agent_with_what_its_pod_has_needs_no_more() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let all = static_settings(&nodes);
    let start = |(node, settings)| Container::of(LAUNCHER, node).start(settings);
    let mut agents: Vec<Agent> = nodes.iter().zip(&all).map(start).collect();
    let [one, two] = &pods;
    transfer(one.namespace(), two.namespace(), two.address(), 200);
    transfer(two.namespace(), one.namespace(), one.address(), 200);
    let problems = agents[0].now();
    assert!(problems.problems().is_empty(), "{:?}", problems.problems());
    // What the Pod of a removal does, with the same rights.
    let removals: Vec<Removal> = agents.iter().map(Agent::cleanup_behind).collect();
    agents.iter_mut().for_each(|agent| _ = agent.terminate());
    removals.into_iter().for_each(|removal| _ = removal.done());
    sniffer.assert_encrypted();
}
