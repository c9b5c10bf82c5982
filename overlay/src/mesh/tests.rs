//! Ownership, refusals, and that nothing depends on the order in which things were learnt.

use proptest::prelude::*;

use super::*;
use crate::record::{RECORD_VERSION, Record};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

fn entry(node: &str, key_byte: u8, address: &str, cidrs: &[&str], create_revision: u64) -> Entry {
    let record = Record {
        version: RECORD_VERSION,
        name: name(node),
        public_key: key(key_byte),
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
        public_key: key(200),
        addresses: ["192.0.2.200".parse().unwrap()].into(),
        cidrs: BTreeSet::new(),
        protected: BTreeSet::new(),
    }
}

fn cluster() -> Cluster {
    Cluster { id: "c".into(), networks: [net("10.0.0.0/8"), net("fd00::/16")].into(), enforcement: Enforcement::Strict }
}

/// Three honest nodes and this one.
fn honest() -> Snapshot {
    Snapshot {
        cluster: Some(cluster()),
        entries: vec![
            entry("a", 1, "192.0.2.1", &["10.1.0.0/24"], 10),
            entry("b", 2, "192.0.2.2", &["10.2.0.0/24", "fd00:2::/64"], 11),
            entry("c", 3, "192.0.2.3", &["10.3.0.0/24"], 12),
        ],
        allocations: vec![
            allocation("10.1.0.0/24", "a", 2),
            allocation("10.2.0.0/24", "b", 3),
            allocation("fd00:2::/64", "b", 4),
            allocation("10.3.0.0/24", "c", 5),
            allocation("10.200.0.0/24", "own", 6),
        ],
        released: Vec::new(),
        revision: 20,
    }
}

fn mesh(snapshot: &Snapshot) -> Mesh {
    compute(&own(), Some(snapshot), &[], &Ownership::default(), &Cluster::default())
}

fn reasons(mesh: &Mesh) -> Vec<&str> {
    mesh.refusals.iter().map(|refusal| refusal.reason.as_str()).collect()
}

