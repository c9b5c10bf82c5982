//! Longest-prefix match for IPv4 and IPv6: the same table chooses the peer on egress and checks the source on ingress.
//!
//! One sorted list per prefix length, tried from the longest: a mesh has few lengths, so a lookup is a few binary
//! searches. Immutable once built.

use std::net::IpAddr;

use ipnet::IpNet;

/// A prefix table.
#[derive(Clone, Debug)]
pub struct Routes<T> {
    v4: Vec<Length<T>>,
    v6: Vec<Length<T>>,
}

/// All prefixes of one length, sorted.
#[derive(Clone, Debug)]
struct Length<T> {
    mask: u128,
    entries: Vec<(u128, T)>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<T> Routes<T> {
    /// Builds the table; of equal prefixes the first wins.
    pub fn new(entries: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let mut routes = Self::default();
        for (prefix, value) in entries {
            let (key, mask) = (bits(prefix.network()), bits(prefix.netmask()));
            let family = if prefix.addr().is_ipv4() { &mut routes.v4 } else { &mut routes.v6 };
            match family.iter_mut().find(|length| length.mask == mask) {
                Some(length) => length.entries.push((key, value)),
                None => family.push(Length { mask, entries: vec![(key, value)] }),
            }
        }
        for family in [&mut routes.v4, &mut routes.v6] {
            family.sort_by_key(|length| std::cmp::Reverse(length.mask));
            for length in family {
                length.entries.sort_by_key(|(key, _)| *key);
                length.entries.dedup_by_key(|(key, _)| *key);
            }
        }
        routes
    }

    /// The value of the longest prefix that holds `address`. Allocates nothing.
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        let family = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let address = bits(address);
        family.iter().find_map(|length| {
            let at = length.entries.binary_search_by_key(&(address & length.mask), |(key, _)| *key).ok()?;
            Some(&length.entries[at].1)
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
