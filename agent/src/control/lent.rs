//! Addresses of Pods here that are in no prefix of this node: Calico lends them out of other nodes' blocks. They stay no prefix of
//! this node, since what another node owns is refused to whoever comes second. So they are named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A Pod is there for a moment before the block that it is in.
const MOMENT: Duration = Duration::from_secs(10);
/// So many are named.
const NAMED: usize = 4;

/// Such addresses, each with when it was seen first.
#[derive(Debug, Default)]
pub(super) struct Lent(BTreeMap<IpAddr, Instant>);

impl Lent {
    /// These there are now.
    pub(super) fn look(&mut self, now: Instant, seen: &BTreeSet<IpAddr>) {
        self.0.retain(|address, _| seen.contains(address));
        for address in seen {
            self.0.entry(*address).or_insert(now);
        }
    }

    /// Those that last, and what to do; nothing where there are none.
    pub(super) fn problem(&self, now: Instant) -> Option<String> {
        let lasting = self.0.iter().filter(|(_, since)| now.saturating_duration_since(**since) >= MOMENT);
        let all: Vec<_> = lasting.map(|(address, _)| address.to_string()).collect();
        let more = all.len().checked_sub(NAMED + 1).map(|more| format!(" and {} more", more + 1)).unwrap_or_default();
        (!all.is_empty()).then(|| {
            format!(
                "node.cidrs: Calico lent this node addresses out of other nodes' blocks, or of blocks that are nobody's ({}{more}), \
                 and no tunnel carries what these Pods send: forbid that (`calicoctl ipam configure --strictaffinity=true`), give \
                 the IP pool more blocks, and make the Pods anew; or use overlay.mode = \"nodes\" with node.cidrs = []",
                all.get(..NAMED).unwrap_or(&all).join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u8) -> BTreeSet<IpAddr> {
        (0..count).map(|last| IpAddr::from([10, 1, 0, last])).collect()
    }

    #[test]
    fn what_lasts_is_named_with_what_to_do_and_a_pod_that_comes_before_its_block_is_not() {
        let (mut lent, now) = (Lent::default(), Instant::now());
        lent.look(now, &addresses(4));
        assert_eq!(lent.problem(now), None);
        let said = lent.problem(now + MOMENT).unwrap();
        assert!(
            said.contains("(10.1.0.0, 10.1.0.1, 10.1.0.2, 10.1.0.3)") && said.contains("mode = \"nodes\""),
            "{said}"
        );
        lent.look(now + MOMENT, &addresses(9));
        assert!(!lent.problem(now + MOMENT).unwrap().contains("more)"), "the others are new");
        let said = lent.problem(now + 2 * MOMENT).unwrap();
        assert!(said.contains("10.1.0.3 and 5 more)"), "{said}");
        lent.look(now + 2 * MOMENT, &addresses(0));
        assert_eq!(lent.problem(now + 3 * MOMENT), None);
    }
}
