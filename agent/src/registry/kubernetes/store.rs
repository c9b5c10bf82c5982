//! What the API server holds, merged from lists and the watches behind them. Malformed objects harm nobody but themselves.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use warren_overlay::mesh::{Allocation, Cluster, Enforcement, Entry, Snapshot};
use warren_overlay::record::{NodeName, Record};

use super::follow::{News, OBJECTS, Start, went_back};
use super::names::block_name;
use super::object::{Kind, Object, version};
use super::resources::CLUSTER_NAME;
use super::surplus::{BLOCKS, leave_out};
use crate::registry::Known;

/// Everything of one cluster.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<Kind, BTreeMap<String, Object>>,
    /// Names of what is deleted and kept by finalizers alone.
    going: BTreeMap<Kind, BTreeSet<String>>,
    /// Of what there was more than is taken, since it was listed last.
    overflown: BTreeSet<Kind>,
    /// How far each kind was heard.
    versions: BTreeMap<Kind, String>,
    /// When each kind was listed last; not there for what has to be listed again.
    listed: BTreeMap<Kind, Instant>,
}

#[derive(Deserialize)]
struct ClusterSpec {
    networks: Vec<IpNet>,
    enforcement: Enforcement,
}

#[derive(Deserialize)]
struct BlockSpec {
    cidr: IpNet,
    node: NodeName,
}

/// A block that can be read.
pub(super) struct Block<'s> {
    pub(super) object: &'s Object,
    pub(super) cidr: IpNet,
    pub(super) node: NodeName,
    created: u64,
}

impl Store {
    /// Takes news; `true` when a list is of an older version than was known: somebody restored the store.
    pub(super) fn apply(&mut self, news: News) -> bool {
        match news {
            News::Listed(kind, listed, version) => {
                self.overflown.remove(&kind);
                self.objects.insert(kind, BTreeMap::new());
                self.going.remove(&kind);
                if listed.len() >= OBJECTS {
                    self.overflown.insert(kind);
                }
                listed.into_iter().for_each(|object| self.take(kind, object));
                let is_older = self.versions.get(&kind).is_some_and(|before| went_back(before, &version));
                self.versions.insert(kind, version);
                self.listed.insert(kind, Instant::now());
                is_older
            }
            News::Changed(kind, value) => {
                self.note(kind, &value);
                if let Some(object) = Object::read(kind, value) {
                    self.take(kind, object);
                }
                false
            }
            News::Gone(kind, value) => {
                self.note(kind, &value);
                if let Some(object) = Object::read(kind, value) {
                    self.lose(kind, &object.name);
                }
                false
            }
            News::Reached(kind, version) => {
                self.versions.insert(kind, version);
                false
            }
            News::Doubted(kind) => {
                self.listed.remove(&kind);
                false
            }
            News::Ailing(..) | News::Mended(_) => false,
        }
    }

    /// In the place of one that had its name, or beside the others as long as there is room.
    fn take(&mut self, kind: Kind, object: Object) {
        if object.going {
            self.lose(kind, &object.name);
            self.going.entry(kind).or_default().insert(object.name);
            return;
        }
        let objects = self.objects.entry(kind).or_default();
        if objects.len() >= OBJECTS && !objects.contains_key(&object.name) {
            self.overflown.insert(kind);
            return;
        }
        self.going.entry(kind).or_default().remove(&object.name);
        objects.insert(object.name.clone(), object);
    }

    fn lose(&mut self, kind: Kind, name: &str) {
        self.objects.entry(kind).or_default().remove(name);
        self.going.entry(kind).or_default().remove(name);
    }

    /// Deleted, and not yet gone: somebody's finalizers keep it.
    pub(super) fn is_going(&self, kind: Kind, name: &str) -> bool {
        self.going.get(&kind).is_some_and(|names| names.contains(name))
    }

    /// Of what there is more than is known. What is not known then is not missing.
    pub(super) fn overflown(&self) -> impl Iterator<Item = Kind> {
        self.overflown.iter().copied()
    }

    /// How far a kind was heard.
    pub(super) fn reached(&self, kind: Kind) -> Option<&str> {
        self.versions.get(&kind).map(String::as_str)
    }

    fn note(&mut self, kind: Kind, value: &Value) {
        self.versions.extend(version(value).map(|version| (kind, version)));
    }

    /// How many of a kind there are; `None` before they were listed.
    pub(super) fn count(&self, kind: Kind) -> Option<usize> {
        self.objects.get(&kind).map(BTreeMap::len)
    }

    /// Where a watch may go on.
    pub(super) fn start(&self, kind: Kind) -> Option<Start> {
        let (version, listed_at) = (self.versions.get(&kind)?.clone(), *self.listed.get(&kind)?);
        Some(Start { version, listed_at })
    }

    /// Whether every kind was listed.
    pub(super) fn is_complete(&self) -> bool {
        Kind::REGISTRY.iter().all(|kind| self.objects.contains_key(kind))
    }

