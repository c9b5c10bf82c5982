//! A node's registry against a real etcd that goes away, forgets, and lies.
//!
//! ```text
//! node ── (relay ✂) ── etcd ── etcdctl
//! ```
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by it")]

mod etcd_space;

use std::time::Duration;

use etcd_space::node::{Node, auto, listed, record};
use etcd_space::relay::Relay;
use etcd_space::{PREFIX, Store, scenario};
use warren_agent::cidrs::Given;
use warren_agent::config::{Cidrs, Etcd};
use warren_agent::registry::etcd;
use warren_overlay::record::RECORD_MAX;

/// A store with a cluster.
fn store() -> Store {
    let store = Store::start();
    store.administer(&["init", "--network", "10.0.0.0/16"]);
    store
}

async fn behind_relay(store: &Store) -> (Relay, Etcd) {
    let relay = Relay::start(store.port()).await;
    let config = Etcd { endpoints: vec![relay.url()], ..store.config() };
    (relay, config)
}

fn value(name: &str) -> String {
    String::from_utf8(record(name, "192.0.2.9").to_bytes()).expect("JSON")
}

#[test]
fn what_is_in_the_store_is_told_and_so_is_every_change() {
    scenario(async {
        let store = store();
        store.put("nodes/b", &value("b"));
        store.put("alloc/10.0.7.0-24", r#"{"node":"b"}"#);
        let mut a = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        a.until("b is known", |a| a.sees("b").is_some() && a.owner("10.0.7.0/24").as_deref() == Some("b")).await;
        a.until("a is known", |a| a.sees("a") == Some(a.record.public_key)).await;
        let first = a.sees("b");
        store.put("nodes/b", &value("b"));
        a.until("the change is told", |a| a.sees("b") != first).await;
        store.delete("nodes/b");
        a.until("the deletion is told", |a| a.sees("b").is_none()).await;
    });
}

#[test]
fn that_the_store_answers_is_told_with_its_revision_also_when_nothing_changes() {
    scenario(async {
        let store = store();
        let mut a = Node::start(Etcd { lease_seconds: 5, ..store.config() }, "a", "192.0.2.1", listed(&[]));
        a.until("the store answered", |a| !a.contacts.is_empty()).await;
        store.put("nodes/b", &value("b"));
        let before = a.contacts.last().copied();
        a.until("the revision follows", |a| a.contacts.last().copied() > before).await;
        let (count, revision) = (a.contacts.len(), a.contacts.last().copied());
        a.until("the lease is kept alive", |a| a.contacts.len() > count + 1).await;
        assert_eq!(a.contacts.last().copied(), revision, "nobody wrote");
    });
}

#[test]
fn malformed_values_harm_nobody_and_are_named() {
    scenario(async {
        let store = store();
        store.put("alloc/10.0.7.0-24", "{nonsense");
        store.put("alloc/nonsense", "{}");
        store.put("elsewhere", "x");
        store.put("nodes/evil", "\u{1b}[2Jnonsense");
        store.put("nodes/b", &value("b"));
        let mut a = Node::start(store.config(), "a", "192.0.2.1", auto());
        a.until("the damage is named", |a| a.complains_of("10.0.7.0/24")).await;
        a.until("a has a prefix, b is known", |a| a.cidrs().len() == 1 && a.sees("b").is_some()).await;
        assert_eq!(a.cidrs(), ["10.0.0.0/24"]);
        store.delete("alloc/10.0.7.0-24");
        a.until("all is well", Node::is_well).await;
    });
}

#[test]
fn oversized_values_are_cut_short_and_do_not_keep_the_rest_from_being_read() {
    scenario(async {
        let store = store();
        let file = store.path("large");
        std::fs::write(&file, vec![b'x'; 1 << 20]).expect("our folder");
        for number in 0..40 {
            let key = format!("{PREFIX}nodes/evil{number}");
            let put = format!("etcdctl --endpoints http://127.0.0.1:{} put {key} < {}", store.port(), file.display());
            let done = std::process::Command::new("sh").args(["-c", &put]).env("ETCDCTL_API", "3").output();
            assert!(done.expect("a shell").status.success());
        }
        store.put("nodes/zebra", &value("zebra"));
        let mut a = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        a.until("the last one is read", |a| a.sees("zebra").is_some()).await;
        let snapshot = a.snapshot.clone().expect("told");
        let evil = snapshot.entries.iter().filter(|entry| entry.key.starts_with("evil"));
        assert_eq!(evil.map(|entry| entry.value.len()).collect::<Vec<_>>(), [RECORD_MAX + 1; 40]);
    });
}

#[test]
fn five_thousand_records_are_read_in_pages() {
    scenario(async {
        let store = store();
        fill(&store, 5000).await;
        let mut a = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        a.until("all are told", |a| a.snapshot.as_ref().is_some_and(|told| told.entries.len() >= 5000)).await;
    });
}

/// Writes this many records of about a KiB each.
async fn fill(store: &Store, count: usize) {
    let mut client = etcd::connect(&store.config()).await.expect("etcd answers");
    let text = format!("{}{}", value("n"), " ".repeat(700));
    let numbers: Vec<usize> = (0..count).collect();
    for batch in numbers.chunks(100) {
        let puts = batch.iter().map(|n| etcd_client::TxnOp::put(format!("{PREFIX}nodes/n{n}"), text.clone(), None));
        let txn = etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>());
        client.txn(txn).await.expect("etcd takes it");
    }
}

