//! Associations between agents: data leaves the tunnel, and nothing else changes.

use warren_tests::stream::transfer;
use warren_tests::{Agent, Family, Lab, Node, Plan, Pod, Sniffer, eventually, ping, static_mesh_with};

#[test]
fn two_agents_soon_send_on_associations_with_any_numbers_of_workers() {
    for (one, two) in [(1, 1), (2, 2), (1, 4), (4, 2), (3, 4), (8, 8)] {
        let lab = Lab::with(Plan { overlay: Family::Dual, ..Plan::default() });
        let sniffer = lab.sniff();
        let nodes: [Node; 2] = lab.nodes();
        let pods = nodes.each_ref().map(Node::pod);
        let agents = static_mesh_with(&nodes, |node, settings| {
            settings.set("workers", "count", if node.number == 1 { one } else { two });
        });
        assert!(ping(pods[0].namespace(), pods[1].address()));
        agents[0].until("data goes on associations", |status| status.suite("node2").is_some());
        agents[1].until("data goes on associations", |status| status.suite("node1").is_some());
        for (agent, other, workers) in [(&agents[0], "node2", one), (&agents[1], "node1", two)] {
            agent.until("all of it does, by a lane for each worker", |status| status.is_post_quantum(other));
            let status = agent.now();
            assert_eq!(status.peer(other).map(|peer| &peer["association"]["lanes"]), Some(&workers.into()));
            assert_eq!((status.data(other), status.why_tunnel(other)), (Some("associations"), None));
        }
        for address in pods[1].addresses() {
            assert!(ping(pods[0].namespace(), *address));
        }
        transfer(pods[0].namespace(), pods[1].namespace(), pods[1].address(), 50);
        transfer(pods[1].namespace(), pods[0].namespace(), pods[0].address(), 50);
        sniffer.assert_encrypted();
    }
}

#[test]
fn workers_that_are_pinned_have_a_core_each_and_carry_data() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh_with(&nodes, |_, settings| {
        settings.set("workers", "count", 2).set("workers", "pin", true);
    });
    transfer(pods[0].namespace(), pods[1].namespace(), pods[1].address(), 10);
    let mut cores = workers_cores(agents[0].pid());
    assert_eq!(cores.len(), 2);
    assert!(cores.iter().all(|list| list.parse::<u32>().is_ok()), "one core each: {cores:?}");
    cores.dedup();
    let machine = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(cores.len(), machine.min(2), "not the same one while there are others: {cores:?}");
}

/// The cores that each worker of this process may run on: `Cpus_allowed_list` of proc_pid_status(5).
fn workers_cores(process: u32) -> Vec<String> {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("the agent runs").flatten();
    let workers = threads.filter(|thread| read(thread.path().join("comm")).starts_with("warren-worker-"));
    let allowed = |status: String| {
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(|list| list.trim().to_owned())
    };
    workers.filter_map(|thread| allowed(read(thread.path().join("status")))).collect()
}

/// Two agents whose `[overlay]` says these things.
struct Pair {
    lab: Lab,
    nodes: [Node; 2],
    pods: [Pod; 2],
    agents: Vec<Agent>,
    sniffer: Sniffer,
}

fn pair(overlay: [&[(&str, &str)]; 2]) -> Pair {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh_with(&nodes, |node, settings| {
        for (key, value) in overlay[usize::from(node.number) - 1] {
            settings.set("overlay", key, value);
        }
    });
    Pair { lab, nodes, pods, agents, sniffer }
}

impl Pair {
    fn reached(&self) -> bool {
        ping(self.pods[0].namespace(), self.pods[1].address())
    }

    /// `warren verify` of the other node on this one.
    #[track_caller]
    fn verifies(&self, number: usize, code: i32, words: &[&str]) {
        let verify = self.agents[number].cli(&["verify", ["node2", "node1"][number]]);
        assert_eq!(verify.status.code(), Some(code), "{}", verify.said());
        for word in words {
            assert!(verify.stdout.contains(word), "{word:?} is missing:\n{}", verify.stdout);
        }
    }

    fn until_associated(&self) {
        let other = ["node2", "node1"];
        for (agent, other) in self.agents.iter().zip(other) {
            agent.until("data goes on associations", |status| {
                self.reached();
                status.suite(other).is_some()
            });
        }
    }
}

