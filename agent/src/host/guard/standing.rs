//! Whether the guard stands, by what the kernel itself has of it: not by a file, and not by `nft`, which the host may lack.
//! Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::listed::{self, Point};
use super::request::Kernel;

/// Both ways that a packet in clear could take.
const CHAINS: [&str; 2] = ["prerouting", "postrouting"];
/// What is in the overlay; and, where traffic between nodes is guarded, the nodes.
const SETS: [&str; 4] = ["overlay4", "overlay6", "nodes4", "nodes6"];

/// Why the guard does not stand, or does not watch a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// The kernel does not answer.
    Answer(String),
    /// There is no table.
    Table,
    /// Somebody switched the table off.
    Awake,
    /// A chain is not there, not on its hook, or without the rules that look into our sets.
    Chain(&'static str),
    /// This address is in no prefix that is watched.
    Prefix(IpAddr),
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = super::TABLE;
        match self {
            Self::Answer(why) => write!(f, "the kernel cannot be asked for nftables table inet {table}: {why}"),
            Self::Table => write!(f, "there is no nftables table inet {table}"),
            Self::Awake => write!(f, "nftables table inet {table} is dormant"),
            Self::Chain(chain) => write!(f, "nftables table inet {table} has no rules in force in its chain {chain}"),
            Self::Prefix(address) => write!(f, "{address} is in no prefix that nftables table inet {table} watches"),
        }
    }
}

/// What the kernel has.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// `None` without a table.
    awake: Option<bool>,
    hooked: BTreeSet<String>,
    /// By chain, the sets that its rules look into.
    looked_into: BTreeMap<&'static str, BTreeSet<String>>,
    sets: BTreeMap<&'static str, Vec<Point>>,
}

/// Says why no Pod with these addresses may speak yet; `None` when the guard stands and watches them all.
pub fn lacking(pods: &[IpAddr]) -> Option<Lacking> {
    match Standing::read() {
        Ok(standing) => standing.lacking(pods),
        Err(error) => Some(Lacking::Answer(error.to_string())),
    }
}

impl Standing {
    fn read() -> io::Result<Self> {
        let kernel = Kernel::of(NETLINK_NETFILTER)?;
        let everything = listed::all();
        let tables = kernel.dump(listed::GET_TABLE, listed::NEW_TABLE, &everything, listed::awake)?;
        let Some(awake) = tables.first().copied() else { return Ok(Self::default()) };
        let chains = kernel.dump(listed::GET_CHAIN, listed::NEW_CHAIN, &everything, listed::hooked_chain)?;
        let mut standing = Self { awake: Some(awake), hooked: chains.into_iter().collect(), ..Self::default() };
        for chain in CHAINS {
            let rules = listed::rules_of(chain);
            let rules = kernel.dump(listed::GET_RULE, listed::NEW_RULE, &rules, listed::lookups)?;
            let sets = rules.into_iter().filter(|(of, _)| of == chain).flat_map(|(_, sets)| sets);
            standing.looked_into.insert(chain, sets.collect());
        }
        for set in SETS {
            let elements = listed::elements_of(set);
            let parts = kernel.dump(listed::GET_ELEMENTS, listed::NEW_ELEMENTS, &elements, listed::points)?;
            standing.sets.insert(set, parts.into_iter().flatten().collect());
        }
        Ok(standing)
    }

    fn lacking(&self, pods: &[IpAddr]) -> Option<Lacking> {
        match self.awake {
            None => return Some(Lacking::Table),
            Some(false) => return Some(Lacking::Awake),
            Some(true) => {}
        }
        let idle = |chain: &&str| !self.hooked.contains(*chain) || !SETS.iter().any(|set| self.looks_into(chain, set));
        if let Some(chain) = CHAINS.into_iter().find(|chain| idle(chain)) {
            return Some(Lacking::Chain(chain));
        }
        pods.iter().copied().find(|pod| !self.watches(*pod)).map(Lacking::Prefix)
    }

