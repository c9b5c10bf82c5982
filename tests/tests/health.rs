//! `/livez`, `/readyz` and `/metrics`, asked as a kubelet and a Prometheus do.
//!
//! ```text
//! GET ──► 127.0.0.1:9587, :9586 ── agent on node1 ═══ hub ═══ node2
//!                                        └── etcd ──┘
//! ```

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use warren_tests::http::{self, Reply};
use warren_tests::openmetrics::Exposition;
use warren_tests::{
    Agent, Etcd, EtcdMesh, Lab, Node, Plan, command, eventually, holds_for, ping, static_mesh, static_mesh_with,
    static_settings,
};

/// How long a node may take to be ready; more than it waits for the dead.
const READY_SECONDS: u64 = 60;

fn probes() -> SocketAddr {
    "127.0.0.1:9587".parse().expect("an address")
}

fn metrics() -> SocketAddr {
    "127.0.0.1:9586".parse().expect("an address")
}

fn probe(node: &Node, path: &str) -> Option<Reply> {
    http::get(node.namespace(), probes(), path)
}

fn status(node: &Node, path: &str) -> u16 {
    probe(node, path).map_or(0, |reply| reply.status)
}

#[track_caller]
fn until_ready(node: &Node) {
    let mut last = None;
    let began = Instant::now();
    while status(node, "/readyz") != 200 {
        last = probe(node, "/readyz").or(last);
        assert!(began.elapsed().as_secs() < READY_SECONDS, "{} is not ready: {last:?}", node.name);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Waits until readiness fails, and fails by this check.
#[track_caller]
fn until_unready(node: &Node, check: &str) {
    eventually(30, &format!("{} is not ready because of {check}", node.name), || {
        let reply = probe(node, "/readyz")?;
        (reply.status == 503 && reply.body.contains(&format!("[-]{check} failed: "))).then_some(())
    });
}

/// What is exposed now, which must be in the format.
#[track_caller]
fn scrape(node: &Node) -> Exposition {
    let reply = eventually(10, "the agent listens", || http::get(node.namespace(), metrics(), "/metrics"));
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.head.contains("application/openmetrics-text"), "{reply:?}");
    Exposition::parse(&reply.body).unwrap_or_else(|error| panic!("{error}\n{}", reply.body))
}

/// Waits until a series is so.
#[track_caller]
fn until(node: &Node, name: &str, labels: &[(&str, &str)], holds: impl Fn(f64) -> bool) -> f64 {
    eventually(30, &format!("{name} {labels:?} is as it should be"), || {
        scrape(node).value(name, labels).filter(|value| holds(*value))
    })
}

#[test]
fn nodes_are_ready_when_the_mesh_stands_and_metrics_show_what_passes() {
    let mesh = EtcdMesh::start(Plan::default(), 2);
    mesh.nodes.iter().for_each(until_ready);
    let [one, two] = [&mesh.nodes[0], &mesh.nodes[1]];
    assert_eq!(probe(one, "/readyz").map(|reply| reply.body).as_deref(), Some("ok\n"));
    let said = probe(one, "/readyz?verbose").map(|reply| reply.body).unwrap_or_default();
    for check in ["device", "guard", "host", "routes", "mesh", "peers"] {
        assert!(said.contains(&format!("[+]{check} ok\n")), "{said}");
        assert_eq!(scrape(one).value("warren_check", &[("check", check)]), Some(1.0), "{check}");
    }
    let said = probe(one, "/livez?verbose").map(|reply| reply.body).unwrap_or_default();
    assert_eq!(said, "[+]control ok\n[+]threads ok\nlivez check passed\n");
    assert!(ping(mesh.pods[0].namespace(), mesh.pods[1].address()));
    let peer = [("peer", "node2")];
    until(one, "warren_peer_sent_bytes_total", &peer, |bytes| bytes > 0.0);
    until(one, "warren_peer_received_packets_total", &peer, |packets| packets > 0.0);
    until(one, "warren_received_bytes_total", &[], |bytes| bytes > 0.0);
    until(one, "warren_peer_up", &peer, |up| up == 1.0);
    let key = two.public_key().to_string();
    let wireguard = [("interface", "warren0"), ("public_key", key.as_str()), ("friendly_name", "node2")];
    until(one, "wireguard_received_bytes_total", &wireguard, |bytes| bytes > 0.0);
    until(one, "wireguard_sent_bytes_total", &wireguard, |bytes| bytes > 0.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs_f64();
    let recent = |at: f64| (now - 300.0..now + 300.0).contains(&at);
    until(one, "wireguard_latest_handshake_seconds", &wireguard, recent);
    until(one, "warren_peer_last_handshake_timestamp_seconds", &peer, recent);
    until(one, "warren_registry_last_contact_timestamp_seconds", &[("registry", "etcd")], recent);
    until(one, "warren_registry_up", &[("registry", "etcd")], |up| up == 1.0);
    let revision = u32::try_from(mesh.etcd.revision()).expect("a new store");
    until(one, "warren_registry_revision", &[("registry", "etcd")], |known| known > 0.0 && known <= revision.into());
    mesh.finish();
}

#[test]
fn data_on_associations_is_told_by_suite_and_lanes() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let _agents = static_mesh_with(&nodes, |_, settings| {
        settings.text("overlay", "suite", "chacha20-poly1305").set("workers", "count", 2);
    });
    eventually(30, "Pods reach each other", || ping(pods[0].namespace(), pods[1].address()).then_some(()));
    let labels = [("peer", "node2"), ("suite", "chacha20-poly1305")];
    until(&nodes[0], "warren_peer_lanes", &labels, |lanes| lanes == 2.0);
    let told = scrape(&nodes[0]);
    assert_eq!(told.value("warren_peer_post_quantum", &[("peer", "node2")]), Some(1.0));
    assert_eq!(told.value("warren_peers_by_suite", &[("suite", "chacha20-poly1305")]), Some(1.0));
    assert_eq!(told.value("warren_peers_by_suite", &[("suite", "tunnel")]), Some(0.0));
}

#[test]
fn a_node_is_live_and_ready_without_etcd_also_after_a_restart() {
    let mut mesh = EtcdMesh::start(Plan::default(), 2);
    mesh.nodes.iter().for_each(until_ready);
    mesh.etcd.kill();
    until(&mesh.nodes[0], "warren_registry_up", &[("registry", "etcd")], |up| up == 0.0);
    holds_for(5, "it is live and ready", || {
        ["/livez", "/readyz"].iter().all(|path| status(&mesh.nodes[0], path) == 200)
    });
    mesh.agents[0].kill();
    mesh.agents[0].up();
    until_ready(&mesh.nodes[0]);
    assert_eq!(status(&mesh.nodes[0], "/livez"), 200);
    mesh.until_reached(0, 1);
    mesh.finish();
}

#[test]
fn a_node_that_knows_no_mesh_yet_is_live_and_becomes_ready_with_it() {
    let lab = Lab::new();
    let mut etcd = Etcd::start(&lab);
    etcd.init(&lab, &[]);
    let node = lab.node();
    etcd.add(&node);
    etcd.kill();
    let agent = node.start(&etcd.settings(&node));
    until_unready(&node, "mesh");
    until_unready(&node, "peers");
    assert_eq!(status(&node, "/livez"), 200);
    until(&node, "warren_ready", &[], |ready| ready == 0.0);
    etcd.up();
    until_ready(&node);
    drop(agent);
}

#[test]
fn a_dead_peer_is_waited_for_but_not_for_ever() {
    let lab = Lab::new();
    let nodes: [Node; 3] = lab.nodes();
    let settings = static_settings(&nodes);
    let mut agents: Vec<Agent> =
        nodes[..2].iter().zip(&settings).map(|(node, settings)| node.start(settings)).collect();
    until_unready(&nodes[0], "peers");
    let said = || probe(&nodes[0], "/readyz").map(|reply| reply.body).unwrap_or_default();
    eventually(30, "only the dead one is waited for", || said().contains("no handshake yet with node3;").then_some(()));
    nodes[..2].iter().for_each(until_ready);
    // Once it was ready, peers that fail are their own matter.
    agents[1].kill();
    holds_for(5, "it stays ready", || status(&nodes[0], "/readyz") == 200);
}

/// A launcher whose `nft` fails for as long as a file exists: the launcher and the file.
fn failing_nft(folder: &Path) -> (PathBuf, PathBuf) {
    let (bin, flag) = (folder.join("bin"), folder.join("nft-fails"));
    std::fs::create_dir_all(&bin).expect("the folder is ours");
    let script = |path: &Path, text: String| {
        std::fs::write(path, text).expect("the folder is ours");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("the file is ours");
    };
    let nft = command::run(&["sh", "-c", "PATH=$PATH:/usr/sbin:/sbin command -v nft"]);
    script(&bin.join("nft"), format!("#!/bin/sh\n[ -e {} ] && exit 1\nexec {} \"$@\"\n", flag.display(), nft.trim()));
    let launcher = folder.join("launch");
    script(&launcher, format!("#!/bin/sh\nPATH={}:$PATH exec \"$@\"\n", bin.display()));
    (launcher, flag)
}

#[test]
fn a_node_is_not_ready_while_its_guard_is_missing() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let settings = static_settings(&nodes);
    let (launcher, flag) = failing_nft(nodes[0].folder());
    let launcher = launcher.display().to_string();
    let _agents = [Agent::start_by(&[launcher.as_str()], &nodes[0], &settings[0]), nodes[1].start(&settings[1])];
    until_ready(&nodes[0]);
    until(&nodes[0], "warren_guard_active", &[], |active| active == 1.0);
    std::fs::write(&flag, "").expect("the folder is ours");
    nodes[0].namespace().run(&["nft", "delete", "table", "inet", "warren"]);
    until_unready(&nodes[0], "guard");
    until(&nodes[0], "warren_guard_active", &[], |active| active == 0.0);
    until(&nodes[0], "warren_check", &[("check", "guard")], |passes| passes == 0.0);
    assert_eq!(status(&nodes[0], "/livez"), 200, "a restart would not help");
    std::fs::remove_file(&flag).expect("it was just made");
    until_ready(&nodes[0]);
    // With `nft` at hand it is put back at once, and counted.
    nodes[0].namespace().run(&["nft", "delete", "table", "inet", "warren"]);
    until(&nodes[0], "warren_drift_repairs_total", &[], |repairs| repairs > 0.0);
    until_ready(&nodes[0]);
}

