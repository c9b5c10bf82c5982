//! What a node's registry does with what stands in the API server, and what it writes there.

use serde_json::json;
use warren_agent::config::Cidrs;
use warren_agent::registry::Known;
use warren_overlay::mesh::Enforcement;
use warren_overlay::record::RECORD_MAX;
use warren_tests::api_server::{BLOCKS, NODES, RECORDS};

use crate::space::{Cluster, Node, given, record, scenario};

fn auto() -> Cidrs {
    Cidrs::Auto { length: (24, 64) }
}

fn listed(cidrs: &[&str]) -> Cidrs {
    Cidrs::Listed(cidrs.iter().map(|cidr| cidr.parse().expect("a prefix")).collect())
}

#[test]
fn a_node_claims_what_kubernetes_gave_to_it_and_is_seen_by_others() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        let mut b = cluster.node("b", "192.0.2.2", &["10.2.0.0/24"]);
        let key = b.record.public_key;
        a.until("b and its prefix are known", |a| {
            a.sees("b") == Some(key) && a.owner("10.2.0.0/24").as_deref() == Some("b")
        })
        .await;
        a.until("a has its own", |a| a.owner("10.1.0.0/24").as_deref() == Some("a") && a.is_well()).await;
        b.until("b is well", Node::is_well).await;
        a.until("a says when the server answered", |a| a.contact.is_some_and(|version| version > 0)).await;
        let told = a.snapshot.as_ref().and_then(|told| told.cluster.clone()).expect("a cluster");
        assert_eq!((told.id.as_str(), told.enforcement), ("cluster-1", Enforcement::Strict));
        assert!(told.networks.contains(&"10.0.0.0/8".parse().expect("a prefix")));
    });
}

#[test]
fn what_a_node_writes_is_owned_by_its_node_and_never_keeps_it_from_going() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
        let uid = cluster.api.get(NODES, "a").expect("a Node")["metadata"]["uid"].clone();
        for (resource, name) in [(RECORDS, "a"), (BLOCKS, "10-1-0-0-24")] {
            cluster.until("it is there", |api| api.get(resource, name).is_some()).await;
            let owners = cluster.api.get(resource, name).expect("it is there")["metadata"]["ownerReferences"].clone();
            let expected = json!([{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": uid,
                "controller": false, "blockOwnerDeletion": false}]);
            assert_eq!(owners, expected, "{resource}");
        }
        assert!(cluster.record("a").expect("it is there")["spec"].get("name").is_none(), "the object has the name");
    });
}

#[test]
fn a_node_publishes_those_of_its_addresses_that_its_node_shows() {
    scenario(async {
        let cluster = Cluster::start();
        let published = |name: &'static str, addresses: &'static [&str]| {
            move |api: &warren_tests::ApiServer| {
                api.get(RECORDS, name).is_some_and(|one| one["spec"]["addresses"] == json!(addresses))
            }
        };
        cluster.api.node("a", &["10.1.0.0/24"], &["192.0.2.1".parse().expect("an address")]);
        let mut own = record("a", "192.0.2.1");
        own.addresses.insert("198.51.100.1".parse().expect("an address"));
        let mut a = Node::start(cluster.config(), own, given(&["10.1.0.0/24"]), Known::default());
        a.until("a is well", Node::is_well).await;
        cluster.until("the other is left out", published("a", &["192.0.2.1"])).await;
        let both = ["192.0.2.1", "198.51.100.1"].map(|one| one.parse().expect("an address"));
        cluster.api.node("a", &["10.1.0.0/24"], &both);
        cluster.until("the Node shows it too", published("a", &["192.0.2.1", "198.51.100.1"])).await;
        let mut host = record("h", "192.0.2.9");
        host.addresses.insert("198.51.100.9".parse().expect("an address"));
        let _host = Node::start(cluster.config(), host, listed(&[]), Known::default());
        cluster.until("no Node speaks for a host", published("h", &["192.0.2.9", "198.51.100.9"])).await;
    });
}

#[test]
fn every_change_is_told() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
        let (first, second) = (record("b", "192.0.2.2"), record("b", "192.0.2.2"));
        cluster.publish(&first, 1);
        a.until("b is known", |a| a.sees("b") == Some(first.public_key)).await;
        cluster.publish(&second, 2);
        a.until("the change is told", |a| a.sees("b") == Some(second.public_key)).await;
        cluster.api.remove(RECORDS, "b");
        a.until("the deletion is told", |a| a.sees("b").is_none()).await;
        cluster.api.cluster(&["10.0.0.0/8", "fd00::/48"], "permissive");
        a.until("the roll-out is told", |a| {
            let told = a.snapshot.as_ref().and_then(|told| told.cluster.clone());
            told.is_some_and(|told| told.enforcement == Enforcement::Permissive && told.networks.len() == 2)
        })
        .await;
    });
}

