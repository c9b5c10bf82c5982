//! Pods that a CNI's real plugins add, on nodes that boot: none is added before the guard stands, whatever starts first.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pods by ptp, host-local, portmap, warren-gate
//!                 sniffer, etcd     reboots
//! ```

use serde_json::{Value, json};
use warren_tests::datagram::{Echo, echoed};
use warren_tests::{
    Agent, EtcdMesh, Flood, Lab, Node, Plan, Pod, Runtime, assert_seen_without_warren, between, eventually, ping,
    static_settings,
};

/// The configuration with the gate in it.
const GATED: &str = "00-warren-gate.conflist";
/// The CNI's own.
const OWN: &str = "10-lab.conflist";

/// Installs the CNI, or writes its file anew, as CNIs do whenever they start.
fn install(runtime: &Runtime, node: &Node) {
    let cidr = node.cidrs()[0].to_string();
    let list = json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [
            {
                "type": "ptp",
                "ipam": { "type": "host-local", "subnet": cidr, "routes": [{ "dst": "0.0.0.0/0" }] },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    std::fs::write(runtime.net_d().join(OWN), format!("{list:#}\n")).expect("the folder is ours");
}

/// A mesh of one node whose Pod listens, and a node with a CNI that reboots. The agent is the second of the mesh.
struct World {
    mesh: EtcdMesh,
    runtime: Runtime,
    /// The Pod that talks at the moment, with what it says.
    talking: Option<(Flood, Pod)>,
}

impl World {
    fn start() -> Self {
        let mut mesh = EtcdMesh::start(Plan::default(), 1);
        let node = mesh.lab.node();
        mesh.etcd.add(&node);
        let runtime = Runtime::of(&node);
        let mut settings = mesh.etcd.settings(&node);
        runtime.ask(&mut settings, "gate");
        install(&runtime, &node);
        mesh.agents.push(node.start(&settings));
        mesh.nodes.push(node);
        Self { mesh, runtime, talking: None }
    }

    fn node(&self) -> &Node {
        &self.mesh.nodes[1]
    }

    fn agent(&mut self) -> &mut Agent {
        &mut self.mesh.agents[1]
    }

    fn guarded(&self) -> String {
        self.node().namespace().run(&["nft", "list", "set", "inet", "warren", "proven4"])
    }

    fn has(&self, name: &str) -> bool {
        self.runtime.configurations().iter().any(|(file, _)| file == name)
    }

    /// The Pod talks from the moment on in which it is added.
    #[track_caller]
    fn add(&mut self) {
        let pod = self.runtime.until_added("pod");
        let flood = Flood::start(pod.namespace(), self.mesh.pods[0].address());
        self.talking = Some((flood, pod));
    }

    #[track_caller]
    fn refused(&self) {
        refused(&self.runtime, "there is no nftables table inet warren");
    }

    #[track_caller]
    fn connected(&self) {
        let (_, pod) = self.talking.as_ref().expect("a Pod was added");
        eventually(20, "Pods reach each other", || {
            let other = &self.mesh.pods[0];
            (ping(pod.namespace(), other.address()) && ping(other.namespace(), pod.address())).then_some(())
        });
    }

    /// Cuts the node's power, and boots it up to where there is no network.
    fn power_off(&mut self) {
        self.agent().kill();
        self.talking = None;
        self.node().reboot(&self.mesh.lab);
        assert_eq!(self.node().namespace().run(&["nft", "list", "ruleset"]), "", "this is no reboot");
    }

    fn network_comes(&self) {
        self.node().connect(&self.mesh.lab);
    }

    /// What there is in the end: rules, routes, guard, the CNI's folder. What the agent says is well.
    #[track_caller]
    fn portrait(&mut self) -> String {
        self.agent().until("knows its peer and its CNI", |status| {
            status.ready() && status.peers() == ["node1"] && status.problems().is_empty()
        });
        let namespace = self.node().namespace();
        let said = |line: &str| namespace.attempt(&line.split(' ').collect::<Vec<_>>()).stdout;
        let lines = [
            "nft -s list table inet warren",
            "nft -s list table netdev warren",
            "ip rule show",
            "ip route show table 51840",
            "ip route show table 51841",
        ];
        format!("{}{:?}", lines.map(said).concat(), self.runtime.configurations())
    }

    /// Waits until all is as it was.
    #[track_caller]
    fn as_ever(&mut self, before: &str, order: &str) {
        let mut now = String::new();
        for _ in 0..50 {
            now = self.portrait();
            if now == before {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(now, before, "{order}");
    }

    /// Nothing was in clear since before the first agent started; without Warren the same Pods are seen, and so is one that
    /// comes when the node boots, since no gate is left that would hold it.
    fn finish(mut self) {
        self.mesh.sniffer.assert_encrypted();
        let (flood, pod) = self.talking.take().expect("a Pod was added");
        drop(flood);
        self.mesh.pods.push(pod);
        assert_seen_without_warren(&self.mesh.sniffer, &mut self.mesh.agents, between(&self.mesh.pods));
        assert!(!self.has(GATED) && self.has(OWN), "{:?}", self.runtime.configurations());
        self.mesh.pods.truncate(1);
        self.power_off();
        self.mesh.sniffer.reset();
        self.network_comes();
        self.add();
        eventually(10, "the sniffer sees the leak", || (self.mesh.sniffer.clear() > 100).then_some(()));
    }
}

#[test]
fn whatever_starts_first_on_a_node_that_boots_all_ends_the_same_and_nothing_is_in_clear() {
    let mut world = World::start();
    eventually(10, "the agent puts the gate there", || world.has(GATED).then_some(()));
    world.add();
    world.connected();
    world.mesh.agents[1].until("had a tunnel", |_| world.guarded().contains("10.42.1.0/24"));
    let first = world.portrait();

    // The CNI before the agent: it writes its file anew, and Pods come at once.
    world.power_off();
    install(&world.runtime, world.node());
    world.network_comes();
    (0..3).for_each(|_| world.refused());
    world.mesh.sniffer.assert_nothing_in_clear();
    world.agent().up();
    world.add();
    world.connected();
    world.as_ever(&first, "the CNI came before the agent");

    // The agent before the CNI, which comes to an empty folder.
    world.power_off();
    for name in [GATED, OWN] {
        std::fs::remove_file(world.runtime.net_d().join(name)).expect("it was there");
    }
    world.network_comes();
    world.agent().up();
    world.agent().until("says that it waits for the CNI", |status| {
        status.ready() && status.problems().iter().any(|said| said.contains("no CNI configuration yet"))
    });
    install(&world.runtime, world.node());
    world.add();
    world.connected();
    world.as_ever(&first, "the agent came before the CNI");

    // The registry long after everybody.
    world.power_off();
    world.mesh.etcd.kill();
    world.network_comes();
    world.refused();
    world.agent().up();
    world.add();
    world.connected();
    world.mesh.sniffer.assert_nothing_in_clear();
    world.mesh.etcd.up();
    world.agent().within(30, "etcd is back", |status| status.registry_ok("etcd") == Some(true));
    world.as_ever(&first, "the registry came late");

    // The guard's unit before the network, the agent long after the first Pod.
    world.power_off();
    world.agent().guard();
    world.network_comes();
    world.add();
    let (_, pod) = world.talking.as_ref().expect("a Pod was added");
    assert!(!ping(pod.namespace(), world.mesh.pods[0].address()), "there is no tunnel yet");
    world.mesh.sniffer.assert_nothing_in_clear();
    world.agent().up();
    world.connected();
    world.as_ever(&first, "the guard's unit came first");
    world.finish();
}

/// Fails the test unless the gate, and nobody else, holds the Pod back, and for this reason.
#[track_caller]
fn refused(runtime: &Runtime, why: &str) {
    let refused = runtime.add("pod").expect_err("the Pod is added");
    assert!(refused.by_gate() && refused.said["msg"].as_str().is_some_and(|said| said.contains(why)), "{refused:?}");
}

#[test]
fn the_gate_asks_the_kernel_and_not_whether_anything_was_loaded_once() {
    let lab = Lab::new();
    let [node] = lab.nodes();
    let runtime = Runtime::of(&node);
    install(&runtime, &node);
    let mut settings = node.settings();
    runtime.ask(&mut settings, "gate");
    let mut agent = node.start(&settings);
    eventually(15, "the agent puts the gate there", || (runtime.configurations().len() == 2).then_some(()));
    agent.kill();
    let before = |address: &str| json!({ "cniVersion": "1.0.0", "ips": [{ "address": address }] });
    let own = before(&node.cidrs()[0].to_string());
    let passed = runtime.gate("ADD", &own);
    assert!(passed.success() && serde_json::from_str::<Value>(&passed.stdout).expect("JSON") == own, "{passed:?}");
    for command in ["CHECK", "STATUS", "DEL", "GC", "VERSION"] {
        assert!(runtime.gate(command, &own).success(), "{command}");
    }
    let elsewhere = runtime.gate("ADD", &before("10.99.0.9/16"));
    assert!(!elsewhere.success() && elsewhere.stdout.contains("10.99.0.9 is in no prefix"), "{elsewhere:?}");

    let namespace = node.namespace();
    let saved = namespace.run(&["nft", "list", "table", "inet", "warren"]);
    for (change, why) in [
        ("add table inet warren { flags dormant; }", "is dormant"),
        ("flush chain inet warren prerouting", "no rules in force in its chain prerouting"),
        ("flush chain inet warren postrouting", "no rules in force in its chain postrouting"),
        ("flush set inet warren overlay4", "is in no prefix"),
        ("delete table inet warren", "there is no nftables table inet warren"),
    ] {
        namespace.nft(change);
        refused(&runtime, why);
        assert!(runtime.gate("DEL", &own).success(), "{change}");
        let status = runtime.gate("STATUS", &Value::Null);
        assert_eq!(status.success(), why == "is in no prefix", "{change}: {status:?}");
        assert!(status.success() || status.stdout.contains("\"code\":50"), "{status:?}");
        namespace.nft(&format!("add table inet warren\ndelete table inet warren\n{saved}"));
        assert!(runtime.gate("ADD", &own).success(), "{change}: the guard is back");
    }
}

#[test]
fn nodes_without_a_cni_get_a_network_whose_pods_reach_each_other_by_their_own_addresses() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let runtimes = nodes.each_ref().map(Runtime::of);
    let mut all = static_settings(&nodes);
    for (runtime, settings) in runtimes.iter().zip(&mut all) {
        runtime.ask(settings, "install");
        runtime.ask(settings, "gate");
    }
    let mut agents: Vec<Agent> = nodes.iter().zip(&all).map(|(node, settings)| node.start(settings)).collect();
    let pods = runtimes.each_ref().map(|runtime| {
        eventually(15, "the agent writes a configuration", || runtime.configurations().first().cloned());
        runtime.until_added("pod")
    });
    for (pod, node) in pods.iter().zip(&nodes) {
        assert!(node.cidrs()[0].contains(&pod.address()), "{} on {}", pod.address(), node.name);
    }
    eventually(15, "Pods reach each other", || {
        between(&pods).into_iter().all(|(from, to)| ping(from, to)).then_some(())
    });
    // Only who comes with the Pod's own address is answered.
    let source = pods[0].address();
    pods[1].namespace().nft(&format!(
        "table inet only {{\nchain input {{\ntype filter hook input priority 0;\nip saddr != {source} udp dport > 1 drop\n}}\n}}"
    ));
    let echo = Echo::start(pods[1].namespace(), pods[1].address());
    assert!(echoed(pods[0].namespace(), echo.address(), 100), "the other node's Pod sees a masqueraded address");
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
    assert!(runtimes.iter().all(|runtime| runtime.configurations().is_empty()), "the network stays");
}
