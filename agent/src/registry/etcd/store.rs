//! What the store holds, merged from a list and the watch behind it. Malformed values harm nobody but themselves.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{Event, EventType, KeyValue};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use warren_overlay::mesh::{Allocation, Cluster, Entry, Snapshot};
use warren_overlay::record::{NodeName, RECORD_MAX};

use super::keys::{Key, Keys};

/// The value of an allocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) node: NodeName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    bytes: Vec<u8>,
    create_revision: u64,
    mod_revision: i64,
}

/// As much of a value as it takes to refuse it as oversized.
fn kept(value: &[u8]) -> &[u8] {
    value.get(..=RECORD_MAX).unwrap_or(value)
}

/// A store's past as against what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    /// The same up to what is known.
    Same,
    /// What is known was overwritten or deleted since.
    Further,
    /// What is known never happened there.
    Another,
}

/// All keys of the cluster at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    values: BTreeMap<Vec<u8>, Value>,
    revision: i64,
    cluster_id: u64,
    /// A watch may go on at `revision` + 1.
    resumable: bool,
}

impl Store {
    /// Everything that was listed at `revision`.
    pub(super) fn listed(values: impl IntoIterator<Item = KeyValue>, revision: i64) -> Self {
        let mut store = Self { revision, resumable: true, ..Self::default() };
        for value in values {
            store.put(&value);
        }
        store
    }

    fn put(&mut self, value: &KeyValue) {
        let create_revision = u64::try_from(value.create_revision()).unwrap_or(0);
        self.values.insert(
            value.key().to_vec(),
            Value { bytes: kept(value.value()).to_vec(), create_revision, mod_revision: value.mod_revision() },
        );
    }

    /// Takes news; whether they are that a prefix was given back.
    pub(super) fn apply(&mut self, event: &Event, keys: &Keys) -> bool {
        let Some(value) = event.kv() else { return false };
        // Not what the reply's header says: of a long past the store sends a part at a time, each under the latest
        // revision, and a watch that is cut off in between must not skip the rest.
        self.revision = self.revision.max(value.mod_revision());
        match event.event_type() {
            EventType::Put => {
                self.put(value);
                false
            }
            EventType::Delete => {
                self.values.remove(value.key());
                matches!(keys.parse(value.key()), Some(Key::Allocation(_)))
            }
        }
    }

    /// The revision of what is known.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn forget_revision(&mut self) {
        self.resumable = false;
    }

    pub(super) fn set_cluster_id(&mut self, cluster_id: u64) {
        self.cluster_id = cluster_id;
    }

    /// Whether this was read from that etcd cluster.
    pub(super) fn is_of(&self, cluster_id: u64) -> bool {
        self.cluster_id == cluster_id
    }

    /// Whether a watch may go on: the same store, and it has not gone back in time.
    pub(super) fn can_resume(&self, cluster_id: u64, revision: i64) -> bool {
        self.resumable && self.cluster_id == cluster_id && revision >= self.revision
    }

    /// The key that was written last. A store restored from a snapshot and written to since does not have it like this,
    /// however far its revision has come.
    pub(super) fn latest(&self) -> Option<&[u8]> {
        self.values.iter().max_by_key(|(_, value)| value.mod_revision).map(|(key, _)| key.as_slice())
    }

    /// How the store's key compares with what is known of it here.
    pub(super) fn history(&self, key: &[u8], found: Option<&KeyValue>) -> History {
        match (self.values.get(key), found) {
            (Some(known), Some(found)) if known.mod_revision > found.mod_revision() => History::Another,
            (Some(known), Some(found)) if known.mod_revision == found.mod_revision() => {
                if known.bytes == kept(found.value()) { History::Same } else { History::Another }
            }
            _ => History::Further,
        }
    }

    /// Whether the store has gone back behind what is known.
    pub(super) fn is_newer_than(&self, revision: i64) -> bool {
        self.revision > revision
    }

    /// The cluster; `None` before `cluster init`.
    pub(super) fn cluster(&self, keys: &Keys) -> Result<Option<Cluster>, String> {
        let Some(value) = self.values.get(keys.cluster().as_bytes()) else { return Ok(None) };
        serde_json::from_slice(&value.bytes).map(Some).map_err(|error| {
            format!("the key {} is damaged ({error}): run `warren cluster init` again", keys.cluster())
        })
    }

    /// As the mesh takes it, and what was left out.
    pub fn snapshot(&self, keys: &Keys) -> (Snapshot, Vec<String>) {
        let mut snapshot = Snapshot { revision: u64::try_from(self.revision).unwrap_or(0), ..Snapshot::default() };
        let mut faults = Vec::new();
        for (key, value) in &self.values {
            let create_revision = value.create_revision;
            match keys.parse(key) {
                Some(Key::Cluster) => snapshot.cluster = serde_json::from_slice(&value.bytes).ok(),
                Some(Key::Node(key)) => {
                    snapshot.entries.push(Entry { key, value: value.bytes.clone(), create_revision })
                }
                Some(Key::Allocation(cidr)) => match serde_json::from_slice(&value.bytes) {
                    Ok(Owner { node }) => snapshot.allocations.push(Allocation { cidr, node, create_revision }),
                    Err(_) => faults.push(format!("the allocation of {cidr} is damaged and ignored")),
                },
                Some(Key::Released(cidr, node)) => snapshot.released.push(Allocation { cidr, node, create_revision }),
                None => {}
            }
        }
        (snapshot, faults)
    }

    /// Whether it was taken back from the node, or the node gave it back, and did not get it again.
    pub(super) fn is_released(&self, keys: &Keys, cidr: IpNet, node: &NodeName) -> bool {
        self.values.contains_key(keys.released(cidr, node).as_bytes())
    }

    /// What is allocated to the node, and what was taken back from it.
    pub(super) fn given(&self, keys: &Keys, node: &NodeName) -> (Vec<IpNet>, BTreeSet<IpNet>) {
        let (snapshot, _) = self.snapshot(keys);
        let of_node = |given: &&Allocation| given.node == *node;
        let own = snapshot.allocations.iter().filter(of_node).map(|given| given.cidr).collect();
        (own, snapshot.released.iter().filter(of_node).map(|gone| gone.cidr).collect())
    }
}