    /// The highest version of all, as a number where it is one: for people.
    pub(super) fn revision(&self) -> u64 {
        self.versions.values().filter_map(|version| version.parse().ok()).max().unwrap_or(0)
    }

    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<&Object> {
        self.objects.get(&kind)?.get(name)
    }

    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// What an administrator says of the cluster.
    pub(super) fn cluster(&self, id: &str) -> Result<Cluster, String> {
        let Some(object) = self.get(Kind::Cluster, CLUSTER_NAME) else {
            return Err(format!(
                "there is no WarrenCluster {CLUSTER_NAME:?}: apply one with the cluster's networks, as in \
                 deploy/kubernetes/overlays/kubernetes/cluster.yaml"
            ));
        };
        let Some(ClusterSpec { networks, enforcement }) = object.spec() else {
            return Err(format!("the WarrenCluster {CLUSTER_NAME:?} cannot be read: are all its networks prefixes?"));
        };
        Ok(Cluster { id: id.to_owned(), networks: networks.iter().map(IpNet::trunc).collect(), enforcement })
    }

    /// Every block that can be read; and what is wrong with the others.
    pub(super) fn blocks(&self) -> (Vec<Block<'_>>, Vec<String>) {
        let (mut blocks, mut faults) = (Vec::new(), Vec::new());
        for object in self.all(Kind::Block) {
            match read(object) {
                Some(block) => blocks.push(block),
                None => faults.push(format!("the WarrenBlock {:?} is damaged and ignored", object.name)),
            }
        }
        faults.extend(leave_out(&mut blocks, BLOCKS));
        (blocks, faults)
    }

    /// As the mesh takes it, and what was left out.
    pub(super) fn snapshot(&self, cluster: Cluster, known: &Known) -> (Snapshot, Vec<String>) {
        let (blocks, mut faults) = self.blocks();
        faults.extend(self.overflown().map(|kind| {
            format!("there are more than {OBJECTS} objects of the kind {kind:?}: the others are not known; delete some")
        }));
        let (blocks, grants): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|block| !is_own_grant(block, &cluster));
        faults.extend(grants.iter().map(|block| {
            format!(
                "{} lies outside of the cluster network, and only an administrator grants node addresses",
                block.cidr
            )
        }));
        let allocations: Vec<_> = blocks.into_iter().map(Allocation::from).collect();
        let entries = self.all(Kind::Record).map(|object| Entry {
            key: object.name.clone(),
            value: object.spec.clone(),
            create_revision: object.created.unwrap_or(u64::MAX),
        });
        let snapshot = Snapshot {
            entries: entries.collect(),
            released: self.missing(&allocations, known),
            allocations,
            revision: self.revision(),
            cluster: Some(cluster),
        };
        (snapshot, faults)
    }

    /// What is remembered of somebody who no longer has it, and does not say that he has. Whether it was given back, time
    /// shows.
    fn missing(&self, allocations: &[Allocation], known: &Known) -> Vec<Allocation> {
        let given: BTreeSet<_> = allocations.iter().map(|given| (given.cidr, &given.node)).collect();
        let claims = |node: &NodeName, cidr: &IpNet| {
            let record = self.get(Kind::Record, node.as_str()).and_then(|object| Record::parse(&object.spec).ok());
            record.is_some_and(|record| record.cidrs.contains(cidr))
        };
        let gone = known.owners.iter().filter(|(cidr, node)| !given.contains(&(**cidr, *node)) && !claims(node, cidr));
        gone.map(|(cidr, node)| Allocation { cidr: *cidr, node: node.clone(), create_revision: 0 }).collect()
    }
}

impl Block<'_> {
    /// When it was made: the order of ownership.
    pub(super) fn created(&self) -> u64 {
        self.created
    }
}

/// Only under its own name and with the time of its making, by which ownership is ordered.
fn read(object: &Object) -> Option<Block<'_>> {
    let BlockSpec { cidr, node } = object.spec()?;
    let named = cidr.addr() == cidr.network() && block_name(cidr).as_deref() == Some(object.name.as_str());
    named.then_some(Block { object, cidr, node, created: object.created? })
}

/// A node's agent gives itself Pod prefixes alone: what would grant it a node address, it must not write.
fn is_own_grant(block: &Block<'_>, cluster: &Cluster) -> bool {
    block.object.owner.is_some() && !cluster.networks.iter().any(|network| network.contains(&block.cidr))
}