#[test]
fn what_is_no_probe_is_refused_and_harms_nobody() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh(&nodes);
    until_ready(&nodes[0]);
    let say = |to, bytes: &str| http::say(nodes[0].namespace(), to, bytes.as_bytes()).expect("the agent listens");
    for (to, path) in [(probes(), "/livez"), (probes(), "/readyz"), (metrics(), "/metrics")] {
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(say(to, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")).status, 405, "{method} {path}");
        }
        let huge = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(9 << 10));
        assert_eq!(say(to, &huge).status, 431);
        assert_ne!(say(to, &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20))).status, 200);
        assert_eq!(http::get(nodes[0].namespace(), to, "/").map(|reply| reply.status), Some(404));
    }
    assert_eq!(status(&nodes[0], "/metrics"), 404, "where probes are answered");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", agents[0].pid())).map_or(0, Iterator::count);
    let before = descriptors();
    // A crowd that says a little each, and nothing more.
    let mut crowd: Vec<_> = (0..100).filter_map(|_| http::connect(nodes[0].namespace(), probes())).collect();
    crowd.iter_mut().for_each(|stream| drop(stream.write_all(b"GET /livez HTTP/1.1\r\nX: ")));
    let began = Instant::now();
    assert_eq!((status(&nodes[0], "/livez"), status(&nodes[0], "/readyz")), (200, 200));
    assert!(began.elapsed().as_secs() < 5, "the crowd kept a probe waiting for {:?}", began.elapsed());
    drop(crowd);
    for _ in 0..500 {
        assert_eq!(status(&nodes[0], "/nothing"), 404);
    }
    eventually(20, "their descriptors are closed", || (descriptors() <= before).then_some(()));
    assert!(ping(pods[0].namespace(), pods[1].address()) && agents[0].now().ready());
}

