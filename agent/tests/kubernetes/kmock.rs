//! The registry against somebody else's idea of the Kubernetes API: kmock's.

use serde_json::json;
use warren_agent::registry::Known;
use warren_overlay::record::RECORD_MAX;

use crate::space::{Node, given, object, record, scenario};
use crate::stranger::{BLOCKS, NODES, RECORDS, Stranger};

/// A node that is published whole, and knows `b`. Some others are there, so that one or two are not most of them.
async fn up(server: &mut Stranger) -> Node {
    for (name, address) in [("b", "192.0.2.2"), ("p", "192.0.2.11"), ("q", "192.0.2.12"), ("r", "192.0.2.13")] {
        server.publish(&record(name, address));
    }
    let mut a = server.node("a", "192.0.2.1", "10.1.0.0/24");
    a.until("b is known and all is well", |a| a.sees("b").is_some() && a.is_well()).await;
    server.until("a is published", |server| server.get(RECORDS, "a").is_some_and(|a| a["status"].is_object())).await;
    a
}

/// What a node writes, what it hears, and how it goes.
fn a_life(versions: &'static str) {
    scenario(async move {
        let mut server = Stranger::start(versions);
        let mut a = up(&mut server).await;
        let (node, own) = (server.get(NODES, "a").expect("a Node"), server.get(RECORDS, "a").expect("a record"));
        assert_eq!(own["spec"]["publicKey"], a.record.public_key.to_string());
        assert_eq!(own["metadata"]["ownerReferences"][0]["uid"], node["metadata"]["uid"]);
        assert_eq!(own["status"]["conditions"][0]["type"], "Allocated");
        let block = server.get(BLOCKS, "10-1-0-0-24").expect("a block");
        assert_eq!(block["spec"], json!({"cidr": "10.1.0.0/24", "node": "a"}));
        assert_eq!(a.owner("10.1.0.0/24").as_deref(), Some("a"));
        let own_node = server.asked("WATCH", NODES);
        assert!(own_node.iter().all(|asked| asked["fieldSelector"] == "metadata.name=a") && !own_node.is_empty());

        let mut c = server.node("c", "192.0.2.3", "10.3.0.0/24");
        let key = c.record.public_key;
        a.until("another agent is told", |a| a.sees("c") == Some(key)).await;
        a.until("and its prefix", |a| a.owner("10.3.0.0/24").as_deref() == Some("c")).await;
        c.until("and it hears of both", |c| c.sees("a").is_some() && c.sees("b").is_some() && c.is_well()).await;
        let renewed = record("b", "192.0.2.2");
        server.change(RECORDS, "b", &object(&renewed, 2));
        a.until("a new key is told", |a| a.sees("b") == Some(renewed.public_key)).await;
        server.remove(RECORDS, "b");
        a.until("and who is gone", |a| a.sees("b").is_none()).await;
        c.leave().await;
        assert!(server.get(RECORDS, "c").is_none());
        a.until("who leaves is gone", |a| a.sees("c").is_none()).await;
    });
}

#[test]
fn nodes_find_each_other_by_way_of_a_server_that_others_wrote() {
    a_life("numbers");
}

#[test]
fn so_they_do_where_versions_are_no_numbers_and_every_watch_repeats_all_there_is() {
    a_life("words");
}

#[test]
fn a_watch_that_is_cut_goes_on_and_one_that_is_too_old_begins_anew() {
    scenario(async {
        let mut server = Stranger::start("numbers");
        let mut a = up(&mut server).await;
        let lists = server.lists();
        server.cut();
        server.publish(&record("c", "192.0.2.3"));
        a.until("what happened meanwhile is told", |a| a.sees("c").is_some()).await;
        assert_eq!(server.lists(), lists, "nothing was read again");
        server.expire();
        server.publish(&record("d", "192.0.2.4"));
        server.remove(RECORDS, "c");
        a.until("after an error in the watch all is known", |a| a.sees("d").is_some() && a.sees("c").is_none()).await;
        assert_eq!(server.lists(), lists + 1, "all was read again, once");
    });
}

