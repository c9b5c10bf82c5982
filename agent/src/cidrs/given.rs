//! What the API server gave this node, what it took away, and what nobody speaks of any more.
//!
//! Whatever it says, no prefix is given back in which this host has addresses in use: a server that was restored, of another
//! cluster or misled gives no live Pod's prefix to another node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use warren_overlay::record::CIDRS_MAX;

/// A node's prefixes, where the API server says them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// What it is to have.
    pub cidrs: BTreeSet<IpNet>,
    /// What it had, and nobody says to be another's: not given back, and claimed only where it was lost.
    pub kept: BTreeSet<IpNet>,
    /// What it had, and was taken from it by name.
    pub lost: BTreeSet<IpNet>,
    /// Addresses of the cluster network in use on this host that are not in what it is to have.
    pub used: BTreeSet<IpAddr>,
}

impl Given {
    /// Whether anything was said of which prefixes this node is to have. That it has none yet says nothing.
    pub(crate) fn speaks(&self) -> bool {
        !self.cidrs.is_empty() || !self.lost.is_empty()
    }

    /// Together with what of the kept is still remembered to be the node's.
    pub(crate) fn remembering(&self, is_own: impl Fn(&IpNet) -> bool) -> Self {
        let cidrs = self.kept.iter().filter(|cidr| is_own(cidr)).chain(&self.cidrs).copied().collect();
        Self { cidrs, ..self.clone() }
    }

    /// Somebody says which prefixes are this node's, this is none of them, and no address of it is in use here.
    pub(crate) fn rules_out(&self, cidr: &IpNet) -> bool {
        self.is_taken(cidr) && !self.uses(cidr)
    }

    /// What is taken from this node, and is not given back while addresses of it are in use here.
    pub(crate) fn holds(&self, cidr: &IpNet) -> bool {
        self.is_taken(cidr) && self.uses(cidr)
    }

    /// What of its `own` prefixes stays beside those that it is to have, as much as a record has room for: first what is in use
    /// here.
    pub(crate) fn beside(&self, own: impl Iterator<Item = IpNet>) -> BTreeSet<IpNet> {
        let mut rest: Vec<_> = own.filter(|cidr| !self.cidrs.contains(cidr) && !self.rules_out(cidr)).collect();
        rest.sort_by_key(|cidr| !self.uses(cidr));
        rest.truncate(CIDRS_MAX.saturating_sub(self.cidrs.len()));
        rest.into_iter().collect()
    }

    fn is_taken(&self, cidr: &IpNet) -> bool {
        let is_own = self.cidrs.contains(cidr) || self.kept.contains(cidr);
        !is_own && (self.lost.contains(cidr) || !self.cidrs.is_empty())
    }

    fn uses(&self, cidr: &IpNet) -> bool {
        self.used.iter().any(|address| cidr.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ruled_out(given: &Given, cidr: &str) -> bool {
        given.rules_out(&cidr.parse().unwrap())
    }

    #[test]
    fn what_was_taken_by_name_is_ruled_out_also_when_nothing_is_left() {
        let given = Given { lost: nets(&["10.1.0.0/26"]), ..Given::default() };
        assert!(given.speaks() && ruled_out(&given, "10.1.0.0/26") && !ruled_out(&given, "10.1.0.64/26"));
        assert!(!Given::default().speaks() && !ruled_out(&Given::default(), "10.1.0.0/26"));
    }

    #[test]
    fn what_is_in_use_here_is_held_whoever_takes_it() {
        let used = ["10.1.0.7".parse().unwrap(), "10.1.2.7".parse().unwrap()].into();
        let given = Given { cidrs: nets(&["10.1.1.0/26"]), lost: nets(&["10.1.0.0/26"]), used, ..Given::default() };
        assert!(!ruled_out(&given, "10.1.0.0/26") && given.holds(&"10.1.0.0/26".parse().unwrap()));
        assert!(!ruled_out(&given, "10.1.2.0/26") && ruled_out(&given, "10.1.3.0/26"));
        assert!(!given.holds(&"10.1.1.0/26".parse().unwrap()));
        let given = Given { used: BTreeSet::new(), ..given };
        assert!(ruled_out(&given, "10.1.0.0/26") && ruled_out(&given, "10.1.2.0/26"));
    }

    #[test]
    fn of_what_is_kept_as_much_stays_as_there_is_room_for_and_what_is_in_use_first() {
        let block = |number: usize| format!("10.1.{number}.0/26").parse::<IpNet>().unwrap();
        let cidrs: BTreeSet<_> = (0..CIDRS_MAX - 2).map(block).collect();
        let kept: BTreeSet<_> = (100..110).map(block).collect();
        let used = ["10.1.109.3".parse().unwrap()].into();
        let given = Given { cidrs, kept: kept.clone(), used, ..Given::default() };
        assert_eq!(given.beside(kept.iter().copied()), [block(100), block(109)].into());
        assert!(kept.iter().all(|cidr| !given.rules_out(cidr)), "what has no room is given to nobody");
        let full = Given { cidrs: (0..CIDRS_MAX).map(block).collect(), ..given };
        assert_eq!(full.beside(kept.into_iter()), BTreeSet::new());
    }

    #[test]
    fn what_is_given_or_kept_is_the_nodes_and_nothing_else() {
        let given = Given { cidrs: nets(&["10.1.0.0/26"]), kept: nets(&["10.1.0.64/26"]), ..Given::default() };
        assert!(!ruled_out(&given, "10.1.0.0/26") && !ruled_out(&given, "10.1.0.64/26"));
        assert!(ruled_out(&given, "10.1.0.128/26"));
        let all = given.remembering(|_| true);
        assert_eq!(all.cidrs, nets(&["10.1.0.0/26", "10.1.0.64/26"]));
    }
}
