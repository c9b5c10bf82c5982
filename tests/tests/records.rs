//! What others write into the store: many records, racing claims, wrong and hostile ones, and records that vanish.
//!
//! ```text
//!           etcd ◄── an administrator, a stranger
//! pod ── node1 ══╗  │       ╔══ node2 ── pod
//!                ╠══ hub ═══╣
//! pod ── node3 ══╝  sniffer ╚══ …
//! ```

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Value, json};
use warren_crypto::PrivateKey;
use warren_tests::{Agent, Etcd, EtcdMesh, Lab, Node, Plan, Settings, holds_for, ping};

/// A record as a node of that number would publish it.
fn record(name: &str, cidr: &str) -> Value {
    json!({
        "version": 1,
        "name": name,
        "public_key": PrivateKey::generate().public_key().to_string(),
        "endpoints": ["10.77.0.200:51840"],
        "addresses": ["10.77.0.200"],
        "cidrs": [cidr],
        "mtu": 1440,
        "workers": 1,
    })
}

#[test]
fn five_thousand_records_are_read() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab);
    etcd.init(&lab, &[]);
    let node = lab.node();
    etcd.add(&node);
    let others: Vec<(String, String)> = (0..5000u32).map(other).collect();
    let puts = others.iter().flat_map(|(name, cidr)| {
        let mut record = record(name, cidr);
        record["endpoints"] = json!([format!("10.99.{}:51840", &name[5..].replace('-', "."))]);
        record["addresses"] = json!([format!("10.99.{}", &name[5..].replace('-', "."))]);
        [
            put(&etcd.allocation_key(cidr), &etcd.allocation_value(name)),
            put(&etcd.record_key(name), &record.to_string()),
        ]
    });
    etcd.transact(&puts.collect::<Vec<_>>());
    let agent = node.start(&etcd.settings(&node));
    agent.within(60, "every record is read", |status| status.ready() && status.peers().len() == 5000);
}

/// The name and prefix of one of many nodes.
fn other(number: u32) -> (String, String) {
    let [.., high, low] = number.to_be_bytes();
    (format!("node-{high}-{low}"), format!("10.42.{}.{}/29", 16 + (number >> 5), (number & 31) * 8))
}

/// A line of a transaction.
fn put(key: &str, value: &str) -> String {
    format!("put {key} {}", Value::String(value.to_owned()))
}

#[test]
fn ten_nodes_that_allocate_at_once_get_ten_prefixes() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab);
    etcd.init(&lab, &[]);
    let nodes: [Node; 10] = lab.nodes();
    let settings = |node: &Node| {
        let mut settings: Settings = etcd.settings(node);
        settings.text("node", "cidrs", "auto");
        settings
    };
    let agents = nodes.each_ref().map(|node| node.start(&settings(node)));
    for agent in &agents {
        agent.within(30, "a prefix of its own and nine peers", |status| {
            status.cidrs().len() == 1 && status.peers().len() == 9
        });
    }
    let own: BTreeSet<IpNet> = agents.iter().flat_map(cidrs).collect();
    assert_eq!(own.len(), 10, "some prefix was given twice: {own:?}");
}

fn cidrs(agent: &Agent) -> Vec<IpNet> {
    agent.now().cidrs().iter().map(|cidr| cidr.parse().expect("a prefix")).collect()
}

#[test]
fn of_two_overlapping_prefixes_claimed_at_once_one_is_given() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab);
    etcd.init(&lab, &[]);
    for round in 0..5 {
        let (wide, narrow) =
            (format!("10.42.{}.0/20", 16 * (round + 1)), format!("10.42.{}.0/24", 16 * (round + 1) + 3));
        let claim = |name: String, cidr: &str| etcd.cluster(&["add-node", &name, "--cidr", cidr]).success();
        let given = std::thread::scope(|scope| {
            let one = scope.spawn(|| claim(format!("wide{round}"), &wide));
            let two = scope.spawn(|| claim(format!("narrow{round}"), &narrow));
            [one, two].map(|claim| claim.join().expect("the command ran"))
        });
        assert!(given[0] != given[1], "round {round}: wide and narrow were given: {given:?}");
    }
}