#[test]
fn what_somebody_else_made_first_is_theirs() {
    scenario(async {
        let mut server = Stranger::start("numbers");
        server.block("10.1.0.0/24", "b");
        server.be(Some("blind"));
        let mut a = server.node("a", "192.0.2.1", "10.1.0.0/24");
        a.until("the block cannot be made", |a| a.says("WarrenBlock 10-1-0-0-24") && a.says("409")).await;
        server.be(Some("conflict"));
        a.until("the watch tells whose it is", |a| a.says("belongs to b")).await;
        assert_eq!(a.owner("10.1.0.0/24").as_deref(), Some("b"));
        let asked = server.asked("CREATE", BLOCKS).len();
        a.change(|record| record.mtu = 1380);
        a.until("a write that is refused is named", |a| a.says("WarrenNode cannot be written")).await;
        server.be(None);
        server
            .until("what was refused is written", |server| {
                server.get(RECORDS, "a").is_some_and(|a| a["spec"]["mtu"] == 1380)
            })
            .await;
        assert_eq!(server.asked("CREATE", BLOCKS).len(), asked, "what is another's is not asked for again");
    });
}

#[test]
fn a_server_that_is_slow_busy_or_lies_costs_no_peer() {
    scenario(async {
        let mut server = Stranger::start("numbers");
        server.be(Some("slow"));
        let mut a = up(&mut server).await;
        for (mood, words) in [("busy", "busy"), ("babbling", "is it one?"), ("lying", "is it one?")] {
            server.be(Some(mood));
            a.until(words, |a| a.says(words)).await;
            assert!(a.sees("b").is_some() && a.owner("10.1.0.0/24").is_some(), "{mood}");
        }
        server.be(None);
        server.publish(&record("c", "192.0.2.3"));
        a.until("what is new is told", |a| a.sees("c").is_some() && a.is_well()).await;
    });
}

#[test]
fn hostile_objects_harm_nobody() {
    scenario(async {
        let mut server = Stranger::start("numbers");
        for (name, spec) in [
            ("e1", json!("nonsense")),
            ("e2", json!({"version": 99})),
            ("e3", json!(null)),
            ("e4", json!({"agent": "x".repeat(2 * RECORD_MAX)})),
            ("\u{1b}[2J", json!({"publicKey": [1, 2]})),
        ] {
            let owners = json!([{"kind": 7}, "Node"]);
            server.put(
                RECORDS,
                json!({"metadata": {"name": name, "ownerReferences": owners}, "spec": spec, "status": []}),
            );
        }
        server.put(BLOCKS, json!({"metadata": {"name": "all"}, "spec": {"cidr": "0.0.0.0/0", "node": "evil"}}));
        server.put(BLOCKS, json!({"metadata": {"name": "10-2-0-0-24"}, "spec": {"cidr": ["10.2.0.0/24"], "node": 7}}));
        server.publish(&record("b", "192.0.2.2"));
        let mut a = server.node("a", "192.0.2.1", "10.1.0.0/24");
        a.until("the rest is known", |a| a.sees("b").is_some() && a.owner("10.1.0.0/24").as_deref() == Some("a")).await;
        a.until("what is damaged is named", |a| a.says("\"all\"") && a.says("\"10-2-0-0-24\"")).await;
        let told = a.snapshot.clone().expect("told");
        assert!(told.allocations.iter().all(|given| given.node.as_str() != "evil"));
        assert!(told.entries.iter().all(|entry| entry.value.len() <= RECORD_MAX + 1));
        server.publish(&record("c", "192.0.2.3"));
        a.until("and what comes later", |a| a.sees("c").is_some()).await;
    });
}

#[test]
fn whoever_shows_a_wrong_token_is_told_nothing_and_says_so() {
    scenario(async {
        let mut server = Stranger::start("numbers");
        server.publish(&record("b", "192.0.2.2"));
        let config = server.config("s3cr3t-of-somebody-else");
        let mut a = Node::start(config, record("a", "192.0.2.1"), given(&["10.1.0.0/24"]), Known::default());
        a.until("it says why", |a| a.says("token or certificate")).await;
        assert!(a.snapshot.is_none() && server.get(RECORDS, "a").is_none());
        let said = a.health.clone().expect("it is unwell").detail;
        assert!(!said.contains("s3cr3t"), "{said}");
    });
}