#[test]
fn malformed_objects_harm_nobody_and_are_named() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.block("nonsense", "10.7.0.0/24", "evil");
        cluster.block("10-8-0-0-24", "\u{1b}[2J", "evil");
        for (name, spec) in [("e1", json!("nonsense")), ("e2", json!({"version": 99})), ("e3", json!(null))] {
            cluster.api.put(RECORDS, json!({"metadata": {"name": name}, "spec": spec}));
        }
        let large = json!({"metadata": {"name": "e4"}, "spec": {"agent": "x".repeat(RECORD_MAX)}});
        cluster.api.put(RECORDS, large);
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        let mut b = cluster.node("b", "192.0.2.2", &["10.2.0.0/24"]);
        a.until("b is known", |a| a.sees("b").is_some() && a.owner("10.2.0.0/24").is_some()).await;
        b.until("a is known", |b| b.sees("a").is_some()).await;
        a.until("what is damaged is named", |a| a.says("\"nonsense\"") && a.says("10-8-0-0-24")).await;
        let told = a.snapshot.clone().expect("told");
        assert!(told.allocations.iter().all(|given| given.node.as_str() != "evil"));
        let oversized = told.entries.iter().find(|entry| entry.key == "e4").expect("the mesh refuses it by name");
        assert_eq!(oversized.value.len(), RECORD_MAX + 1);
    });
}

#[test]
fn a_record_that_somebody_changed_or_deleted_is_put_back() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
        let key = a.record.public_key.to_string();
        let ours = |api: &warren_tests::ApiServer| {
            api.get(RECORDS, "a").is_some_and(|record| record["spec"]["publicKey"] == key.as_str())
        };
        cluster.until("a is published", ours).await;
        let forged = record("a", "192.0.2.66");
        cluster.publish(&forged, u64::MAX >> 12);
        cluster.until("the forged record is replaced", ours).await;
        cluster.api.remove(RECORDS, "a");
        cluster.until("the deleted record is back", ours).await;
        cluster.api.remove(BLOCKS, "10-1-0-0-24");
        cluster.until("the deleted block is back", |api| api.get(BLOCKS, "10-1-0-0-24").is_some()).await;
        a.change(|record| record.mtu = 1380);
        cluster
            .until("a change is published", |api| {
                api.get(RECORDS, "a").is_some_and(|record| record["spec"]["mtu"] == 1380)
            })
            .await;
    });
}

#[test]
fn a_node_that_was_made_anew_gets_objects_of_its_own() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
        cluster.until("a is published", |api| api.get(RECORDS, "a").is_some()).await;
        cluster.api.node("a", &["10.9.0.0/24"], &["192.0.2.1".parse().expect("an address")]);
        a.should_have(given(&["10.9.0.0/24"]));
        let uid = cluster.api.get(NODES, "a").expect("a Node")["metadata"]["uid"].clone();
        cluster
            .until("both belong to the new Node", |api| {
                [(RECORDS, "a"), (BLOCKS, "10-9-0-0-24")].iter().all(|(resource, name)| {
                    api.get(resource, name).is_some_and(|one| one["metadata"]["ownerReferences"][0]["uid"] == uid)
                })
            })
            .await;
        a.until("the old prefix is given back", |a| {
            a.owner("10.9.0.0/24").is_some() && a.owner("10.1.0.0/24").is_none()
        })
        .await;
    });
}

#[test]
fn a_prefix_of_a_node_that_is_gone_is_given_to_the_next_one() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        let mut b = cluster.node("b", "192.0.2.2", &["10.2.0.0/24"]);
        a.until("b is known", |a| a.owner("10.2.0.0/24").is_some() && a.sees("b").is_some()).await;
        b.until("b is well", Node::is_well).await;
        drop(b);
        cluster.api.remove(NODES, "b");
        a.until("b is gone, and its prefix is free", |a| {
            let released =
                |told: &warren_overlay::mesh::Snapshot| told.released.iter().any(|gone| gone.node.as_str() == "b");
            a.sees("b").is_none() && (a.snapshot.as_deref().is_some_and(released) || a.owner("10.2.0.0/24").is_none())
        })
        .await;
        let mut c = cluster.node("c", "192.0.2.3", &["10.2.0.0/24"]);
        c.until("c has it", |c| c.owner("10.2.0.0/24").as_deref() == Some("c")).await;
        a.until("a knows that", |a| a.owner("10.2.0.0/24").as_deref() == Some("c")).await;
    });
}