#[test]
fn wrong_and_hostile_records_are_refused_by_name_and_touch_nobody() {
    let mesh = EtcdMesh::start(Plan::default(), 2);
    let etcd = &mesh.etcd;
    let own_key = mesh.nodes[1].public_key().to_string();
    let mut stolen_key = record("thief", "10.42.60.0/24");
    stolen_key["public_key"] = json!(own_key);
    let mut future = record("future", "10.42.61.0/24");
    future["version"] = json!(99);
    let mut loopback = record("loopback", "127.0.0.0/8");
    loopback["cidrs"] = json!(["127.0.0.0/8", "0.0.0.0/0"]);
    let oversized = format!("{{\"version\":1,\"name\":\"oversized\",\"agent\":\"{}\"}}", "x".repeat(9000));
    for (name, value) in [
        ("malformed", "{not json".to_owned()),
        ("shell", "$(reboot); `reboot` | reboot".to_owned()),
        ("oversized", oversized),
        ("future", future.to_string()),
        ("thief", stolen_key.to_string()),
        ("loopback", loopback.to_string()),
        ("mismatch", record("node2", "10.42.62.0/24").to_string()),
        ("greedy", record("greedy", "10.42.2.0/25").to_string()),
    ] {
        etcd.put(&etcd.record_key(name), &value);
    }
    let reasons = [
        "malformed",
        "oversized",
        "unknown_version",
        "duplicate_key",
        "reserved_range",
        "name_mismatch",
        "not_allocated",
    ];
    for agent in &mesh.agents {
        agent.until("every wrong record is refused by its reason", |status| {
            // On the node whose key was stolen it is its own.
            let refused =
                |reason: &str| status.refused(reason) || (reason == "duplicate_key" && status.refused("own_key"));
            reasons.iter().all(|reason| refused(reason))
        });
        agent.stays(2, "nobody else is touched", |status| {
            status.peer("node1").is_some() || status.peer("node2").is_some()
        });
    }
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn a_second_node_of_the_same_name_does_not_replace_the_first() {
    let mesh = EtcdMesh::start(Plan::default(), 2);
    let mut impostor = mesh.lab.node();
    impostor.name = "node2".to_owned();
    let mut settings = mesh.etcd.settings(&impostor);
    settings.list("node", "cidrs", mesh.nodes[1].cidrs());
    let agent = impostor.start(&settings);
    agent.until("the impostor says that its name is taken", |status| {
        status.refused("duplicate_name") || status.problems().iter().any(|problem| problem.contains("node2"))
    });
    holds_for(3, "the first stays", || ping(mesh.pods[0].namespace(), mesh.pods[1].address()));
    let key = mesh.nodes[1].public_key().to_string();
    assert_eq!(mesh.agents[0].now().peer("node2").map(|peer| peer["public_key"].clone()), Some(json!(key)));
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn most_records_deleted_at_once_is_held_until_an_administrator_agrees() {
    let mut mesh = EtcdMesh::start(Plan::default(), 6);
    mesh.assert_connected();
    // The agents are stopped from putting their records back: they are cut off from etcd, but not from each other.
    for node in &mesh.nodes[1..] {
        node.namespace()
            .nft("table inet cut { chain out { type filter hook output priority -300; tcp dport 2379 reject; }\n}");
    }
    for name in ["node2", "node3", "node4", "node5"] {
        mesh.etcd.ctl(&["del", &mesh.etcd.record_key(name)]);
    }
    mesh.agents[0].until("the change is held and reported", |status| status.held().is_some());
    holds_for(5, "everybody is still reached", || {
        mesh.pods[1..].iter().all(|to| ping(mesh.pods[0].namespace(), to.address()))
    });
    mesh.agents[1..].iter_mut().for_each(Agent::kill);
    let finished = mesh.agents[0].cli(&["mesh", "accept"]);
    assert!(finished.success(), "`warren mesh accept` failed: {}", finished.said());
    mesh.agents[0].until("the change is made", |status| status.held().is_none());
    mesh.finish();
}
