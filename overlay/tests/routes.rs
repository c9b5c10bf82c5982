//! The prefix table against a naive scan.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use warren_overlay::routes::Routes;

fn naive(entries: &[(IpNet, usize)], address: IpAddr) -> Option<usize> {
    let holding = entries.iter().filter(|(prefix, _)| prefix.contains(&address));
    // `max_by_key` gives the last of equals, the table the first.
    holding.rev().max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, value)| *value)
}

/// Few distinct bits, so that prefixes nest, repeat and hold the addresses asked for.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..4, 0u32..4, 0u32..4).prop_map(|(a, b, c)| IpAddr::V4(Ipv4Addr::from_bits(a << 30 | b << 14 | c))),
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        (0u128..4, 0u128..4, 0u128..4).prop_map(|(a, b, c)| IpAddr::V6(Ipv6Addr::from_bits(a << 126 | b << 62 | c))),
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from_bits(bits).to_ipv6_mapped())),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), any::<u8>()).prop_map(|(address, length)| match address {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new_assert(v4, length % 33)),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, length % 129)),
    })
}

proptest! {
    #[test]
    fn a_lookup_gives_what_a_scan_of_all_prefixes_gives(
        prefixes in prop::collection::vec(prefix(), 0..60),
        strangers in prop::collection::vec(address(), 1..40),
    ) {
        let entries: Vec<_> = prefixes.iter().enumerate().map(|(at, prefix)| (*prefix, at)).collect();
        let routes = Routes::new(entries.clone());
        let edges = prefixes.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast(), prefix.addr()]);
        for address in edges.chain(strangers) {
            prop_assert_eq!(routes.lookup(address).copied(), naive(&entries, address), "{}", address);
        }
    }

    #[test]
    fn every_prefix_is_found_exactly_and_once(prefixes in prop::collection::vec(prefix(), 0..60)) {
        let routes = Routes::new(prefixes.iter().enumerate().map(|(at, prefix)| (*prefix, at)));
        for prefix in &prefixes {
            let first = prefixes.iter().position(|other| other.trunc() == prefix.trunc());
            prop_assert_eq!(routes.get_exact(prefix).copied(), first);
        }
        let listed: Vec<_> = routes.iter().map(|(prefix, _)| *prefix).collect();
        let mut distinct: Vec<_> = prefixes.iter().map(IpNet::trunc).collect();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(routes.len(), distinct.len());
        prop_assert_eq!(routes.is_empty(), distinct.is_empty());
        prop_assert_eq!(listed, distinct);
    }
}

#[test]
fn default_routes_catch_their_own_family_only() {
    let routes = Routes::new([("0.0.0.0/0".parse().unwrap(), 4)]);
    assert_eq!(routes.lookup("192.0.2.1".parse().unwrap()), Some(&4));
    assert_eq!(routes.lookup("2001:db8::1".parse().unwrap()), None);
    assert_eq!(routes.lookup("::ffff:192.0.2.1".parse().unwrap()), None, "a mapped address is IPv6");
}

#[test]
fn ten_thousand_prefixes_are_all_found() {
    let prefix = |n: u32| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)), 24));
    let routes = Routes::new((0..10_000).map(|n| (prefix(n), n)));
    for n in 0..10_000u32 {
        assert_eq!(routes.lookup(prefix(n).broadcast()), Some(&n));
    }
    assert_eq!(routes.lookup(prefix(10_000).network()), None);
}

#[test]
fn a_lookup_allocates_nothing() {
    let routes = Routes::new((0..1000u32).map(|n| (IpNet::from(IpAddr::V4(Ipv4Addr::from_bits(n))), n)));
    let counted = allocation_counter::measure(|| {
        for n in 0..1000u32 {
            assert_eq!(routes.lookup(IpAddr::V4(Ipv4Addr::from_bits(n))), Some(&n));
        }
    });
    assert_eq!(counted.count_total, 0);
}
