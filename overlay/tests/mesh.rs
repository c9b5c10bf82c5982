//! The mesh as the control plane uses it: what a store lost or restored may change, and what it may not.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;
use warren_crypto::PublicKey;
use warren_overlay::mesh::{
    Allocation, Cluster, Enforcement, Entry, Mesh, Own, Ownership, Snapshot, StaticPeer, compute,
};
use warren_overlay::record::{NodeName, RECORD_VERSION, Record};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn entry(node: &str, key: u8, address: &str, cidrs: &[&str], create_revision: u64) -> Entry {
    let record = Record {
        version: RECORD_VERSION,
        name: name(node),
        public_key: PublicKey::from_bytes([key; 32]),
        endpoints: vec![format!("{address}:51840").parse().unwrap()],
        addresses: [address.parse().unwrap()].into(),
        cidrs: cidrs.iter().map(|cidr| net(cidr)).collect(),
        mtu: 1420,
        workers: 1,
        suites: Vec::new(),
        features: BTreeSet::new(),
        agent: String::new(),
    };
    Entry { key: node.to_owned(), value: record.to_bytes(), create_revision }
}

fn allocation(cidr: &str, node: &str, create_revision: u64) -> Allocation {
    Allocation { cidr: net(cidr), node: name(node), create_revision }
}

fn own() -> Own {
    Own {
        name: name("own"),
        public_key: PublicKey::from_bytes([200; 32]),
        addresses: ["192.0.2.200".parse().unwrap()].into(),
        cidrs: BTreeSet::new(),
        protected: BTreeSet::new(),
    }
}

/// Two nodes and this one.
fn healthy() -> Snapshot {
    Snapshot {
        cluster: Some(Cluster {
            id: "c".into(),
            networks: [net("10.0.0.0/8")].into(),
            enforcement: Enforcement::Strict,
        }),
        entries: vec![
            entry("a", 1, "192.0.2.1", &["10.1.0.0/24"], 10),
            entry("b", 2, "192.0.2.2", &["10.2.0.0/24"], 11),
        ],
        allocations: vec![
            allocation("10.1.0.0/24", "a", 2),
            allocation("10.2.0.0/24", "b", 3),
            allocation("10.200.0.0/24", "own", 4),
        ],
        released: Vec::new(),
        revision: 20,
    }
}

fn mesh(snapshot: &Snapshot, memory: &Ownership) -> Mesh {
    compute(&own(), Some(snapshot), &[], memory, &Cluster::default())
}

fn reasons(mesh: &Mesh) -> Vec<&str> {
    mesh.refusals.iter().map(|refusal| refusal.reason.as_str()).collect()
}

#[test]
fn a_store_without_its_allocations_takes_no_prefix_from_anybody() {
    let before = mesh(&healthy(), &Ownership::default());
    let wiped = Snapshot { allocations: Vec::new(), revision: 1, ..healthy() };
    let after = mesh(&wiped, &before.ownership);
    assert_eq!(after.own_cidrs, before.own_cidrs, "our own Pods stay reachable");
    assert_eq!(after.peers, before.peers, "and so do those of the peers");
    assert_eq!(after.ownership, before.ownership);
    assert!(after.refusals.is_empty(), "{:?}", after.refusals);
}

#[test]
fn an_empty_store_leaves_this_node_its_own_prefixes() {
    let before = mesh(&healthy(), &Ownership::default());
    let after = mesh(&Snapshot::default(), &before.ownership);
    assert_eq!(after.own_cidrs, before.own_cidrs);
}

#[test]
fn a_released_prefix_is_lost_even_to_this_node() {
    let before = mesh(&healthy(), &Ownership::default());
    let mut released = Snapshot { allocations: Vec::new(), ..healthy() };
    released.released = vec![allocation("10.200.0.0/24", "own", 4), allocation("10.1.0.0/24", "a", 2)];
    let after = mesh(&released, &before.ownership);
    assert!(after.own_cidrs.is_empty());
    assert!(after.peers[&name("a")].cidrs.is_empty());
    assert_eq!(after.peers[&name("b")].cidrs, [net("10.2.0.0/24")].into(), "b was not released");
}

#[test]
fn a_released_prefix_can_be_allocated_again_to_the_same_node() {
    let mut again = healthy();
    again.released = vec![allocation("10.1.0.0/24", "a", 1)];
    let memory = mesh(&healthy(), &Ownership::default()).ownership;
    assert_eq!(mesh(&again, &memory).peers[&name("a")].cidrs, [net("10.1.0.0/24")].into());
}