    /// The Pod's own address; or what is between nodes, and so whatever the CNI wraps it into.
    fn watches(&self, pod: IpAddr) -> bool {
        let (set, key) = match pod {
            IpAddr::V4(address) => ("overlay4", address.octets().to_vec()),
            IpAddr::V6(address) => ("overlay6", address.octets().to_vec()),
        };
        let in_force = |set: &&str| CHAINS.iter().all(|chain| self.looks_into(chain, set));
        let points = |set: &str| self.sets.get(set).map_or(&[][..], Vec::as_slice);
        (in_force(&set) && holds(points(set), &key))
            || ["nodes4", "nodes6"].iter().any(|set| in_force(set) && points(set).iter().any(|point| point.inside))
    }

    fn looks_into(&self, chain: &str, set: &str) -> bool {
        self.looked_into.get(chain).is_some_and(|sets| sets.contains(set))
    }
}

/// An interval ends where another point lies; the next one may begin right there.
fn holds(points: &[Point], key: &[u8]) -> bool {
    let Some(nearest) = points.iter().map(|point| point.key.as_slice()).filter(|at| *at <= key).max() else {
        return false;
    };
    let reaches = |point: &Point| point.last.as_deref().is_none_or(|last| key <= last);
    points.iter().any(|point| point.key == nearest && point.inside && reaches(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(address: &str, inside: bool) -> Point {
        let IpAddr::V4(address) = address.parse().unwrap() else { panic!("{address}") };
        Point { key: address.octets().to_vec(), inside, last: None }
    }

    /// As the kernel lists 10.42.0.0/16 and what lies right behind 10.43.0.0/32, with the point that begins every set.
    fn guard() -> Standing {
        let overlay = vec![
            point("0.0.0.0", false),
            point("10.42.0.0", true),
            point("10.43.0.0", false),
            point("10.43.0.0", true),
            point("10.43.0.1", false),
        ];
        let looked_into = CHAINS.map(|chain| (chain, BTreeSet::from(["overlay4".to_owned(), "__set0".to_owned()])));
        Standing {
            awake: Some(true),
            hooked: CHAINS.map(str::to_owned).into(),
            looked_into: looked_into.into(),
            sets: BTreeMap::from([("overlay4", overlay)]),
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_whole_guard_stands_for_every_pod_in_its_prefixes_and_for_no_other() {
        assert_eq!(guard().lacking(&[]), None);
        for (pod, watched) in [
            ("10.41.255.255", false),
            ("10.42.0.0", true),
            ("10.42.7.9", true),
            ("10.43.0.0", true),
            ("10.43.0.1", false),
            ("fd42::1", false),
        ] {
            let expected = (!watched).then(|| Lacking::Prefix(address(pod)));
            assert_eq!(guard().lacking(&[address("10.42.1.1"), address(pod)]), expected, "{pod}");
        }
    }

    #[test]
    fn a_whole_interval_in_one_element_ends_where_it_says() {
        let last = Some(vec![10, 42, 255, 255]);
        let points = [Point { last, ..point("10.42.0.0", true) }];
        assert!(holds(&points, &[10, 42, 255, 255]) && !holds(&points, &[10, 43, 0, 0]));
    }

    #[test]
    fn a_guard_that_lacks_a_part_does_not_stand() {
        let without = |change: fn(&mut Standing)| {
            let mut standing = guard();
            change(&mut standing);
            standing.lacking(&[address("10.42.1.1")])
        };
        assert_eq!(without(|guard| guard.awake = None), Some(Lacking::Table));
        assert_eq!(without(|guard| guard.awake = Some(false)), Some(Lacking::Awake));
        assert_eq!(without(|guard| guard.hooked.clear()), Some(Lacking::Chain("prerouting")));
        assert_eq!(without(|guard| drop(guard.looked_into.remove("prerouting"))), Some(Lacking::Chain("prerouting")));
        let unwatched = Some(Lacking::Prefix(address("10.42.1.1")));
        assert_eq!(without(|guard| drop(guard.sets.remove("overlay4"))), unwatched);
    }

    #[test]
    fn where_traffic_between_nodes_is_guarded_a_pod_needs_no_prefix() {
        let mut standing = guard();
        standing.sets.insert("nodes4", vec![point("192.0.2.1", true), point("192.0.2.2", false)]);
        assert!(standing.lacking(&[address("fd42::1")]).is_some(), "nobody looks into the set");
        for sets in standing.looked_into.values_mut() {
            sets.insert("nodes4".to_owned());
        }
        assert_eq!(standing.lacking(&[address("fd42::1")]), None);
    }
}