#[test]
fn honest_nodes_become_peers_with_what_is_allocated_to_them() {
    let mesh = mesh(&honest());
    assert_eq!(mesh.peers.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(mesh.peers[&name("b")].cidrs, [net("10.2.0.0/24"), net("fd00:2::/64")].into());
    assert_eq!(mesh.own_cidrs, [net("10.200.0.0/24")].into());
    assert!(mesh.refusals.is_empty());
}

#[test]
fn an_overlap_of_any_length_refuses_the_newcomer() {
    for cidr in ["10.1.0.0/24", "10.1.0.0/16", "10.1.0.128/25", "10.1.0.7/32"] {
        let mut snapshot = honest();
        snapshot.allocations.push(allocation(cidr, "evil", 90));
        snapshot.entries.push(entry("evil", 66, "192.0.2.66", &[cidr], 91));
        let result = mesh(&snapshot);
        assert_eq!(result.peers[&name("a")], mesh(&honest()).peers[&name("a")], "{cidr}");
        assert!(result.peers[&name("evil")].cidrs.is_empty(), "{cidr}");
        assert_eq!(reasons(&result), ["not_allocated", "overlap"], "{cidr}");
    }
}

#[test]
fn what_is_not_allocated_is_not_routed() {
    let mut snapshot = honest();
    snapshot.entries[0] = entry("a", 1, "192.0.2.1", &["10.1.0.0/24", "10.77.0.0/24", "10.3.0.0/24"], 10);
    let mesh = mesh(&snapshot);
    assert_eq!(mesh.peers[&name("a")].cidrs, [net("10.1.0.0/24")].into());
    assert_eq!(reasons(&mesh), ["not_allocated", "not_allocated"]);
}

#[test]
fn reserved_ranges_are_nobody_s() {
    let mut snapshot = honest();
    snapshot.cluster = Some(Cluster { networks: BTreeSet::new(), ..cluster() });
    let reserved = [
        "0.0.0.0/0",
        "::/0",
        "127.0.0.0/8",
        "127.1.0.0/16",
        "169.254.169.0/24",
        "224.0.0.0/8",
        "fe80::/64",
        "ff02::/16",
        "::1/128",
        "0.0.0.0/1",
    ];
    for (at, cidr) in reserved.iter().enumerate() {
        snapshot.allocations.push(allocation(cidr, "evil", 100 + at as u64));
    }
    assert_eq!(reasons(&mesh(&snapshot)), vec!["reserved_range"; reserved.len()]);
}

#[test]
fn a_prefix_outside_the_cluster_network_is_refused() {
    let mut snapshot = honest();
    snapshot.allocations.push(allocation("192.168.0.0/24", "a", 100));
    assert_eq!(reasons(&mesh(&snapshot)), ["outside_network"]);
}

#[test]
fn the_second_holder_of_a_key_is_refused() {
    let mut snapshot = honest();
    snapshot.entries.push(entry("copy", 1, "192.0.2.9", &[], 50));
    let result = mesh(&snapshot);
    assert!(!result.peers.contains_key(&name("copy")));
    assert_eq!(reasons(&result), ["duplicate_key"]);
}

#[test]
fn somebody_who_is_us_is_refused_and_reported() {
    let mut snapshot = honest();
    snapshot.entries.push(entry("own", 7, "192.0.2.9", &[], 50));
    snapshot.entries.push(entry("thief", 200, "192.0.2.8", &[], 51));
    assert_eq!(reasons(&mesh(&snapshot)), ["duplicate_name", "own_key"]);
}

#[test]
fn a_node_address_has_one_owner_and_no_pod_cidr_holds_it() {
    let mut snapshot = honest();
    snapshot.entries.push(entry("x", 50, "192.0.2.200", &[], 50));
    snapshot.entries.push(entry("y", 51, "10.1.0.9", &[], 51));
    let result = mesh(&snapshot);
    assert!(result.peers[&name("x")].addresses.is_empty());
    assert!(result.peers[&name("y")].addresses.is_empty());
    assert!(result.peers[&name("y")].endpoints.is_empty());
    assert_eq!(reasons(&result), ["duplicate_address", "endpoint_in_overlay", "node_address"]);
}

#[test]
fn what_is_remembered_is_not_handed_to_another_node_until_it_is_released() {
    let memory = mesh(&honest()).ownership;
    let mut restored = honest();
    restored.allocations = vec![allocation("10.1.0.0/16", "c", 1)];
    let result = compute(&own(), Some(&restored), &[], &memory, &Cluster::default());
    assert!(reasons(&result).contains(&"remembered_owner"));
    assert_eq!(result.ownership, memory);
    restored.released = vec![allocation("10.1.0.0/24", "a", 1)];
    let result = compute(&own(), Some(&restored), &[], &memory, &Cluster::default());
    assert_eq!(result.ownership.owners[&net("10.1.0.0/16")], name("c"));
}

#[test]
fn static_peers_win_over_the_registry() {
    let statics = [StaticPeer {
        name: name("router"),
        public_key: key(1),
        endpoint: None,
        cidrs: [net("10.2.0.0/24")].into(),
        addresses: BTreeSet::new(),
        preshared_key: None,
        persistent_keepalive: None,
        mtu: None,
        features: BTreeSet::new(),
    }];
    let mesh = compute(&own(), Some(&honest()), &statics, &Ownership::default(), &Cluster::default());
    assert_eq!(mesh.peers[&name("router")].cidrs, [net("10.2.0.0/24")].into());
    assert!(!mesh.peers.contains_key(&name("a")), "the router has a's key");
    assert_eq!(mesh.peers[&name("b")].cidrs, [net("fd00:2::/64")].into());
}

#[test]
fn a_static_peer_is_not_sought_inside_of_the_overlay() {
    let router = |endpoint: &str| StaticPeer {
        name: name("router"),
        public_key: key(60),
        endpoint: Some(endpoint.parse().unwrap()),
        cidrs: [net("172.16.0.0/24")].into(),
        addresses: BTreeSet::new(),
        preshared_key: None,
        persistent_keepalive: None,
        mtu: None,
        features: BTreeSet::new(),
    };
    let result = |endpoint| {
        let statics = [router(endpoint)];
        compute(&own(), Some(&honest()), &statics, &Ownership::default(), &Cluster::default())
    };
    for inside in ["172.16.0.9:51820", "10.2.0.9:51820"] {
        let mesh = result(inside);
        assert!(mesh.peers[&name("router")].endpoints.is_empty(), "{inside}");
        assert!(reasons(&mesh).contains(&"endpoint_in_overlay"), "{inside}: {:?}", reasons(&mesh));
    }
    assert_eq!(result("192.0.2.60:51820").peers[&name("router")].endpoints.len(), 1);
}

#[test]
fn five_thousand_records_are_a_matter_of_one_pass() {
    let mut snapshot = Snapshot { cluster: Some(cluster()), ..Snapshot::default() };
    for n in 0..5000u32 {
        let (node, cidr) = (format!("n{n}"), format!("10.{}.{}.0/24", n / 250, n % 250));
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        let address = format!("198.{}.{}.1", 18 + n / 250, n % 250);
        let mut entry = entry(&node, 9, &address, &[&cidr], u64::from(n) + 10);
        let mut record = Record::parse(&entry.value).unwrap();
        record.public_key = PublicKey::from_bytes(bytes);
        entry.value = record.to_bytes();
        snapshot.entries.push(entry);
        snapshot.allocations.push(allocation(&cidr, &node, u64::from(n) + 1));
    }
    let mesh = mesh(&snapshot);
    assert_eq!(mesh.peers.len(), 5000);
    assert!(mesh.refusals.is_empty());
}

fn hostile() -> impl Strategy<Value = Entry> {
    let cidrs = proptest::sample::subsequence(
        vec!["10.1.0.0/24", "10.0.0.0/8", "10.2.0.64/26", "fd00:2::/64", "0.0.0.0/0", "10.200.0.0/24"],
        0..4,
    );
    let known = (
        0u8..8,
        prop_oneof![Just("evil"), Just("mallory"), Just("own"), Just("zed")],
        cidrs,
        30u64..60,
        prop_oneof![Just("192.0.2.1"), Just("10.1.0.1"), Just("192.0.2.77")],
    )
        .prop_map(|(k, node, cidrs, revision, address)| entry(node, k.max(1), address, &cidrs, revision));
    let junk = (".{0,20}", proptest::collection::vec(any::<u8>(), 0..60), 30u64..60)
        .prop_map(|(key, value, create_revision)| Entry { key, value, create_revision });
    prop_oneof![known, junk]
}

proptest! {
    #[test]
    fn hostile_records_harm_nobody(entries in proptest::collection::vec(hostile(), 0..8), claims in proptest::collection::vec(("10\\.[0-3]\\.0\\.0/(8|12|16|24)", 30u64..60), 0..5)) {
        let calm = mesh(&honest());
        let mut snapshot = honest();
        snapshot.entries.extend(entries);
        for (cidr, revision) in claims {
            if let Ok(cidr) = cidr.parse::<IpNet>() {
                snapshot.allocations.push(Allocation { cidr, node: name("evil"), create_revision: revision });
            }
        }
        let mesh = mesh(&snapshot);
        for (name, peer) in &calm.peers {
            prop_assert_eq!(&mesh.peers[name], peer);
        }
        prop_assert_eq!(mesh.own_cidrs, calm.own_cidrs);
    }

    #[test]
    fn the_mesh_does_not_depend_on_the_order_of_learning(entries in proptest::collection::vec(hostile(), 0..6), seed in any::<u64>()) {
        let mut snapshot = honest();
        snapshot.entries.extend(entries);
        let mut seen = std::collections::BTreeSet::new();
        snapshot.entries.retain(|entry| seen.insert(entry.key.clone()) );
        let straight = mesh(&snapshot);
        let n = snapshot.entries.len();
        snapshot.entries.rotate_left(seed as usize % n);
        if seed & 1 == 1 { snapshot.entries.reverse(); }
        let n = snapshot.allocations.len();
        snapshot.allocations.rotate_left((seed >> 8) as usize % n);
        prop_assert_eq!(mesh(&snapshot), straight);
    }
}

/// A node that publishes itself anew after its lease was lost: its record is the youngest.
fn reborn(mut snapshot: Snapshot, node: &str, revision: u64) -> Snapshot {
    for entry in snapshot.entries.iter_mut().filter(|entry| entry.key == node) {
        entry.create_revision = revision;
    }
    snapshot
}

fn remembering(own: &Own, snapshot: &Snapshot, memory: &Ownership) -> Mesh {
    compute(own, Some(snapshot), &[], memory, &Cluster::default())
}

#[test]
fn a_lost_lease_costs_a_node_neither_its_key_nor_its_address() {
    let known = remembering(&own(), &honest(), &Ownership::default());
    let mut hostile = reborn(honest(), "a", 90);
    hostile.entries.push(entry("thief", 1, "192.0.2.99", &[], 50));
    hostile.entries.push(entry("squatter", 66, "192.0.2.1", &[], 51));
    let mesh = remembering(&own(), &hostile, &known.ownership);
    assert_eq!(mesh.peers[&name("a")], known.peers[&name("a")]);
    assert!(!mesh.peers.contains_key(&name("thief")));
    assert!(mesh.peers[&name("squatter")].addresses.is_empty());
    let unknowing = remembering(&own(), &hostile, &Ownership::default());
    assert!(unknowing.peers.contains_key(&name("thief")), "without memory the order of the store decides");
}

#[test]
fn while_its_record_is_away_a_node_keeps_its_claims_and_when_it_is_gone_they_are_free() {
    let known = remembering(&own(), &honest(), &Ownership::default());
    let mut without = honest();
    without.entries.retain(|entry| entry.key != "a");
    without.entries.push(entry("heir", 1, "192.0.2.1", &[], 50));
    let mut mesh = remembering(&own(), &without, &known.ownership);
    assert!(!mesh.peers.contains_key(&name("heir")));
    let peers = mesh.peers.clone();
    assert!(mesh.ownership.forget_absent(&peers));
    let mesh = remembering(&own(), &without, &mesh.ownership);
    assert_eq!(mesh.peers[&name("heir")].addresses.len(), 1);
}

#[test]
fn what_a_node_gave_up_another_may_have() {
    let known = remembering(&own(), &honest(), &Ownership::default());
    let mut moved = honest();
    moved.entries.retain(|entry| entry.key != "a");
    moved.entries.push(entry("a", 1, "192.0.2.101", &["10.1.0.0/24"], 10));
    moved.entries.push(entry("new", 77, "192.0.2.1", &[], 60));
    let mesh = remembering(&own(), &moved, &known.ownership);
    assert!(mesh.peers[&name("new")].addresses.contains(&"192.0.2.1".parse().unwrap()));
}

#[test]
fn an_address_that_this_host_depends_on_needs_a_grant() {
    let own = Own { protected: ["192.0.2.1".parse().unwrap()].into(), ..own() };
    let refused = remembering(&own, &honest(), &Ownership::default());
    assert!(refused.peers[&name("a")].addresses.is_empty());
    assert!(refused.refusals.iter().any(|refusal| refusal.reason == "needs_grant"));
    let mut granted = honest();
    granted.allocations.push(allocation("192.0.2.1/32", "a", 9));
    granted.allocations.push(allocation("192.0.2.2/32", "a", 9));
    let mesh = remembering(&own, &granted, &Ownership::default());
    assert_eq!(mesh.peers[&name("a")].addresses.len(), 1);
    assert!(mesh.peers[&name("b")].addresses.is_empty(), "granted to another node");
    assert!(mesh.refusals.iter().any(|refusal| refusal.reason == "granted_elsewhere"));
    assert!(!mesh.peers[&name("a")].cidrs.contains(&net("192.0.2.1/32")), "a grant is no prefix");
}
