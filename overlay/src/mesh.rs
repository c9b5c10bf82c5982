//! The mesh: records, allocations and oneself in; peers, prefixes and refusals out. A pure function of the data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use warren_crypto::{PresharedKey, PublicKey};

use crate::record::NodeName;

mod claims;
mod compute;
mod entry_value;
mod ranges;
#[cfg(test)]
mod tests;

pub use compute::compute;

/// Tunnel or nothing, or a roll-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// Nodes without an agent are still reached in clear, and counted.
    Permissive,
    /// Tunnel or nothing.
    #[default]
    Strict,
}

/// What holds for the whole cluster; written by `warren cluster init`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Random, made by `cluster init`; a store that shows another one is another cluster.
    pub id: String,
    /// The prefixes that belong to the overlay, a superset of all Pod CIDRs.
    pub networks: BTreeSet<IpNet>,
    /// Tunnel or nothing, or a roll-out.
    #[serde(default)]
    pub enforcement: Enforcement,
}

/// "This CIDR belongs to that node", and since which revision of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The prefix.
    pub cidr: IpNet,
    /// Its owner.
    pub node: NodeName,
    /// The order: lowest owns.
    pub create_revision: u64,
}

/// A record as the registry delivered it: not parsed, not trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The node's name as the key says; a record that names another node is refused.
    pub key: String,
    /// The record's bytes (JSON).
    #[serde(with = "entry_value")]
    pub value: Vec<u8>,
    /// When the key was created: the order between duplicates.
    pub create_revision: u64,
}

/// Everything a registry knows at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What holds for the whole cluster; `None` before `cluster init`.
    pub cluster: Option<Cluster>,
    /// The nodes' records.
    pub entries: Vec<Entry>,
    /// The allocations.
    pub allocations: Vec<Allocation>,
    /// Allocations that `warren cluster release` took back, kept as tombstones: only these make a node forget who
    /// owned a prefix. An allocation that vanished without one (a wiped or restored store) is not forgotten.
    #[serde(default)]
    pub released: Vec<Allocation>,
    /// The store's revision.
    pub revision: u64,
}

/// A peer from the config file: a Warren node or any WireGuard peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPeer {
    /// Its name here.
    pub name: NodeName,
    /// Its public key.
    pub public_key: PublicKey,
    /// Where it listens; `None`: it comes to us.
    pub endpoint: Option<SocketAddr>,
    /// The prefixes behind it.
    pub cidrs: BTreeSet<IpNet>,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The secret shared with it.
    pub preshared_key: Option<PresharedKey>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<u16>,
    /// The largest inner packet it takes.
    pub mtu: Option<u16>,
    /// What else it can do.
    pub features: BTreeSet<String>,
}

/// Where a peer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The config file: wins over the registry for the same name, key or prefix.
    Static,
    /// The store.
    Registry,
}

/// A peer this node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSpec {
    /// Its name.
    pub name: NodeName,
    /// Where it comes from.
    pub origin: Origin,
    /// Its public key.
    pub public_key: PublicKey,
    /// Where it listens, best first; empty: it comes to us.
    pub endpoints: Vec<SocketAddr>,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The prefixes it may use, after ownership was settled.
    pub cidrs: BTreeSet<IpNet>,
    /// The largest inner packet it takes.
    pub mtu: Option<u16>,
    /// The secret shared with it.
    pub preshared_key: Option<PresharedKey>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<u16>,
    /// What else it can do.
    pub features: BTreeSet<String>,
}

/// The node itself, as far as the mesh is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its name.
    pub name: NodeName,
    /// Its public key.
    pub public_key: PublicKey,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The CIDRs it asks for (`[]` with a store that allocates: whatever is allocated to it).
    pub cidrs: BTreeSet<IpNet>,
    /// Addresses that this host depends on: its gateways, its registry. A peer needs a grant for these.
    pub protected: BTreeSet<IpAddr>,
}

/// Who owned what, remembered on disk so that a wiped or restored store cannot hand a live CIDR to another node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// Prefix to owner.
    pub owners: BTreeMap<IpNet, NodeName>,
    /// Public key to the peer that has it.
    #[serde(default)]
    pub keys: BTreeMap<PublicKey, NodeName>,
    /// Node address to the peer that has it.
    #[serde(default)]
    pub addresses: BTreeMap<IpAddr, NodeName>,
}

impl Ownership {
    /// Forgets the keys and addresses of peers that are no longer there; true when there were any.
    pub fn forget_absent(&mut self, peers: &BTreeMap<NodeName, PeerSpec>) -> bool {
        let before = (self.keys.len(), self.addresses.len());
        self.keys.retain(|_, owner| peers.contains_key(owner));
        self.addresses.retain(|_, owner| peers.contains_key(owner));
        before != (self.keys.len(), self.addresses.len())
    }
}

/// Why a record, a claim or a static peer was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The registry key or static name that was refused.
    pub subject: String,
    /// What was refused: the whole record, or one prefix of it.
    pub cidr: Option<IpNet>,
    /// A stable name: `malformed`, `oversized`, `unknown_version`, `name_mismatch`, `duplicate_key`, `duplicate_name`,
    /// `reserved_range`, `overlap`, `not_allocated`, `node_address`, `needs_grant`, `granted_elsewhere`, `own_key`, ...
    pub reason: String,
    /// For people: what, where, what to do.
    pub detail: String,
}

/// What this node should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mesh {
    /// The peers by name.
    pub peers: BTreeMap<NodeName, PeerSpec>,
    /// This node's own CIDRs after ownership was settled.
    pub own_cidrs: BTreeSet<IpNet>,
    /// What was not taken, sorted.
    pub refusals: Vec<Refusal>,
    /// What to remember of ownership.
    pub ownership: Ownership,
}
