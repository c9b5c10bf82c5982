//! Longest-prefix match for IPv4 and IPv6: the same table chooses the peer on egress and checks the source on ingress.
//!
//! One hash table per prefix length, tried from the longest: a mesh has few lengths, so a lookup is a few probes.
//! Immutable once built; a changed mesh is a new table, swapped in under the workers. A lookup allocates nothing and
//! takes no lock. IPv4-mapped IPv6 addresses are IPv6 here, never IPv4.

use std::net::IpAddr;

use ipnet::IpNet;

/// A prefix table.
#[derive(Clone, Debug)]
pub struct Routes<T> {
    entries: Vec<(IpNet, T)>,
    v4: Family<u32>,
    v6: Family<u128>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), v4: Family(Vec::new()), v6: Family(Vec::new()) }
    }
}

impl<T> Routes<T> {
    /// Builds the table; of equal prefixes the first wins. Host bits are ignored.
    pub fn new(entries: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().map(|(prefix, value)| (prefix.trunc(), value)).collect();
        // Stable, so that the first of equals stays first.
        entries.sort_by_key(|(prefix, _)| *prefix);
        entries.dedup_by_key(|(prefix, _)| *prefix);
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (index, (prefix, _)) in (0u32..).zip(&entries) {
            match prefix {
                IpNet::V4(net) => v4.push((net.prefix_len(), net.network().to_bits(), index)),
                IpNet::V6(net) => v6.push((net.prefix_len(), net.network().to_bits(), index)),
            }
        }
        Self { v4: Family::new(v4), v6: Family::new(v6), entries }
    }

    /// The value of the longest prefix that holds `address`.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        let index = match address {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits()),
        }?;
        self.entries.get(index as usize).map(|(_, value)| value)
    }

    /// The value of exactly this prefix.
    pub fn get_exact(&self, prefix: &IpNet) -> Option<&T> {
        let at = self.entries.binary_search_by_key(&prefix.trunc(), |(prefix, _)| *prefix).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// All prefixes with their values, sorted by prefix.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &T)> {
        self.entries.iter().map(|(prefix, value)| (prefix, value))
    }

    /// The number of prefixes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any prefix.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The tables of one address family, longest prefixes first.
#[derive(Clone, Debug)]
struct Family<K>(Vec<Length<K>>);

impl<K: Bits> Family<K> {
    fn new(mut prefixes: Vec<(u8, K, u32)>) -> Self {
        prefixes.sort_by_key(|(length, ..)| std::cmp::Reverse(*length));
        Self(prefixes.chunk_by(|(a, ..), (b, ..)| a == b).map(Length::new).collect())
    }

    #[inline]
    fn find(&self, address: K) -> Option<u32> {
        self.0.iter().find_map(|length| length.find(address))
    }
}

/// All prefixes of one length: open addressing, at most half full, so that a probe always meets an empty slot.
#[derive(Clone, Debug)]
struct Length<K> {
    mask: K,
    /// What is left of a 64-bit hash after this shift is a slot's number.
    shift: u32,
    slots: Box<[Slot<K>]>,
}

/// A prefix's network bits and the number of its entry.
#[derive(Clone, Copy, Debug)]
struct Slot<K> {
    key: K,
    index: u32,
}

/// The `index` of a slot that holds nothing.
const EMPTY: u32 = u32::MAX;

impl<K: Bits> Length<K> {
    fn new(prefixes: &[(u8, K, u32)]) -> Self {
        let length = prefixes.first().map_or(0, |(length, ..)| *length);
        let size = (prefixes.len() * 2).next_power_of_two();
        let empty = Slot { key: K::mask(0), index: EMPTY };
        let slots = vec![empty; size].into_boxed_slice();
        let mut table = Self { mask: K::mask(length), shift: u64::BITS - size.trailing_zeros(), slots };
        for (_, key, index) in prefixes {
            table.insert(*key, *index);
        }
        table
    }

    fn insert(&mut self, key: K, index: u32) {
        let mut at = self.first(key);
        while self.slots[at].index != EMPTY {
            at = self.after(at);
        }
        self.slots[at] = Slot { key, index };
    }

    #[inline]
    fn find(&self, address: K) -> Option<u32> {
        let key = address.masked(self.mask);
        let mut at = self.first(key);
        loop {
            let slot = self.slots[at];
            if slot.index == EMPTY {
                return None;
            }
            if slot.key == key {
                return Some(slot.index);
            }
            at = self.after(at);
        }
    }

    /// The slot where the search for `key` begins; below the table's size because of the shift.
    #[inline]
    fn first(&self, key: K) -> usize {
        (key.hash() >> self.shift) as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

/// An address as a number.
trait Bits: Copy + Eq {
    /// Ones for the network part of a prefix of this length.
    fn mask(length: u8) -> Self;
    fn masked(self, mask: Self) -> Self;
    /// The upper bits are the good ones.
    fn hash(self) -> u64;
}

/// 2^64 divided by the golden ratio: neighbours spread evenly (Knuth, volume 3, section 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Keeps the lower half of an IPv6 address from cancelling out the upper one.
const LOWER: u64 = 0xc2b2_ae3d_27d4_eb4f;

impl Bits for u32 {
    fn mask(length: u8) -> Self {
        Self::MAX.checked_shl(Self::BITS.saturating_sub(u32::from(length))).unwrap_or(0)
    }

    #[inline]
    fn masked(self, mask: Self) -> Self {
        self & mask
    }

    #[inline]
    fn hash(self) -> u64 {
        u64::from(self).wrapping_mul(GOLDEN)
    }
}

impl Bits for u128 {
    fn mask(length: u8) -> Self {
        Self::MAX.checked_shl(Self::BITS.saturating_sub(u32::from(length))).unwrap_or(0)
    }

    #[inline]
    fn masked(self, mask: Self) -> Self {
        self & mask
    }

    #[inline]
    fn hash(self) -> u64 {
        let (high, low) = ((self >> 64) as u64, self as u64);
        // Any odd factor but one: prefixes differ in the upper half, addresses inside one in the lower.
        high.wrapping_add(low.wrapping_mul(LOWER)).wrapping_mul(GOLDEN)
    }
}