#[test]
fn nodes_that_choose_for_themselves_never_choose_the_same() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.api.cluster(&["10.0.0.0/22"], "strict");
        let mut hosts = Vec::new();
        for number in 1..=4 {
            hosts.push(cluster.host(&format!("h{number}"), &format!("192.0.2.{number}"), auto()));
        }
        for host in &mut hosts {
            let name = host.record.name.to_string();
            host.until("it has one of its own", |host| {
                let told = host.snapshot.as_ref();
                told.is_some_and(|told| told.allocations.iter().any(|given| given.node.as_str() == name))
            })
            .await;
        }
        hosts[0]
            .until("all four are known", |host| host.snapshot.as_ref().is_some_and(|told| told.allocations.len() == 4))
            .await;
        let mut fifth = cluster.host("h5", "192.0.2.5", auto());
        fifth.until("there is no room for a fifth", |fifth| fifth.says("no free /24")).await;
    });
}

#[test]
fn conditions_are_written_when_they_change_and_not_with_every_record() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        let allocated = |status: &'static str| {
            move |api: &warren_tests::ApiServer| {
                api.get(RECORDS, "a").is_some_and(|one| one["status"]["conditions"][0]["status"] == status)
            }
        };
        cluster.until("its prefixes are its own", allocated("True")).await;
        a.until("a is well", Node::is_well).await;
        for mtu in 1400..1405 {
            a.change(|record| record.mtu = mtu);
            cluster
                .until("it is published", |api| api.get(RECORDS, "a").is_some_and(|one| one["spec"]["mtu"] == mtu))
                .await;
        }
        assert_eq!(cluster.api.count("patch", "warrennodes/status"), 1);
        cluster.block("10-9-0-0-24", "10.9.0.0/24", "other");
        a.until("the other's block is known", |a| a.owner("10.9.0.0/24").is_some()).await;
        a.should_have(given(&["10.9.0.0/25"]));
        cluster.until("one that it cannot have is told", allocated("False")).await;
        assert_eq!(cluster.api.count("patch", "warrennodes/status"), 2);
    });
}

#[test]
fn a_node_that_leaves_takes_its_record_along_and_an_agent_that_stops_does_not() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
        cluster.until("a is published", |api| api.get(RECORDS, "a").is_some()).await;
        let (record, known) = (a.record.clone(), a.memory());
        drop(a);
        let mut again = Node::start(cluster.config(), record, given(&["10.1.0.0/24"]), known);
        assert!(cluster.record("a").is_some());
        again.until("it is well at once", Node::is_well).await;
        again.leave().await;
        assert!(cluster.record("a").is_none());
    });
}

#[test]
fn two_hosts_of_one_name_do_not_take_it_from_each_other() {
    scenario(async {
        let cluster = Cluster::start();
        let mut one = cluster.host("h", "192.0.2.1", listed(&[]));
        one.until("the first is well", Node::is_well).await;
        cluster.until("it is published", |api| api.get(RECORDS, "h").is_some()).await;
        let mut other = cluster.host("h", "192.0.2.2", listed(&[]));
        other.until("the second says why not", |other| other.says("another host uses it")).await;
        let key = one.record.public_key.to_string();
        assert_eq!(cluster.record("h").expect("it stands")["spec"]["publicKey"], key.as_str());
    });
}

#[test]
fn a_host_outside_of_the_cluster_takes_what_an_administrator_gave_it() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.block("10-50-0-0-24", "10.50.0.0/24", "h");
        let mut host = cluster.host("h", "192.0.2.9", listed(&[]));
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("the host is known with its prefix", |a| {
            a.sees("h").is_some() && a.owner("10.50.0.0/24").as_deref() == Some("h")
        })
        .await;
        host.until("the host is well and knows a", |host| host.sees("a").is_some() && host.is_well()).await;
        assert!(
            cluster.record("h").expect("it stands")["metadata"]
                .get("ownerReferences")
                .is_none_or(|owners| owners == &json!([]))
        );
    });
}

#[test]
fn a_node_that_starts_again_without_memory_of_others_believes_what_stands_there() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.publish(&record("b", "192.0.2.2"), 5);
        let host = record("h", "192.0.2.9");
        let mut host = Node::start(cluster.config(), host, listed(&[]), Known::default());
        host.until("b is known", |host| host.sees("b").is_some()).await;
    });
}
