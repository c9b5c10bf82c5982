//! Events about a Node: what is written, how often, and that it matters to nothing else.

use serde_json::{Value, json};
use warren_agent::registry::{Concern, Concerns};
use warren_tests::ApiServer;
use warren_tests::api_server::{EVENTS, Mood, NODES, RECORDS};

use crate::space::{Cluster, Node, given, record, scenario};

/// Type and reason of each Event, in the order in which they were written.
fn said(api: &ApiServer) -> Vec<(String, String)> {
    let text = |event: &Value, at: &str| event[at].as_str().expect("a text").to_owned();
    let mut events = api.all(EVENTS);
    events.sort_by_key(|event| text(event, "eventTime"));
    events.iter().map(|event| (text(event, "type"), text(event, "reason"))).collect()
}

#[test]
fn a_refused_prefix_is_one_event_about_the_node_and_its_end_another() {
    scenario(async {
        let cluster = Cluster::start();
        // Of few blocks two that go would look like a loss.
        for third in 1..=6 {
            cluster.block(&format!("10-1-{third}-0-24"), &format!("10.1.{third}.0/24"), "elsewhere");
        }
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.1.0/24"]);
        a.until("its prefix is refused", |a| a.says("10.1.1.0/24")).await;
        cluster.until("there is an Event", |api| !api.all(EVENTS).is_empty()).await;
        let event = cluster.api.all(EVENTS).remove(0);
        let uid = cluster.api.get(NODES, "a").expect("a Node")["metadata"]["uid"].clone();
        assert_eq!(event["regarding"], json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": uid}));
        assert_eq!((&event["metadata"]["namespace"], &event["reportingInstance"]), (&json!("default"), &json!("a")));
        assert!(event["note"].as_str().is_some_and(|note| note.contains("10.1.1.0/24")), "{event}");
        // What else is wrong does not make it new.
        cluster.block("nonsense", "10.7.0.0/24", "evil");
        a.until("something else is wrong too", |a| a.says("nonsense")).await;
        cluster.api.remove("warrenblocks", "nonsense");
        cluster.api.remove("warrenblocks", "10-1-1-0-24");
        cluster.api.node("a", &["10.2.0.0/24"], &["192.0.2.1".parse().expect("an address")]);
        a.should_have(given(&["10.2.0.0/24"]));
        a.until("it has another prefix", |a| a.owner("10.2.0.0/24").as_deref() == Some("a") && a.is_well()).await;
        cluster.until("that it is over is said", |api| api.all(EVENTS).len() > 1).await;
        let expected = [("Warning", "NotAllocated"), ("Normal", "AllWell")];
        assert_eq!(said(&cluster.api), expected.map(|(kind, reason)| (kind.to_owned(), reason.to_owned())));
    });
}

#[test]
fn what_the_control_plane_finds_is_told_also_of_a_host_without_a_node() {
    scenario(async {
        let cluster = Cluster::start();
        let mut h = cluster.host("h", "192.0.2.9", warren_agent::config::Cidrs::Listed(Default::default()));
        h.until("it is well", Node::is_well).await;
        let found = Concerns::from([(Concern::ClearTextRefused, "somebody\u{1b}[2J sends in clear".to_owned())]);
        h.concerns.send_replace(found);
        cluster.until("there is an Event", |api| !api.all(EVENTS).is_empty()).await;
        let event = cluster.api.all(EVENTS).remove(0);
        let uid = cluster.record("h").expect("it is published")["metadata"]["uid"].clone();
        let regarding = json!({"apiVersion": "warren.dev/v1alpha1", "kind": "WarrenNode", "name": "h", "uid": uid});
        assert_eq!(event["regarding"], regarding);
        assert_eq!(
            (&event["reason"], &event["note"]),
            (&json!("ClearTextRefused"), &json!("somebody?[2J sends in clear"))
        );
    });
}

#[test]
fn a_server_that_refuses_events_is_obeyed_and_nothing_else_changes() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.api.be(Mood::Eventless(403));
        cluster.block("10-1-0-0-24", "10.1.0.0/24", "elsewhere");
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("its prefix is refused", |a| a.says("10.1.0.0/24")).await;
        let lists = || cluster.api.lists(RECORDS) + cluster.api.lists(NODES);
        let before = lists();
        cluster.until("an Event was refused", |api| api.count("create", EVENTS) == 1).await;
        let b = record("b", "192.0.2.2");
        cluster.publish(&b, 1);
        a.until("what is new is told", |a| a.sees("b") == Some(b.public_key)).await;
        assert!(!a.says("Event"), "{:?}", a.health);
        assert_eq!((cluster.api.count("create", EVENTS), lists()), (1, before), "the connection stands");
    });
}
