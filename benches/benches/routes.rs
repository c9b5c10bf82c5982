//! The prefix table: one lookup per packet and direction. And the whole mesh of 5,000 records, once per change.
//!
//! Addresses are drawn in a scattered order, so that a table larger than the cache pays for it.
//! They pass the black box by reference: by value, 17 bytes written and read at once cost more than the lookup.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use warren_crypto::PublicKey;
use warren_overlay::mesh::{Allocation, Cluster, Entry, Own, Ownership, Snapshot, compute};
use warren_overlay::record::{NodeName, RECORD_VERSION, Record};
use warren_overlay::routes::Routes;

/// Lookups in one round.
const ROUND: u32 = 4096;

fn v4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + (n << 8))
}

fn v6(n: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd42 << 112 | u128::from(n) << 64)
}

/// A node's address, as every peer has one next to its prefix.
fn node(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xac10_0000 + n).into()
}

fn net(address: impl Into<IpAddr>, length: u8) -> IpNet {
    IpNet::new_assert(address.into(), length)
}

/// Numbers below `count`, scattered (the step is odd and large).
fn scattered(count: u32) -> impl Iterator<Item = u32> {
    (0..ROUND).map(move |n| n.wrapping_mul(2_654_435_761) % count)
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes/lookup");
    group.throughput(Throughput::Elements(u64::from(ROUND)));
    for count in [8u32, 1_000, 10_000] {
        let prefixes = (0..count).flat_map(|n| [(net(v4(n), 24), n), (net(v6(n), 64), n), (net(node(n), 32), n)]);
        let routes = Routes::new(prefixes);
        let cases: [(&str, Vec<IpAddr>); 3] = [
            ("v4", scattered(count).map(|n| Ipv4Addr::from_bits(v4(n).to_bits() + 7).into()).collect()),
            ("v6", scattered(count).map(|n| Ipv6Addr::from_bits(v6(n).to_bits() + 7).into()).collect()),
            ("miss", scattered(count).map(|n| Ipv4Addr::from_bits(0xcb00_0000 + n).into()).collect()),
        ];
        for (name, addresses) in cases {
            group.bench_with_input(BenchmarkId::new(name, count), &addresses, |bencher, addresses| {
                bencher
                    .iter(|| addresses.iter().filter(|address| routes.lookup(*black_box(*address)).is_some()).count());
            });
        }
    }
}

fn name(n: u32) -> NodeName {
    format!("n{n}").parse().expect("a node name")
}

fn entry(n: u32) -> Entry {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    let record = Record {
        version: RECORD_VERSION,
        name: name(n),
        public_key: PublicKey::from_bytes(key),
        endpoints: vec![(node(n), 51840).into()],
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

fn snapshot(count: u32) -> Snapshot {
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
        entries: (0..count).map(entry).collect(),
        allocations: allocations.collect(),
        ..Snapshot::default()
    }
}

fn mesh(criterion: &mut Criterion) {
    let own = Own {
        name: name(9_999),
        public_key: PublicKey::from_bytes([9; 32]),
        addresses: [].into(),
        cidrs: [].into(),
        protected: [].into(),
    };
    let (snapshot, fallback) = (snapshot(5_000), Cluster::default());
    let memory = compute(&own, Some(&snapshot), &[], &Ownership::default(), &fallback);
    assert!(memory.peers.len() == 5_000 && memory.refusals.is_empty(), "the mesh is whole");
    let mut group = criterion.benchmark_group("mesh");
    group.sample_size(20);
    group.bench_function("5000", |bencher| {
        bencher.iter(|| compute(&own, Some(black_box(&snapshot)), &[], &memory.ownership, &fallback));
    });
}

criterion_group!(benches, lookups, mesh);
criterion_main!(benches);
