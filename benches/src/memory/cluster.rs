//! A cluster of made-up nodes: what a registry would hold of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use warren_crypto::PublicKey;
use warren_overlay::mesh::{Allocation, Cluster, Entry, Own, Snapshot};
use warren_overlay::record::{NodeName, RECORD_VERSION, Record};

/// A node's IPv4 Pods: the prefix's address.
pub fn v4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + (n << 8))
}

/// Its IPv6 Pods.
pub fn v6(n: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd42 << 112 | u128::from(n) << 64)
}

/// A node's address, as every peer has one next to its prefixes.
pub fn node(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xac10_0000 + n).into()
}

/// A prefix.
pub fn net(address: impl Into<IpAddr>, length: u8) -> IpNet {
    IpNet::new_assert(address.into(), length)
}

/// Whose view of the cluster it is.
pub fn own() -> Own {
    Own {
        name: name(9_999),
        public_key: PublicKey::from_bytes([9; 32]),
        addresses: [].into(),
        cidrs: [].into(),
        protected: [].into(),
    }
}

/// Records and allocations of so many nodes.
pub fn snapshot(count: u32) -> Snapshot {
    let allocations = (0..count).flat_map(|n| {
        [net(v4(n), 24), net(v6(n), 64)].map(|cidr| Allocation {
            cidr,
            node: name(n),
            create_revision: u64::from(n) + 1,
        })
    });
    let networks = [net(v4(0), 8), net(v6(0), 16)].map(|network| network.trunc()).into();
    Snapshot {
        cluster: Some(Cluster { networks, ..Cluster::default() }),
        entries: (0..count).map(|n| entry(n, 51840)).collect(),
        allocations: allocations.collect(),
        ..Snapshot::default()
    }
}

/// A node's record, with this port.
///
/// # Panics
/// Never: the name is a right one.
pub fn entry(n: u32, port: u16) -> Entry {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    let record = Record {
        version: RECORD_VERSION,
        name: name(n),
        public_key: PublicKey::from_bytes(key),
        endpoints: vec![(node(n), port).into()],
        addresses: [node(n)].into(),
        cidrs: [net(v4(n), 24), net(v6(n), 64)].into(),
        mtu: 1420,
        workers: 2,
        suites: Vec::new(),
        features: BTreeSet::new(),
        agent: "0.1.0".to_owned(),
    };
    Entry { key: record.name.to_string(), value: record.to_bytes(), create_revision: u64::from(n) + 20_000 }
}

fn name(n: u32) -> NodeName {
    format!("n{n}").parse().expect("a node name")
}