impl From<Block<'_>> for Allocation {
    fn from(block: Block<'_>) -> Self {
        Self { cidr: block.cidr, node: block.node, create_revision: block.created }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn block(name: &str, cidr: &str, node: &str, owner: &Value) -> Value {
        json!({"metadata": {"name": name, "uid": name, "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": owner}, "spec": {"cidr": cidr, "node": node}})
    }

    fn listed(kind: Kind, items: Vec<Value>, version: &str) -> News {
        let objects = items.into_iter().filter_map(|item| Object::read(kind, item)).collect();
        News::Listed(kind, objects, version.to_owned())
    }

    fn store(blocks: Vec<Value>, records: Vec<Value>) -> Store {
        let mut store = Store::default();
        store.apply(listed(Kind::Block, blocks, "7"));
        store.apply(listed(Kind::Record, records, "8"));
        store
    }

    fn cluster() -> Cluster {
        Cluster { networks: ["10.0.0.0/8".parse().unwrap()].into(), ..Cluster::default() }
    }

    fn record(node: &str, cidrs: &[&str]) -> Value {
        let key = warren_crypto::PublicKey::from_bytes([9; 32]).to_string();
        json!({"metadata": {"name": node}, "spec": {"version": 1, "publicKey": key,
            "endpoints": ["192.0.2.1:51840"], "cidrs": cidrs, "mtu": 1420, "workers": 1}})
    }

    #[test]
    fn only_blocks_under_their_own_names_and_of_their_own_kind_allocate() {
        let owned = json!([{"kind": "Node", "uid": "u"}]);
        let store = store(
            vec![
                block("10-1-0-0-24", "10.1.0.0/24", "a", &json!(null)),
                block("10-2-0-0-24", "10.3.0.0/24", "a", &json!(null)),
                block("10-4-0-1-24", "10.4.0.1/24", "a", &json!(null)),
                block("192-0-2-9-32", "192.0.2.9/32", "evil", &owned),
                block("192-0-2-8-32", "192.0.2.8/32", "b", &json!(null)),
                json!({"metadata": {"name": "x"}, "spec": 7}),
            ],
            Vec::new(),
        );
        let (snapshot, faults) = store.snapshot(cluster(), &Known::default());
        let given: Vec<_> = snapshot.allocations.iter().map(|given| given.cidr.to_string()).collect();
        assert_eq!(given, ["10.1.0.0/24", "192.0.2.8/32"]);
        assert_eq!(faults.len(), 4, "{faults:?}");
    }

    #[test]
    fn what_is_gone_is_missing_only_when_its_owner_does_not_claim_it() {
        let owners = [("10.1.0.0/24", "a"), ("10.2.0.0/24", "b"), ("10.3.0.0/24", "c")];
        let owners = owners.map(|(cidr, node)| (cidr.parse().unwrap(), node.parse().unwrap()));
        let known = Known { owners: owners.into(), ..Known::default() };
        let store = store(
            vec![block("10-1-0-0-24", "10.1.0.0/24", "a", &json!(null))],
            vec![record("b", &["10.2.0.0/24"]), record("a", &[])],
        );
        let (snapshot, _) = store.snapshot(cluster(), &known);
        let gone: Vec<_> = snapshot.released.iter().map(|gone| gone.node.as_str()).collect();
        assert_eq!(gone, ["c"], "b's allocation was wiped, but b is there and says that it is its own");
    }

    #[test]
    fn a_list_of_an_older_version_is_a_store_that_was_restored() {
        let mut store = store(Vec::new(), Vec::new());
        assert!(!store.apply(listed(Kind::Record, Vec::new(), "8")));
        assert!(store.apply(listed(Kind::Record, Vec::new(), "7")));
        assert!(!store.apply(listed(Kind::Record, Vec::new(), "7")));
        assert!(store.start(Kind::Record).is_some());
        store.apply(News::Doubted(Kind::Record));
        assert!(store.start(Kind::Record).is_none(), "it has to be listed again");
        assert!(store.apply(listed(Kind::Record, Vec::new(), "6")), "what was doubted is still compared");
    }

    #[test]
    fn what_is_being_deleted_is_gone_whoever_holds_on_to_it() {
        let mut going = record("a", &[]);
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        going["metadata"]["finalizers"] = json!(["mallory.example/stay"]);
        let mut store = store(Vec::new(), vec![record("a", &[]), record("b", &[])]);
        store.apply(News::Changed(Kind::Record, going.clone()));
        assert!(store.get(Kind::Record, "a").is_none() && store.get(Kind::Record, "b").is_some());
        assert!(store.is_going(Kind::Record, "a") && !store.is_going(Kind::Record, "b"));
        store.apply(News::Changed(Kind::Node, going.clone()));
        assert!(store.get(Kind::Node, "a").is_some(), "a Node that is drained is still there");
        store.apply(News::Gone(Kind::Record, going.clone()));
        assert!(!store.is_going(Kind::Record, "a"), "it is really gone");
        store.apply(listed(Kind::Record, vec![going], "9"));
        assert!(store.is_going(Kind::Record, "a") && store.get(Kind::Record, "a").is_none());
        store.apply(News::Changed(Kind::Record, record("a", &[])));
        assert!(!store.is_going(Kind::Record, "a") && store.get(Kind::Record, "a").is_some());
    }
}
