//! Agents in a container runtime's default seccomp profile, without what kernels after 5.10 brought.

use std::path::Path;

use serde_json::json;
use warren_tests::cni::plugin::{Conflist, default_routes, host_local};
use warren_tests::datagram::{Echo, echoed};
use warren_tests::stream::transfer;
use warren_tests::{
    Agent, Container, Etcd, Lab, Node, Removal, Runtime, Settings, Volume, assert_seen_without_warren, between,
    eventually, ping, static_settings,
};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_warren-confined");
/// Where a container finds its certificates for etcd.
const SECRET: &str = "/var/warren-etcd";

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

#[test]
fn an_agent_with_what_its_pod_has_reads_its_secret_for_etcd_and_puts_the_gate_before_its_cni() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let etcd = Etcd::start_with(&lab, true, &[]);
    etcd.init(&lab, &[]);
    let nodes: [Node; 2] = lab.nodes();
    let runtimes = nodes.each_ref().map(Runtime::of);
    let secrets = nodes.each_ref().map(|node| secret(&etcd, node));
    let start = |((node, runtime), secret): ((&Node, &Runtime), &Volume)| {
        etcd.add(node);
        Container::of(LAUNCHER, node).volume(secret, SECRET).start(&gated(&etcd, node, runtime))
    };
    let mut agents: Vec<Agent> = nodes.iter().zip(&runtimes).zip(&secrets).map(start).collect();
    let pods = runtimes.each_ref().map(|runtime| {
        eventually(15, "the agent puts the gate there", || (runtime.configurations().len() == 2).then_some(()));
        runtime.until_added("pod")
    });
    for (from, to) in between(&pods) {
        eventually(15, "Pods reach each other", || ping(from, to).then_some(()));
    }
    for (agent, node) in agents.iter().zip(&nodes) {
        let cidrs: Vec<_> = node.cidrs().iter().map(ToString::to_string).collect();
        agent.until("nothing is wrong with it", |status| {
            status.registry_ok("etcd") == Some(true) && status.problems().is_empty() && status.cidrs() == cidrs
        });
    }
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
    assert!(
        runtimes.iter().all(|runtime| runtime.configurations().len() == 1),
        "the gate outlives the agent's removal"
    );
}

/// What the overlay for etcd configures, and the component with the gate; the node has a CNI.
fn gated(etcd: &Etcd, node: &Node, runtime: &Runtime) -> Settings {
    Conflist::new("lab", [json!({"type": "ptp", "ipam": host_local(node, &default_routes(node))})]).write(node);
    let mut settings = etcd.settings(node);
    for (key, file) in [("ca_file", "ca.crt"), ("cert_file", "tls.crt"), ("key_file", "tls.key")] {
        settings.text("etcd", key, format!("{SECRET}/{file}"));
    }
    runtime.ask(&mut settings, "gate");
    settings.text("node", "cidrs", "auto");
    settings
}

/// As the overlay for etcd mounts it: for root alone, which has no right to read what is others'.
fn secret(etcd: &Etcd, node: &Node) -> Volume {
    let own = etcd.certify(&node.name);
    let read = |path: &Path| std::fs::read_to_string(path).expect("just issued");
    let (authority, cert, key) = (read(&own.cert.with_file_name("ca.pem")), read(&own.cert), read(&own.key));
    Volume::new(node, "etcd-secret", &[("ca.crt", &authority), ("tls.crt", &cert), ("tls.key", &key)])
}
