//! etcd goes away, comes back, forgets: traffic does not notice, and nothing is in clear.
//!
//! ```text
//!           etcd  ✂
//! pod ── node1 ══╗  │       ╔══ node2 ── pod
//!                ╠══ hub ═══╣
//! pod ── node3 ══╝  sniffer
//! ```

use warren_tests::iperf::Iperf;
use warren_tests::{Etcd, EtcdMesh, Plan, eventually, holds_for, long, ping};

/// What happens to etcd while Pods talk.
fn under_traffic(what: impl FnOnce(&mut EtcdMesh)) {
    let mut mesh = EtcdMesh::start(Plan::default(), 3);
    mesh.sniffer.headers_only();
    let seconds = long::outage() + 5;
    let (from, to) = (mesh.pods[0].namespace(), mesh.pods[1].namespace());
    let iperf = Iperf::start(from, to, mesh.pods[1].address(), seconds, "50M");
    what(&mut mesh);
    let report = iperf.finish();
    let slowest = report.seconds.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(slowest * 8.0 > 25e6, "a second of the transfer fell below half its rate: {:?}", report.seconds);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn traffic_does_not_notice_that_etcd_is_gone_and_comes_back() {
    under_traffic(|mesh| {
        mesh.etcd.kill();
        holds_for(long::outage(), "Pods reach each other without etcd", || all_reached(mesh));
        mesh.agents[0].until("the outage is reported", |status| status.registry_ok("etcd") == Some(false));
        mesh.etcd.up();
        mesh.agents[0].within(30, "etcd is back", |status| status.registry_ok("etcd") == Some(true));
    });
}

#[test]
fn traffic_does_not_notice_that_etcd_no_longer_answers() {
    under_traffic(|mesh| {
        mesh.etcd.pause();
        holds_for(long::outage(), "Pods reach each other without etcd", || all_reached(mesh));
        mesh.etcd.resume();
    });
}

#[test]
fn a_watcher_that_was_cut_off_while_the_store_was_compacted_reads_everything_anew() {
    let mut mesh = EtcdMesh::start(Plan::default(), 3);
    cut_off(&mesh);
    // Meanwhile a node gets a new key, and the store forgets how that came about.
    mesh.agents[2].terminate();
    mesh.nodes[2].rekey();
    mesh.agents[2].up();
    let key = mesh.nodes[2].public_key().to_string();
    mesh.agents[1].until("the new key is published", |status| {
        status.peer("node3").is_some_and(|peer| peer["public_key"] == key.as_str())
    });
    for number in 0..20 {
        mesh.etcd.put("/elsewhere", &number.to_string());
    }
    mesh.etcd.compact();
    mesh.nodes[0].namespace().run(&["nft", "delete", "table", "inet", "cut"]);
    mesh.agents[0].within(60, "the new key is known", |status| {
        status.peer("node3").is_some_and(|peer| peer["public_key"] == key.as_str())
    });
    mesh.until_reached(0, 2);
    mesh.assert_connected();
    mesh.finish();
}

/// Drops everything between the first node and etcd, in silence.
fn cut_off(mesh: &EtcdMesh) {
    mesh.nodes[0].namespace().nft(
        "table inet cut { chain in { type filter hook input priority -300; tcp sport 2379 drop; }
         chain out { type filter hook output priority -300; tcp dport 2379 drop; }\n}",
    );
}

#[test]
fn a_store_that_was_wiped_takes_no_peer_away() {
    let mut mesh = EtcdMesh::start(Plan::default(), 3);
    mesh.assert_connected();
    mesh.etcd.wipe();
    holds_for(5, "Pods reach each other though the store is empty", || all_reached(&mesh));
    mesh.etcd.init(&mesh.lab, &[]);
    mesh.nodes.iter().for_each(|node| mesh.etcd.add(node));
    mesh.agents[0].stays(5, "no peer is forgotten", |status| status.peers().len() == 2);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn a_prefix_stays_with_its_node_when_a_wiped_store_gives_it_to_another() {
    let mut mesh = EtcdMesh::start(Plan::default(), 2);
    mesh.assert_connected();
    mesh.etcd.wipe();
    let back = |etcd: &Etcd| etcd.ctl(&["get", "--prefix", "/warren/lab/v1/cluster"]).contains("networks");
    eventually(30, "an agent puts the cluster back", || back(&mesh.etcd).then_some(()));
    mesh.etcd.put(&mesh.etcd.allocation_key("10.42.2.128/25"), &mesh.etcd.allocation_value("thief"));
    mesh.agents[0].within(30, "the thief's claim is refused", |status| {
        status.value()["refusals"].to_string().contains("10.42.2.128/25")
    });
    holds_for(3, "the prefix stays with its node", || ping(mesh.pods[0].namespace(), mesh.pods[1].address()));
    mesh.finish();
}

#[test]
fn a_store_restored_from_an_older_snapshot_is_brought_up_to_date() {
    let mut mesh = EtcdMesh::start(Plan::default(), 2);
    let snapshot = mesh.etcd.snapshot();
    // What the snapshot does not know: a third node, and a new key of the second.
    let node = mesh.lab.node();
    mesh.etcd.add(&node);
    mesh.pods.push(node.pod());
    mesh.agents.push(node.start(&mesh.etcd.settings(&node)));
    mesh.nodes.push(node);
    mesh.agents[1].terminate();
    mesh.nodes[1].rekey();
    mesh.agents[1].up();
    mesh.until_reached(0, 2);
    mesh.until_reached(0, 1);
    mesh.etcd.restore(&snapshot);
    let key = mesh.nodes[1].public_key().to_string();
    let published = || mesh.etcd.ctl(&["get", "--prefix", "/warren/lab/"]).contains(&key);
    eventually(60, "the newer record is published again", || published().then_some(()));
    holds_for(3, "the old key stays away", || ping(mesh.pods[0].namespace(), mesh.pods[1].address()));
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn an_agent_that_starts_while_etcd_is_down_joins_its_peers_from_disk() {
    let mut mesh = EtcdMesh::start(Plan::default(), 3);
    mesh.assert_connected();
    mesh.etcd.kill();
    for agent in &mut mesh.agents {
        agent.kill();
        agent.up();
    }
    for agent in &mesh.agents {
        agent.until("ready with all peers", |status| status.ready() && status.peers().len() == 2);
    }
    mesh.until_reached(0, 1);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn an_agent_that_never_saw_the_cluster_says_what_to_do() {
    let lab = warren_tests::Lab::new();
    let etcd = Etcd::start(&lab);
    let node = lab.node();
    let agent = node.start(&etcd.settings(&node));
    eventually(15, "the agent says that there is no cluster yet", || {
        let said = agent.status().map(|status| status.value().to_string()).unwrap_or_default() + &agent.log();
        said.contains("cluster init").then_some(())
    });
}

fn all_reached(mesh: &EtcdMesh) -> bool {
    mesh.pods[1..].iter().all(|to| ping(mesh.pods[0].namespace(), to.address()))
}
