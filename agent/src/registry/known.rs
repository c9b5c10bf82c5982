//! What is remembered of the cluster while a registry is read: first from disk, then of what was told.

use std::collections::BTreeMap;

use ipnet::IpNet;
use warren_overlay::mesh::{Cluster, Entry, Snapshot};
use warren_overlay::record::NodeName;

/// What a store must not contradict.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The cluster as last seen: a store that shows another one is another store.
    pub cluster: Option<Cluster>,
    /// Who owned what and was not released: a store that was wiped gives it to nobody else.
    pub owners: BTreeMap<IpNet, NodeName>,
    /// The records of the last good mesh, by key: a store that was restored while this node was down goes back behind
    /// none of them.
    pub entries: Vec<Entry>,
}

impl Known {
    /// Remembers who owns what; who owned it first stays the owner until it is released.
    pub(super) fn learn(&mut self, snapshot: &Snapshot) {
        for gone in &snapshot.released {
            if self.owners.get(&gone.cidr) == Some(&gone.node) {
                self.owners.remove(&gone.cidr);
            }
        }
        for given in &snapshot.allocations {
            self.owners.entry(given.cidr).or_insert_with(|| given.node.clone());
        }
    }
}
