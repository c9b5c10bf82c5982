//! The prefix table: one lookup per packet and direction. And the whole mesh of 5,000 records, once per change.
//!
//! Addresses are drawn in a scattered order, so that a table larger than the cache pays for it.
//! They pass the black box by reference: by value, 17 bytes written and read at once cost more than the lookup.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use warren_benches::memory::cluster::{net, node, own, snapshot, v4, v6};
use warren_overlay::mesh::{Cluster, Ownership, compute};
use warren_overlay::routes::Routes;

/// Lookups in one round.
const ROUND: u32 = 4096;

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

fn mesh(criterion: &mut Criterion) {
    let own = own();
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