#[test]
fn a_refused_allocation_is_not_remembered_and_blocks_nobody() {
    let mut snapshot = healthy();
    for (revision, cidr) in [(0, "0.0.0.0/0"), (1, "192.0.0.0/8")] {
        snapshot.allocations.push(allocation(cidr, "evil", revision));
    }
    let result = mesh(&snapshot, &Ownership::default());
    let calm = mesh(&healthy(), &Ownership::default());
    assert_eq!((result.peers, result.own_cidrs, result.ownership), (calm.peers, calm.own_cidrs, calm.ownership));
}

#[test]
fn an_own_address_inside_an_own_prefix_hides_nobody_else_s() {
    let peer = |name: &str, key, cidrs: &[&str], address: &str| StaticPeer {
        name: name.parse().unwrap(),
        public_key: PublicKey::from_bytes([key; 32]),
        endpoint: None,
        cidrs: cidrs.iter().map(|cidr| net(cidr)).collect(),
        addresses: [address.parse().unwrap()].into(),
        preshared_key: None,
        persistent_keepalive: None,
        mtu: None,
        features: BTreeSet::new(),
    };
    let own = Own { addresses: ["10.0.0.1".parse().unwrap()].into(), ..own() };
    let statics = [peer("p", 7, &[], "10.0.0.9")];
    let mut snapshot = healthy();
    snapshot.allocations = vec![allocation("10.0.0.0/24", "own", 2)];
    let result = compute(&own, Some(&snapshot), &statics, &Ownership::default(), &Cluster::default());
    assert!(result.own_cidrs.is_empty(), "10.0.0.9 belongs to p");
    assert!(reasons(&result).contains(&"node_address"));
}

#[test]
fn an_endpoint_anywhere_in_the_cluster_network_is_refused() {
    let mut snapshot = healthy();
    snapshot.entries.push(entry("loop", 9, "10.99.0.1", &[], 30));
    let result = mesh(&snapshot, &Ownership::default());
    assert!(result.peers[&name("loop")].endpoints.is_empty(), "the tunnel would carry itself");
    assert!(reasons(&result).contains(&"endpoint_in_overlay"));
}

#[test]
fn what_is_remembered_changes_nothing_as_long_as_the_store_is_whole() {
    let mut contested = healthy();
    contested.allocations.push(allocation("10.1.0.0/16", "b", 9));
    contested.allocations.push(allocation("10.1.0.128/25", "c", 1));
    let first = mesh(&contested, &Ownership::default());
    let second = mesh(&contested, &first.ownership);
    assert_eq!(
        (&second.peers, &second.own_cidrs, &second.ownership),
        (&first.peers, &first.own_cidrs, &first.ownership)
    );
}

/// Histories of allocations: some made, some lost with the store, none released.
fn history() -> impl Strategy<Value = Vec<Vec<(u8, u8, u64)>>> {
    let allocations = prop::collection::vec((0u8..6, 0u8..4, 1u64..50), 0..8);
    prop::collection::vec(allocations, 1..5)
}

proptest! {
    #[test]
    fn a_prefix_never_changes_hands_without_a_release(history in history()) {
        let prefixes = ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/25", "10.9.0.0/24", "10.200.0.0/24", "10.0.0.0/9"];
        let nodes = ["a", "b", "own", "late"];
        let mut memory = Ownership::default();
        for step in history {
            let allocations = step.iter()
                .map(|(prefix, node, revision)| allocation(prefixes[*prefix as usize], nodes[*node as usize], *revision));
            let snapshot = Snapshot { allocations: allocations.collect(), ..healthy() };
            let result = mesh(&snapshot, &memory);
            for (cidr, owner) in &memory.owners {
                prop_assert_eq!(result.ownership.owners.get(cidr), Some(owner));
            }
            for (cidr, owner) in &result.ownership.owners {
                let overlapping = result.ownership.owners.iter()
                    .filter(|(other, _)| other.contains(cidr) || cidr.contains(*other));
                prop_assert!(overlapping.map(|(_, holder)| holder).all(|holder| holder == owner), "{} is shared", cidr);
            }
            let again = mesh(&snapshot, &result.ownership);
            prop_assert_eq!((&again.peers, &again.ownership), (&result.peers, &result.ownership));
            memory = result.ownership;
        }
    }
}