#[test]
fn listeners_are_where_the_file_says_and_nowhere_else() {
    let lab = Lab::new();
    let node = lab.node();
    let everywhere = SocketAddr::new(node.address(), 9100);
    let mut settings = node.settings();
    settings.text("health", "listen", "off").text("metrics", "listen", everywhere).set("metrics", "per_peer", false);
    let agent = node.start(&settings);
    agent.ready();
    let reply = eventually(10, "metrics are answered", || http::get(lab.hub(), everywhere, "/metrics"));
    let told = Exposition::parse(&reply.body).unwrap_or_else(|error| panic!("{error}\n{}", reply.body));
    assert!(told.samples().all(|(_, labels)| !labels.contains_key("peer") && !labels.contains_key("public_key")));
    assert!(probe(&node, "/livez").is_none() && http::get(node.namespace(), metrics(), "/metrics").is_none());
    assert_eq!(http::get(lab.hub(), everywhere, "/livez").map(|reply| reply.status), Some(404));
}

#[test]
fn an_address_that_is_taken_is_a_problem_and_no_reason_not_to_carry_traffic() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let holder = nodes[0].namespace().enter(|| TcpListener::bind(metrics())).expect("it is free");
    let agents = static_mesh(&nodes);
    agents[0].until("the problem is told", |status| {
        status
            .problems()
            .iter()
            .any(|problem| problem.contains("metrics.listen") && problem.contains("another program"))
    });
    until_ready(&nodes[0]);
    assert!(ping(pods[0].namespace(), pods[1].address()));
    drop(holder);
    agents[0].until("the problem is gone", |status| status.problems().is_empty());
    scrape(&nodes[0]);
}

