//! What was long since replaced stands in the store again, and the store gives no sign of it.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by it")]

mod etcd_space;

use std::time::Duration;

use etcd_space::node::{Node, listed};
use etcd_space::relay::Relay;
use etcd_space::{Store, scenario};
use warren_agent::config::Etcd;

#[test]
fn nobody_goes_back_to_an_older_record_while_its_owner_cannot_speak_and_all_heals() {
    scenario(async {
        let store = Store::start();
        store.administer(&["init", "--network", "10.0.0.0/16"]);
        let old = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        let mut b = Node::start(store.config(), "b", "192.0.2.2", listed(&[]));
        b.until("a is known", |b| b.sees("a") == Some(old.record.public_key)).await;
        let stale = store.get("nodes/a");
        old.stop();
        let relay = Relay::start(store.port()).await;
        let config = Etcd { endpoints: vec![relay.url()], ..store.config() };
        let mut a = Node::start(config, "a", "192.0.2.1", listed(&[]));
        let key = a.record.public_key;
        b.until("the new key is known", |b| b.sees("a") == Some(key)).await;
        relay.cut();
        a.until("a has lost the store", |a| a.complains_of("trying again")).await;
        store.put("nodes/a", stale.trim());
        b.until("b holds what it knows", |b| b.complains_of("older than what is known")).await;
        assert_eq!(b.sees("a"), Some(key), "the old key was believed");
        relay.heal();
        b.until("a published itself again", |b| b.is_well() && b.sees("a") == Some(key)).await;
        assert!(store.get("nodes/a").contains(&key.to_string()));
    });
}

#[test]
fn an_older_record_that_stays_is_believed_in_the_end() {
    scenario(async {
        let store = Store::start();
        store.administer(&["init", "--network", "10.0.0.0/16"]);
        let old = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        let mut b = Node::start(store.config(), "b", "192.0.2.2", listed(&[]));
        let key = old.record.public_key;
        b.until("a is known", |b| b.sees("a") == Some(key)).await;
        let stale = store.get("nodes/a");
        old.stop();
        let new = Node::start(store.config(), "a", "192.0.2.1", listed(&[]));
        b.until("the new key is known", |b| b.sees("a") == Some(new.record.public_key)).await;
        new.stop();
        store.put("nodes/a", stale.trim());
        b.within(Duration::from_secs(25), "the old key is known again", |b| b.sees("a") == Some(key)).await;
        b.until("all is well", Node::is_well).await;
    });
}
