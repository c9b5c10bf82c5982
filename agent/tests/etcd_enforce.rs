//! `warren cluster enforce` against a real etcd: from permissive to strict when nobody is cut off by it, back always.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod etcd_space;

use std::process::Output;

use etcd_space::node::record;
use etcd_space::{CLUSTER, Store, scenario};
use warren_agent::registry::etcd::{Keys, connect, put_cluster};
use warren_overlay::mesh::Cluster;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A permissive cluster with these nodes, of which none has an agent.
fn rolling_out(nodes: &[&str]) -> Store {
    let store = Store::start();
    store.administer(&["init", "--network", "10.0.0.0/16", "--permissive"]);
    for node in nodes {
        store.administer(&["add-node", node]);
    }
    store
}

/// What the node's agent would publish.
fn publish(store: &Store, number: u8, name: &str) {
    let mut record = record(name, &format!("192.0.2.{number}"));
    record.cidrs = [format!("10.0.{number}.0/24").parse().expect("a prefix")].into();
    store.put(&format!("nodes/{name}"), &String::from_utf8(record.to_bytes()).expect("JSON"));
}

#[track_caller]
fn refuses(store: &Store, words: &[&str], expected: &[&str]) {
    let before = store.get("cluster");
    let refused = store.cluster(words);
    assert_eq!(refused.status.code(), Some(2), "{words:?}: {}", said(&refused));
    for part in expected {
        assert!(said(&refused).contains(part), "{words:?} does not say {part:?}: {}", said(&refused));
    }
    assert_eq!(store.get("cluster"), before, "{words:?} was refused and changed the cluster");
}

#[test]
fn strict_is_refused_by_name_until_every_node_has_a_record_that_others_accept() {
    let store = rolling_out(&["a", "b", "c"]);
    let permissive = store.get("cluster");
    let missing = ["strict would cut off 3 nodes", "  a: there is no record", "  c: there is no record", "--force"];
    refuses(&store, &["enforce", "strict"], &missing);
    publish(&store, 0, "a");
    publish(&store, 1, "b");
    store.put("nodes/c", "nonsense");
    refuses(&store, &["enforce", "strict"], &["cut off a node", "  c: its record is refused: ", "(malformed)"]);
    refuses(&store, &["init", "--network", "10.0.0.0/16", "--change"], &["  c: its record is refused: "]);
    publish(&store, 2, "c");
    let done = store.administer(&["enforce", "strict"]);
    assert!(done.contains("is strict: ") && done.contains("nodes that ought to have an agent: 3"), "{done}");
    assert!(done.contains("no agent of this cluster answers on this host"), "{done}");
    assert_eq!(store.get("cluster"), permissive.replace("permissive", "strict"), "and nothing else");
    assert!(store.administer(&["enforce", "strict"]).contains("is strict already"));
    store.delete("nodes/c");
    store.administer(&["enforce", "permissive"]);
    assert_eq!(store.get("cluster"), permissive);
}

#[test]
fn whoever_forces_strict_is_told_who_is_cut_off_and_a_node_that_is_gone_for_good_is_released() {
    let nodes: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
    let store = rolling_out(&nodes.iter().map(String::as_str).collect::<Vec<_>>());
    refuses(&store, &["enforce", "strict"], &["cut off 10 nodes", "  n0: ", "  n7: ", "  and 2 more"]);
    let forced = store.administer(&["enforce", "strict", "--force"]);
    assert!(forced.contains("cut off until their agents run:\n  n0: ") && forced.contains("  and 2 more"), "{forced}");
    store.administer(&["enforce", "permissive"]);
    for node in &nodes[1..] {
        store.administer(&["release", node]);
    }
    publish(&store, 0, "n0");
    store.administer(&["enforce", "strict"]);
    assert!(store.get("cluster").contains("\"strict\""));
}

#[test]
fn there_is_nothing_to_enforce_before_the_cluster_is_set_up() {
    let store = Store::start();
    for enforcement in ["strict", "permissive"] {
        refuses(&store, &["enforce", enforcement], &["run `warren cluster init` first"]);
    }
    assert_eq!(store.cluster(&["enforce", "lax"]).status.code(), Some(64));
}

#[test]
fn who_saw_the_cluster_before_somebody_else_changed_it_changes_nothing() {
    scenario(async {
        let store = rolling_out(&[]);
        let (mut client, keys) = (connect(&store.config()).await.expect("etcd answers"), Keys::new(CLUSTER));
        let found = client.get(keys.cluster(), None).await.expect("etcd answers");
        let seen = found.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision);
        store.administer(&["init", "--network", "10.1.0.0/16", "--permissive", "--change"]);
        let changed = store.get("cluster");
        for seen in [seen, 0] {
            let written = put_cluster(&mut client, &keys, &Cluster::default(), seen).await;
            assert!(!written.expect("etcd answers") && store.get("cluster") == changed);
        }
    });
}
