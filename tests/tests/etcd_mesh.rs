//! Agents that find each other in a real etcd.
//!
//! ```text
//!           etcd
//! pod ── node1 ══╗  │       ╔══ node2 ── pod
//!                ╠══ hub ═══╣
//! pod ── node3 ══╝  sniffer ╚══ …
//! ```

use warren_tests::ping::answered;
use warren_tests::{Etcd, EtcdMesh, Family, Lab, Node, Plan, between, eventually, ping};

#[test]
fn three_nodes_find_each_other_in_etcd() {
    let mesh = EtcdMesh::start(Plan::default(), 3);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn eight_nodes_find_each_other_and_stay_small() {
    let mesh = EtcdMesh::start(Plan::default(), 8);
    mesh.assert_connected();
    for agent in &mesh.agents {
        assert!(agent.resident() < 20 << 10, "an agent takes {} KiB", agent.resident());
    }
}

#[test]
fn dual_stack_nodes_carry_both_versions_of_ip() {
    let mesh = EtcdMesh::start(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() }, 3);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn an_ipv6_underlay_carries_everything_even_etcd() {
    let mesh = EtcdMesh::start(Plan { underlay: Family::V6, overlay: Family::Dual, ..Plan::default() }, 2);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn a_node_that_joins_is_reached_by_those_that_are_there() {
    let mut mesh = EtcdMesh::start(Plan::default(), 2);
    let node = mesh.lab.node();
    mesh.pods.push(node.pod());
    mesh.etcd.add(&node);
    let began = std::time::Instant::now();
    mesh.agents.push(node.start(&mesh.etcd.settings(&node)));
    mesh.nodes.push(node);
    eventually(10, "the new node's Pod is reached", || {
        ping(mesh.pods[0].namespace(), mesh.pods[2].address()).then_some(())
    });
    println!("reached {:?} after its start", began.elapsed());
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn a_node_that_leaves_is_forgotten_and_its_prefix_stays_inside() {
    let mut mesh = EtcdMesh::start(Plan::default(), 3);
    mesh.assert_connected();
    let finished = mesh.agents[2].cli(&["leave"]);
    assert!(finished.success(), "`warren leave` failed: {}", finished.said());
    mesh.agents[2].kill();
    for agent in &mesh.agents[..2] {
        agent.until("the node that left is gone", |status| {
            status.peer("node3").is_none_or(|peer| peer["state"] == "vanished")
        });
    }
    assert!(!ping(mesh.pods[0].namespace(), mesh.pods[2].address()));
    assert!(ping(mesh.pods[0].namespace(), mesh.pods[1].address()));
    mesh.finish();
}

#[test]
fn a_node_that_comes_back_with_a_new_key_is_followed() {
    let mut mesh = EtcdMesh::start(Plan::default(), 3);
    mesh.assert_connected();
    mesh.agents[2].terminate();
    mesh.nodes[2].rekey();
    mesh.agents[2].up();
    let key = mesh.nodes[2].public_key().to_string();
    mesh.agents[0].until("the new key is known", |status| {
        status.peer("node3").is_some_and(|peer| peer["public_key"] == key.as_str())
    });
    mesh.until_reached(0, 2);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn a_node_that_comes_back_at_another_address_is_followed() {
    let mut mesh = EtcdMesh::start(Plan::default(), 3);
    mesh.assert_connected();
    mesh.agents[2].kill();
    let node = mesh.nodes[2].namespace();
    node.ip_batch("addr flush dev eth0\naddr add 10.77.0.33/24 dev eth0\nroute add default via 10.77.0.254\n");
    mesh.lab.hub().ip("route replace 10.42.3.0/24 via 10.77.0.33");
    let mut settings = mesh.etcd.settings(&mesh.nodes[2]);
    settings.list("node", "addresses", ["10.77.0.33"]);
    mesh.agents[2].configure(&settings);
    mesh.agents[2].up();
    mesh.agents[0].until("the new endpoint is known", |status| {
        status.peer("node3").and_then(|peer| peer["endpoint"].as_str()) == Some("10.77.0.33:51840")
    });
    mesh.until_reached(0, 2);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn a_node_that_gets_another_prefix_is_reached_there_and_no_longer_at_the_old_one() {
    let mut mesh = EtcdMesh::start(Plan::default(), 3);
    mesh.assert_connected();
    mesh.agents[2].terminate();
    for words in [&["release", "node3"][..], &["add-node", "node3", "--cidr", "10.42.33.0/24"]] {
        let finished = mesh.etcd.cluster(words);
        assert!(finished.success(), "`warren cluster {words:?}` failed: {}", finished.said());
    }
    let mut settings = mesh.etcd.settings(&mesh.nodes[2]);
    settings.list("node", "cidrs", ["10.42.33.0/24"]);
    mesh.agents[2].configure(&settings);
    mesh.agents[2].up();
    let (inside, outside) = (mesh.pods[2].namespace(), mesh.nodes[2].namespace());
    inside.ip("addr add 10.42.33.10/32 dev eth0");
    inside.ip("addr del 10.42.3.10/32 dev eth0");
    outside.ip("route add 10.42.33.10/32 dev pod1");
    outside.ip("route del 10.42.3.10/32 dev pod1");
    eventually(15, "the Pod is reached at its new address", || {
        ping(mesh.pods[0].namespace(), [10, 42, 33, 10].into()).then_some(())
    });
    assert!(!ping(mesh.pods[0].namespace(), mesh.pods[2].address()));
    mesh.finish();
}

#[test]
fn nodes_that_just_claimed_their_prefixes_lose_no_first_packet() {
    for round in 0..8 {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab);
        etcd.init(&lab, &[]);
        let nodes: [Node; 3] = lab.nodes();
        let pods = nodes.each_ref().map(Node::pod);
        let agents = nodes.each_ref().map(|node| node.start(&etcd.settings(node)));
        for agent in &agents {
            agent.until("ready with all peers", |status| status.ready() && status.peers().len() == 2);
        }
        let lost: u32 = std::thread::scope(|scope| {
            let ways = between(&pods).into_iter();
            let running: Vec<_> = ways.map(|(from, to)| scope.spawn(move || 3 - answered(from, to, 3, &[]))).collect();
            running.into_iter().map(|way| way.join().expect("ping ran")).sum()
        });
        let drops = agents.each_ref().map(|agent| agent.now().value()["drops"].to_string());
        assert_eq!(lost, 0, "round {round}: first echo requests were lost; drops by node: {drops:?}");
    }
}