#[test]
fn what_passes_in_clear_during_a_roll_out_is_counted_by_node_until_its_agent_runs() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let etcd = Etcd::start(&lab);
    etcd.init(&lab, &["--permissive"]);
    nodes.iter().for_each(|node| etcd.add(node));
    let one = nodes[0].start(&etcd.settings(&nodes[0]));
    until_ready(&nodes[0]);
    let way = |name: &str, holds: &dyn Fn(f64) -> bool| until(&nodes[0], name, &[("peer", "node2")], holds);
    way("warren_peer_in_clear_sent_packets_total", &|packets| packets == 0.0);
    assert!(ping(pods[0].namespace(), pods[1].address()), "in clear, as long as there is no agent");
    let sent = way("warren_peer_in_clear_sent_packets_total", &|packets| packets > 0.0);
    let received = way("warren_peer_in_clear_received_packets_total", &|packets| packets > 0.0);
    let passed = until(&nodes[0], "warren_guard_passed_packets_total", &[], |packets| packets > 0.0);
    assert!(sent + received <= passed, "{sent} and {received} of {passed}");
    let two = nodes[1].start(&etcd.settings(&nodes[1]));
    eventually(30, "the pair is held to its tunnel", || {
        ping(pods[0].namespace(), pods[1].address());
        let told = scrape(&nodes[0]);
        let counted = told.value("warren_peer_in_clear_sent_packets_total", &[("peer", "node2")]);
        (counted.is_none() && told.value("warren_peer_up", &[("peer", "node2")]) == Some(1.0)).then_some(())
    });
    for mut agent in [one, two] {
        agent.kill();
        agent.cleanup();
    }
    let tables = nodes[0].namespace().run(&["nft", "list", "tables"]);
    assert!(!tables.contains("warren"), "{tables}");
}
