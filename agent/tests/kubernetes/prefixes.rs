//! A node's prefixes as objects of the API server say them, whatever its registry is.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use warren_agent::cidrs::{Found, Given, Source};
use warren_agent::config::Cidrs;
use warren_agent::registry::kubernetes::prefixes;
use warren_agent::registry::{Event, Known};
use warren_tests::ApiServer;
use warren_tests::api_server::{AFFINITIES, BLOCKS, CILIUM_NODES, Mood, NODES, RECORDS};

use crate::space::{Cluster, Node, PATIENCE, record, scenario};

/// Who asks for the prefixes of the node `a`, and what it was told last.
struct Asker {
    said: Option<Result<Found, String>>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Asker {
    fn start(cluster: &Cluster, source: Source) -> Self {
        Self::with(cluster, source, None, &[])
    }

    /// Of a node that was told by this cluster, and has these already.
    fn with(cluster: &Cluster, source: Source, known: Option<String>, had: &[&str]) -> Self {
        let (told, events) = mpsc::channel(16);
        let asks = prefixes::run(cluster.config(), "a".parse().expect("a name"), source, known, nets(had), told);
        Self { said: None, events, task: tokio::task::spawn_local(asks) }
    }

    /// Takes what is told until this holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Result<Found, String>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.as_ref().is_some_and(&holds) {
            let event = timeout_at(deadline, self.events.recv()).await;
            match event {
                Ok(Some(Event::Cidrs(said))) => self.said = Some(said),
                other => panic!("{what}: {other:?} instead, after {:?}", self.said),
            }
        }
    }

    /// Until these and no others are said to be the node's.
    async fn until_found(&mut self, cidrs: &[&str]) {
        let what = format!("{cidrs:?} are the node's");
        self.until(&what, |said| said.as_ref().is_ok_and(|found| texts(found) == cidrs)).await;
    }

    /// Until none is said, for a reason that has these words.
    async fn until_refused(&mut self, words: &str) {
        self.until(words, |said| said.as_ref().is_err_and(|why| why.contains(words))).await;
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn texts(found: &Found) -> Vec<String> {
    found.given.cidrs.iter().map(ToString::to_string).collect()
}

fn named(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn affinity(cluster: &Cluster, node: &str, block: &str, state: &str) {
    let name = format!("{node}-{}", block.replace(['.', ':', '/'], "-"));
    let spec = json!({"cidr": block, "deleted": "false", "node": node, "state": state, "type": "host"});
    cluster.api.put(AFFINITIES, named(&name, spec));
}

fn cilium_node(cluster: &Cluster, name: &str, ipam: Value) {
    let spec = json!({"azure": {}, "eni": {}, "encryption": {}, "ipam": ipam});
    cluster.api.put(CILIUM_NODES, named(name, spec));
}

#[test]
fn calicos_blocks_are_read_page_by_page_and_followed() {
    scenario(async {
        let cluster = Cluster::start();
        for other in 1..=7 {
            affinity(&cluster, &format!("n{other}"), &format!("10.1.{other}.0/26"), "confirmed");
        }
        affinity(&cluster, "a", "10.1.9.0/26", "pending");
        let mut a = Asker::start(&cluster, Source::Calico);
        a.until("a node without Pods has no block, and nothing is wrong", |said| {
            said.as_ref().is_ok_and(|found| found.given == Given::default() && found.lacking.is_none())
        })
        .await;
        affinity(&cluster, "a", "10.1.9.0/26", "confirmed");
        a.until_found(&["10.1.9.0/26"]).await;
        affinity(&cluster, "a", "fd00:10::40/122", "confirmed");
        a.until_found(&["10.1.9.0/26", "fd00:10::40/122"]).await;
        affinity(&cluster, "a", "10.1.9.0/26", "pendingDeletion");
        a.until_found(&["fd00:10::40/122"]).await;
        cluster.api.remove(AFFINITIES, "a-fd00-10--40-122");
        a.until("it stays the node's, and that is said", |said| {
            said.as_ref().is_ok_and(|found| {
                let lacking = found.lacking.as_deref().unwrap_or_default();
                found.given.kept == nets(&["fd00:10::40/122"]) && lacking.contains("no block of this node any more")
            })
        })
        .await;
        assert_eq!(cluster.api.lists(AFFINITIES), 1, "it was not watched");
    });
}

#[test]
fn a_block_that_vanishes_stays_the_nodes_until_it_is_given_back_or_anothers() {
    scenario(async {
        let cluster = Cluster::start();
        let all = ["10.1.9.0/26", "10.1.9.64/26", "10.1.9.128/26"];
        all.iter().for_each(|block| affinity(&cluster, "a", block, "confirmed"));
        let mut a = Asker::with(&cluster, Source::Calico, None, &["10.1.8.0/26"]);
        let kept = |expected: &'static [&'static str]| {
            move |said: &Result<Found, String>| said.as_ref().is_ok_and(|found| found.given.kept == nets(expected))
        };
        a.until("what it had before is kept", kept(&["10.1.8.0/26"])).await;
        cluster.api.remove(AFFINITIES, "a-10-1-9-64-26");
        a.until("so is what vanishes", kept(&["10.1.8.0/26", "10.1.9.64/26"])).await;
        affinity(&cluster, "a", "10.1.9.128/26", "pendingDeletion");
        cluster.api.remove(AFFINITIES, "a-10-1-9-128-26");
        a.until_found(&["10.1.9.0/26"]).await;
        assert!(kept(&["10.1.8.0/26", "10.1.9.64/26"])(a.said.as_ref().expect("said")), "{:?}", a.said);
        affinity(&cluster, "b", "10.1.9.64/26", "confirmed");
        a.until("no longer what another has", kept(&["10.1.8.0/26"])).await;
    });
}

#[test]
fn the_only_block_of_a_node_is_lost_when_another_node_has_it_and_had_again_later() {
    scenario(async {
        let cluster = Cluster::start();
        affinity(&cluster, "a", "10.1.9.0/26", "confirmed");
        let mut a = Asker::start(&cluster, Source::Calico);
        a.until_found(&["10.1.9.0/26"]).await;
        cluster.api.remove(AFFINITIES, "a-10-1-9-0-26");
        affinity(&cluster, "b", "10.1.9.0/26", "confirmed");
        let lost = Given { lost: nets(&["10.1.9.0/26"]), ..Given::default() };
        a.until("it is lost by name", |said| said.as_ref().is_ok_and(|found| found.given == lost)).await;
        cluster.api.remove(AFFINITIES, "b-10-1-9-0-26");
        affinity(&cluster, "a", "10.1.9.0/26", "confirmed");
        let had = Given { cidrs: nets(&["10.1.9.0/26"]), ..Given::default() };
        a.until("it is the node's again", |said| said.as_ref().is_ok_and(|found| found.given == had)).await;
    });
}

#[test]
fn blocks_that_vanished_keep_no_new_one_from_being_the_nodes() {
    scenario(async {
        let cluster = Cluster::start();
        let had: Vec<_> = (0..70).map(|third| format!("10.2.{third}.0/26")).collect();
        let had: Vec<_> = had.iter().map(String::as_str).collect();
        affinity(&cluster, "a", "10.1.9.0/26", "confirmed");
        let mut a = Asker::with(&cluster, Source::Calico, None, &had);
        a.until_found(&["10.1.9.0/26"]).await;
        let found = a.said.take().and_then(Result::ok).expect("found");
        assert_eq!(found.given.kept, nets(&had), "all of them stay the node's");
        let lacking = found.lacking.unwrap_or_default();
        assert!(
            lacking.contains("70 blocks that Calico no longer names") && lacking.contains("room for 63"),
            "{lacking}"
        );
    });
}

#[test]
fn a_damaged_affinity_is_named_and_the_others_are_read() {
    scenario(async {
        let cluster = Cluster::start();
        affinity(&cluster, "a", "10.1.9.0/26", "confirmed");
        let spec = json!({"cidr": "10.1.9.65/26", "deleted": "false", "node": "a", "state": "confirmed"});
        cluster.api.put(AFFINITIES, named("a-10-1-9-64-26", spec));
        let mut a = Asker::start(&cluster, Source::Calico);
        a.until_found(&["10.1.9.0/26"]).await;
        let lacking = a.said.take().and_then(|said| said.ok()?.lacking).unwrap_or_default();
        assert!(lacking.contains("\"a-10-1-9-64-26\" of Calico is damaged"), "{lacking}");
    });
}

#[test]
fn the_prefixes_of_its_cilium_node_are_a_nodes_and_a_mode_without_any_is_named() {
    scenario(async {
        let cluster = Cluster::start();
        cilium_node(&cluster, "b", json!({"podCIDRs": ["10.0.7.0/24"]}));
        let mut a = Asker::start(&cluster, Source::Cilium);
        a.until_refused("there is no CiliumNode").await;
        cilium_node(&cluster, "a", json!({}));
        a.until_refused("Cilium's operator gave it none yet").await;
        cilium_node(&cluster, "a", json!({"podCIDRs": ["10.0.2.0/24", "fd00::200/120"]}));
        a.until_found(&["10.0.2.0/24", "fd00::200/120"]).await;
        cilium_node(&cluster, "a", json!({"podCIDRs": ["10.0.3.0/24"], "pool": {"10.80.17.39": {}}}));
        a.until_refused("overlay.mode = \"nodes\"").await;
        cilium_node(&cluster, "a", json!({"podCIDRs": ["10.0.3.0/24"]}));
        a.until_found(&["10.0.3.0/24"]).await;
    });
}

#[test]
fn the_pod_cidrs_of_its_node_are_read_whatever_the_registry_is() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = Asker::start(&cluster, Source::Kubernetes);
        a.until_refused("there is no Node").await;
        cluster.api.put(NODES, named("a", json!({})));
        a.until_refused("no spec.podCIDRs").await;
        cluster.api.put(NODES, named("a", json!({"podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]})));
        a.until_found(&["10.1.0.0/24", "fd00:1::/64"]).await;
        cluster.api.put(NODES, named("a", json!({"podCIDRs": ["ten"]})));
        a.until_refused("no prefixes").await;
    });
}

#[test]
fn an_api_server_that_is_away_refuses_or_forgets_is_said_and_then_followed_again() {
    scenario(async {
        let cluster = Cluster::start();
        affinity(&cluster, "a", "10.1.9.0/26", "confirmed");
        let mut a = Asker::start(&cluster, Source::Calico);
        a.until_found(&["10.1.9.0/26"]).await;
        for (mood, words) in [
            (Mood::Status(500), "the API server is not well"),
            (Mood::Status(403), "deploy/kubernetes/components/cidrs-calico"),
            (Mood::Strange, "knows no BlockAffinity of crd.projectcalico.org/v1"),
        ] {
            cluster.api.be(mood);
            a.until_refused(words).await;
        }
        affinity(&cluster, "a", "10.1.9.64/26", "confirmed");
        cluster.api.compact();
        cluster.api.be(Mood::Well);
        a.until_found(&["10.1.9.0/26", "10.1.9.64/26"]).await;
        cluster.api.cut();
        affinity(&cluster, "a", "10.1.9.128/26", "confirmed");
        a.until_found(&["10.1.9.0/26", "10.1.9.64/26", "10.1.9.128/26"]).await;
        let known = a.said.take().and_then(|said| said.ok()?.cluster);
        assert!(known.is_some(), "which cluster said it");
        cluster.api.become_another();
        a.until_refused("of another cluster").await;
        let mut again = Asker::with(&cluster, Source::Calico, known, &["10.1.9.0/26"]);
        again.until_refused("of another cluster").await;
    });
}

#[test]
fn what_calico_took_back_the_node_gives_back_in_kubernetes_and_claims_what_is_new() {
    scenario(async {
        let cluster = Cluster::start();
        let given = |cidrs: &[&str]| {
            Cidrs::Given(Given { cidrs: nets(cidrs), kept: nets(&["10.1.0.192/26"]), ..Given::default() })
        };
        cluster.api.node("a", &["10.9.0.0/24"], &["192.0.2.1".parse().expect("an address")]);
        let first = given(&["10.1.0.0/26", "10.1.0.64/26", "10.1.0.192/26"]);
        let mut a = Node::start(cluster.config(), record("a", "192.0.2.1"), first, Known::default());
        let all = ["10.1.0.0/26", "10.1.0.64/26", "10.1.0.192/26"];
        a.until("all are its own", |a| all.iter().all(|cidr| a.owner(cidr).is_some())).await;
        a.should_have(given(&["10.1.0.64/26", "10.1.0.128/26", "192.0.2.9/32"]));
        a.until("an address that is no Pod's is refused", |a| a.says("192.0.2.9/32 is not inside")).await;
        assert!(cluster.api.get(BLOCKS, "192-0-2-9-32").is_none(), "its block was made");
        a.until("the new one is its own", |a| a.owner("10.1.0.128/26").is_some()).await;
        cluster.until("the other is given back", |api| api.get(BLOCKS, "10-1-0-0-26").is_none()).await;
        assert!(cluster.api.get(BLOCKS, "10-1-0-64-26").is_some(), "what it still has");
        assert!(cluster.api.get(BLOCKS, "10-1-0-192-26").is_some(), "what nobody says to be another's");
        cluster.api.remove(BLOCKS, "10-1-0-192-26");
        cluster.until("and is made again where it is lost", |api| api.get(BLOCKS, "10-1-0-192-26").is_some()).await;
        let lost = Given { lost: nets(&all), ..Given::default() };
        a.should_have(Cidrs::Given(lost));
        let blocks = ["10-1-0-64-26", "10-1-0-192-26"];
        cluster
            .until("all that is lost by name goes", |api| blocks.iter().all(|name| api.get(BLOCKS, name).is_none()))
            .await;
        assert!(cluster.api.get(BLOCKS, "10-1-0-128-26").is_some(), "of what nobody speaks stays");
        assert_eq!(cluster.api.lists(BLOCKS), 1, "all was read again for a change of prefixes");
    });
}

#[test]
fn where_a_policy_compares_prefixes_a_record_goes_without_what_is_only_held() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        let published = |cidrs: &'static [&'static str]| {
            move |api: &ApiServer| api.get(RECORDS, "a").is_some_and(|one| one["spec"]["cidrs"] == json!(cidrs))
        };
        let used = ["10.9.0.7".parse().expect("an address")].into();
        a.should_have(Cidrs::Given(Given { cidrs: nets(&["10.1.0.0/24"]), used, ..Given::default() }));
        a.change(|record| record.cidrs = nets(&["10.1.0.0/24", "10.9.0.0/24"]));
        cluster.until("all is published", published(&["10.1.0.0/24", "10.9.0.0/24"])).await;
        cluster.api.compare();
        a.change(|record| record.mtu = 1400);
        a.until("it says what is refused", |a| a.says("not among the podCIDRs")).await;
        cluster.until("the rest is published", published(&["10.1.0.0/24"])).await;
        a.until("and that is well", Node::is_well).await;
        let writes = cluster.api.count("patch", RECORDS);
        a.listen(std::time::Duration::from_secs(8)).await;
        assert_eq!(cluster.api.count("patch", RECORDS), writes, "it is tried again for nothing");
        a.change(|record| record.cidrs = nets(&["10.1.0.0/24"]));
        a.listen(std::time::Duration::from_secs(2)).await;
        assert!(a.is_well() && cluster.api.count("patch", RECORDS) == writes, "nothing is new");
    });
}