#[test]
fn a_store_that_never_rests_keeps_nobody_from_being_told() {
    scenario(async {
        let store = store();
        let config = store.config();
        let busy = tokio::task::spawn_local(async move {
            let mut client = etcd::connect(&config).await.expect("etcd answers");
            for number in 0_u64.. {
                client.put(format!("{PREFIX}nodes/busy"), number.to_string(), None).await.expect("etcd takes it");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let mut a = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        a.until("a is up", |a| a.sees("a").is_some()).await;
        store.put("nodes/b", &value("b"));
        a.within(Duration::from_secs(2), "b is known", |a| a.sees("b").is_some()).await;
        busy.abort();
    });
}

#[test]
fn a_watcher_that_was_cut_off_goes_on_where_it_was() {
    scenario(async {
        let store = store();
        store.put("nodes/b", &value("b"));
        let (relay, config) = behind_relay(&store).await;
        let mut a = Node::start(config, "a", "192.0.2.1", listed(&[]));
        a.until("b is known", |a| a.sees("b").is_some() && a.is_well()).await;
        relay.cut();
        store.delete("nodes/b");
        fill(&store, 2500).await;
        a.until("the loss is told", |a| a.health.as_ref().is_some_and(|health| !health.ok)).await;
        relay.heal();
        let all =
            |a: &Node| a.sees("b").is_none() && a.snapshot.as_ref().is_some_and(|told| told.entries.len() == 2501);
        a.until("everything is told", all).await;
        a.until("all is well", Node::is_well).await;
    });
}

#[test]
fn a_watcher_that_was_cut_off_while_the_store_was_compacted_reads_everything_anew() {
    scenario(async {
        let store = store();
        for name in ["b", "c", "d"] {
            store.put(&format!("nodes/{name}"), &value(name));
        }
        store.put("alloc/10.0.7.0-24", r#"{"node":"b"}"#);
        let (relay, config) = behind_relay(&store).await;
        let mut a = Node::start(config, "a", "192.0.2.1", listed(&[]));
        a.until("all are known", |a| a.sees("d").is_some() && a.is_well()).await;
        let (b, c) = (a.sees("b"), a.sees("c"));
        relay.cut();
        store.put("nodes/b", &value("b"));
        store.delete("nodes/d");
        store.delete("alloc/10.0.7.0-24");
        store.put("alloc/10.0.8.0-24", r#"{"node":"b"}"#);
        store.compact();
        a.until("the loss is told", |a| !a.is_well()).await;
        relay.heal();
        let current = |a: &Node| {
            a.sees("b") != b
                && a.sees("c") == c
                && a.sees("d").is_none()
                && a.owner("10.0.7.0/24").is_none()
                && a.owner("10.0.8.0/24").is_some()
        };
        a.until("all four changes are told", current).await;
        a.until("all is well", Node::is_well).await;
    });
}

#[test]
fn a_connection_on_which_nothing_comes_is_given_up() {
    scenario(async {
        let store = store();
        let (relay, config) = behind_relay(&store).await;
        let mut a = Node::start(config, "a", "192.0.2.1", listed(&[]));
        a.until("all is well", Node::is_well).await;
        relay.silence();
        store.put("nodes/b", &value("b"));
        let endpoint = relay.url();
        a.within(Duration::from_secs(25), "the silence is told", |a| a.complains_of(&endpoint)).await;
        relay.heal();
        a.within(Duration::from_secs(20), "what happened meanwhile is told", |a| a.sees("b").is_some()).await;
    });
}

#[test]
fn a_request_is_not_waited_for_longer_than_its_time_while_a_watch_is() {
    scenario(async {
        let store = store();
        let (relay, config) = behind_relay(&store).await;
        let mut client = etcd::connect(&store.config()).await.expect("etcd answers");
        let options = etcd_client::WatchOptions::new().with_prefix();
        let mut watch = client.watch(PREFIX, Some(options)).await.expect("etcd answers");
        watch.message().await.expect("the watch lives").expect("that it was made");
        let mut client = etcd::connect(&config).await.expect("etcd answers");
        client.get("x", None).await.expect("etcd answers");
        relay.silence();
        // The connection itself is found dead 15 s after it last said something.
        let limited = tokio::time::timeout(Duration::from_secs(13), client.get("x", None));
        let said = limited.await.expect("it ends by itself").expect_err("nothing came").to_string();
        assert!(said.contains("Timeout expired"), "{said}");
        store.put("nodes/b", "x");
        let event = watch.message().await.expect("the watch lives").expect("the watch lives");
        assert_eq!(event.events().len(), 1);
    });
}

#[test]
fn a_store_that_stays_away_is_told_once_and_not_stormed() {
    scenario(async {
        let mut store = store();
        let mut a = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        a.until("all is well", Node::is_well).await;
        store.kill();
        a.until("the loss is told", |a| a.complains_of("Connection refused")).await;
        a.healths.clear();
        a.listen(Duration::from_secs(6)).await;
        assert!(a.healths.len() <= 1, "{:?}", a.healths);
        store.up();
        a.until("all is well", Node::is_well).await;
    });
}

#[test]
fn a_node_that_comes_before_its_cluster_says_what_to_do_and_then_goes_on() {
    scenario(async {
        let store = Store::start();
        let mut a = Node::start(store.config(), "a", "192.0.2.1", auto());
        a.until("it says what to do", |a| a.complains_of("warren cluster init")).await;
        assert!(a.snapshot.is_none());
        store.administer(&["init", "--network", "10.0.0.0/16"]);
        a.until("it has a prefix", |a| a.cidrs() == ["10.0.0.0/24"] && a.sees("a").is_some()).await;
    });
}

#[test]
fn a_wiped_store_gets_back_what_nodes_know_and_gives_no_prefix_to_another() {
    scenario(async {
        let mut store = store();
        let mut a = Node::start(store.config(), "a", "192.0.2.1", auto());
        a.until("a has the first prefix", |a| a.cidrs() == ["10.0.0.0/24"]).await;
        let mut b = Node::start(store.config(), "b", "192.0.2.2", auto());
        b.until("b has the second prefix", |b| b.cidrs() == ["10.0.1.0/24"] && b.sees("a").is_some()).await;
        let (memory, a_record) = (a.memory(), a.record.clone());
        a.stop();
        store.wipe();
        b.until_stored("b's prefix is b's again", || store.get("alloc/10.0.1.0-24").contains("\"b\"")).await;
        assert_eq!(store.get("alloc/10.0.0.0-24"), "", "a's prefix waits for a");
        b.until_stored("b publishes itself again", || store.get("nodes/b").contains("public_key")).await;
        // A node that was not there before takes neither.
        let mut c = Node::with(store.config(), record("c", "192.0.2.3"), auto(), b.memory());
        c.until("c has a prefix of its own", |c| c.cidrs() == ["10.0.2.0/24"]).await;
        let mut a = Node::with(store.config(), a_record, auto(), memory);
        a.until("a has its prefix again", |a| a.cidrs() == ["10.0.0.0/24"] && a.sees("a").is_some()).await;
    });
}

#[test]
fn a_store_restored_from_an_older_snapshot_is_brought_up_to_date_before_it_is_believed() {
    scenario(async {
        let mut store = store();
        let mut a = Node::start(store.config(), "a", "192.0.2.1", auto());
        let mut b = Node::start(store.config(), "b", "192.0.2.2", listed(&[]));
        b.until("a is known", |b| b.sees("a").is_some()).await;
        let (old, snapshot) = (b.sees("a"), store.snapshot());
        a.until("a is up", Node::is_well).await;
        a.stop();
        let mut a = Node::start(store.config(), "a", "192.0.2.1", auto());
        b.until("the new key is known", |b| b.sees("a").is_some() && b.sees("a") != old).await;
        store.restore(&snapshot);
        let key = a.record.public_key.to_string();
        a.until_stored("the newer record is published again", || store.get("nodes/a").contains(&key)).await;
        b.listen(Duration::from_secs(14)).await;
        assert_eq!(b.sees("a"), Some(a.record.public_key), "the old key was believed");
    });
}

#[test]
fn what_the_api_server_no_longer_gives_the_node_another_may_have() {
    scenario(async {
        let store = store();
        let given = |cidrs: &[&str]| {
            let cidrs = cidrs.iter().map(|cidr| cidr.parse().expect("a prefix")).collect();
            Cidrs::Given(Given { cidrs, ..Given::default() })
        };
        store.put("alloc/192.0.2.1-32", r#"{"node":"a"}"#);
        let mut a = Node::start(store.config(), "a", "192.0.2.1", given(&["10.0.0.0/26", "10.0.0.64/26"]));
        a.until("both are its own", |a| a.owner("10.0.0.0/26").is_some() && a.owner("10.0.0.64/26").is_some()).await;
        let (known, record) = (a.memory(), a.record.clone());
        a.stop();
        let mut a =
            Node::with(store.config(), record, given(&["10.0.0.64/26", "10.0.0.128/26", "192.0.2.9/32"]), known);
        a.until("an address that is no Pod's is refused", |a| a.complains_of("192.0.2.9/32 is not inside")).await;
        a.until("it has what is new", |a| a.owner("10.0.0.128/26").is_some()).await;
        a.until("and no longer what is not", |a| a.owner("10.0.0.0/26").is_none()).await;
        assert!(a.owner("10.0.0.64/26").is_some() && a.owner("192.0.2.1/32").is_some(), "{:?}", a.cidrs());
        let mut b = Node::start(store.config(), "b", "192.0.2.2", given(&["10.0.0.0/26"]));
        b.until("b has it", |b| b.owner("10.0.0.0/26").as_deref() == Some("b") && b.is_well()).await;
        a.until("a is told so", |a| a.owner("10.0.0.0/26").as_deref() == Some("b")).await;
    });
}

#[test]
fn a_prefix_that_is_given_back_just_after_it_was_claimed_in_vain_is_had_soon() {
    scenario(async {
        let store = store();
        let given = |cidrs: &[&str], lost: &[&str]| {
            let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect();
            Cidrs::Given(Given { cidrs: nets(cidrs), lost: nets(lost), ..Given::default() })
        };
        let mut a = Node::start(store.config(), "a", "192.0.2.1", given(&["10.0.0.0/26"], &[]));
        a.until("it is a's", |a| a.owner("10.0.0.0/26").as_deref() == Some("a") && a.is_well()).await;
        let mut b = Node::start(store.config(), "b", "192.0.2.2", given(&["10.0.0.0/26"], &[]));
        b.until("b is refused", |b| b.complains_of("10.0.0.0/26 overlaps 10.0.0.0/26, which belongs to a")).await;
        // b does not try again yet: it has just done so.
        a.should_have(given(&[], &["10.0.0.0/26"]));
        b.until("it is b's", |b| b.owner("10.0.0.0/26").as_deref() == Some("b") && b.is_well()).await;
        a.until("a is told so, and has none", |a| a.cidrs().is_empty() && a.owner("10.0.0.0/26").is_some()).await;
    });
}

#[test]
fn a_lost_lease_or_a_deleted_record_is_put_back() {
    scenario(async {
        let store = store();
        let mut a = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        a.until("a is up", |a| a.sees("a").is_some() && a.is_well()).await;
        let lease = store.lease("nodes/a").expect("a lease");
        store.ctl(&["lease", "revoke", &lease]);
        a.until_stored("the record is back", || store.lease("nodes/a").is_some_and(|new| new != lease)).await;
        store.delete("nodes/a");
        a.until_stored("the record is back", || store.lease("nodes/a").is_some()).await;
        // The lease is kept alive for longer than it lasts, and reading everything again does not renew it.
        let lease = store.lease("nodes/a");
        a.listen(Duration::from_secs(8)).await;
        assert_eq!(store.lease("nodes/a"), lease);
    });
}

#[test]
fn a_second_host_of_the_same_name_is_refused_and_named_until_the_first_leaves() {
    scenario(async {
        let store = store();
        let mut first = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        first.until("the first is up", |first| first.sees("a").is_some()).await;
        let mut second = Node::start(store.config(), "a", "192.0.2.2", listed(&[]));
        second.until("the second is refused", |second| second.complains_of("another host uses it")).await;
        let key = first.record.public_key.to_string();
        assert!(store.get("nodes/a").contains(&key));
        // A third one that leaves does not take the record of the first with it.
        let mut third = Node::start(store.config(), "a", "192.0.2.3", listed(&[]));
        third.until("the third is refused", |third| third.complains_of("another host uses it")).await;
        assert!(third.leave().await, "leaving is confirmed");
        assert!(store.get("nodes/a").contains(&key));
        assert!(first.leave().await, "leaving is confirmed");
        second.until("the second is up", |second| second.sees("a") == Some(second.record.public_key)).await;
        second.until("all is well", Node::is_well).await;
    });
}

#[test]
fn a_host_that_was_installed_anew_takes_its_record_over_at_once() {
    scenario(async {
        let store = store();
        let mut first = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        first.until("it is up", |first| first.sees("a").is_some()).await;
        first.stop();
        let mut again = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        again
            .within(Duration::from_secs(3), "it is up again", |again| again.sees("a") == Some(again.record.public_key))
            .await;
    });
}

#[test]
fn a_node_that_leaves_withdraws_its_record_and_one_that_stops_does_not() {
    scenario(async {
        let store = store();
        let mut a = Node::start(store.config(), "a", "192.0.2.1", auto());
        a.until("a is up", |a| a.sees("a").is_some() && a.cidrs().len() == 1).await;
        let record = a.record.clone();
        a.stop();
        assert!(store.lease("nodes/a").is_some(), "the record outlives the agent");
        let mut a = Node::with(store.config(), record, auto(), Default::default());
        a.until("a is up again", |a| a.sees("a").is_some() && a.is_well()).await;
        assert!(a.leave().await, "leaving is confirmed");
        assert_eq!(store.get("nodes/a"), "");
        assert!(store.get("alloc/10.0.0.0-24").contains("\"a\""), "the prefix stays with its node");
    });
}

#[test]
fn a_node_whose_leaving_nobody_confirms_stays_and_hears() {
    scenario(async {
        let mut store = store();
        let mut a = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        a.until("a is up", |a| a.sees("a").is_some() && a.is_well()).await;
        store.kill();
        a.publish.send_replace(None);
        a.until("the loss is told", |a| a.complains_of("Connection refused")).await;
        a.publish.send_replace(Some(a.record.clone()));
        store.up();
        store.put("nodes/b", &value("b"));
        a.until("what is new is told", |a| a.sees("b").is_some() && a.is_well()).await;
        a.until_stored("a is published", || store.get("nodes/a").contains("\"a\"")).await;
    });
}