#[test]
fn one_without_associations_and_one_with_them_talk_in_the_tunnel() {
    let pair = pair([&[("associations", "\"off\"")], &[]]);
    assert!(pair.reached());
    transfer(pair.pods[0].namespace(), pair.pods[1].namespace(), pair.pods[1].address(), 50);
    let (off, willing) = (pair.agents[0].now(), pair.agents[1].now());
    assert_eq!(willing.suite("node1"), None);
    assert_eq!((off.data("node2"), willing.data("node1")), (Some("tunnel"), Some("tunnel")));
    assert!(off.why_tunnel("node2").is_some_and(|why| why.contains("off here")), "{:?}", off.why_tunnel("node2"));
    assert!(willing.why_tunnel("node1").is_some());
    pair.verifies(0, 0, &["data          tunnel", "post-quantum  no", "encrypted     yes", "ChaCha20-Poly1305"]);
    pair.sniffer.assert_encrypted();
    drop(pair.lab);
}

#[test]
fn a_pinned_suite_is_used() {
    for suite in ["aes-256-gcm", "chacha20-poly1305"] {
        let toml = format!("\"{suite}\"");
        let pair = pair([&[("suite", &toml)], &[]]);
        pair.until_associated();
        assert_eq!(pair.agents[0].now().suite("node2"), Some(suite));
        assert_eq!(pair.agents[1].now().suite("node1"), Some(suite));
        assert!(pair.reached());
        pair.verifies(0, 0, &["data          associations", suite, "post-quantum  yes", "encrypted     yes"]);
        pair.sniffer.assert_encrypted();
    }
}

#[test]
fn with_require_nothing_travels_outside_of_an_association() {
    let pair = pair([&[("associations", "\"require\"")], &[("associations", "\"off\"")]]);
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(!ping(pair.pods[from].namespace(), pair.pods[to].address()));
    }
    pair.agents[0].until("it is counted by name", |status| status.drops("no_association") > 1);
    pair.verifies(0, 2, &["session       yes", "data          dropped", "encrypted     NO", "no_association"]);
    assert_eq!(pair.agents[0].now().data("node2"), Some("dropped"));
    pair.sniffer.assert_nothing_in_clear();
}

#[test]
fn two_that_pin_different_suites_do_not_talk() {
    let pair = pair([&[("suite", "\"aes-256-gcm\"")], &[("suite", "\"chacha20-poly1305\"")]]);
    for _ in 0..3 {
        assert!(!pair.reached());
    }
    for (number, other) in [(0, "node2"), (1, "node1")] {
        pair.agents[number].until("it is said why", |status| {
            pair.reached();
            status.why_tunnel(other).is_some_and(|why| why.contains("no suite in common"))
        });
        pair.verifies(number, 2, &["dropped", "no suite in common", "encrypted     NO"]);
    }
    pair.sniffer.assert_nothing_in_clear();
}

#[test]
fn a_restarted_agent_is_sent_to_on_new_associations_at_once() {
    let mut pair = pair([&[], &[]]);
    pair.until_associated();
    for restarted in [0, 1] {
        let peer = ["node2", "node1"][1 - restarted];
        pair.agents[restarted].kill();
        pair.agents[restarted].up();
        eventually(8, "the Pods reach each other again", || pair.reached().then_some(()));
        pair.until_associated();
        pair.agents[1 - restarted].until("the new ones are young", |status| {
            status.peer(peer).is_some_and(|peer| peer["association"]["age"].as_u64().is_some_and(|age| age < 10))
        });
    }
    transfer(pair.pods[0].namespace(), pair.pods[1].namespace(), pair.pods[1].address(), 50);
    pair.sniffer.assert_encrypted();
}

#[test]
fn a_peer_that_moves_is_followed_on_its_associations() {
    let pair = pair([&[], &[]]);
    pair.until_associated();
    let node = pair.nodes[0].namespace();
    // Everything that node1 sends has another source port from now on, as behind a NAT that forgot.
    node.nft(
        "add table ip moved; add chain ip moved out { type nat hook postrouting priority 100; }; \
         add rule ip moved out udp sport 51840 masquerade to :40000",
    );
    node.run(&["conntrack", "-D", "-p", "udp"]);
    eventually(20, "the Pods reach each other by the new way", || pair.reached().then_some(()));
    pair.agents[1].until("the new way is known", |status| {
        pair.reached();
        status.peer("node1").is_some_and(|peer| peer["endpoint"].as_str().is_some_and(|at| at.ends_with(":40000")))
    });
    pair.sniffer.assert_nothing_in_clear();
}
