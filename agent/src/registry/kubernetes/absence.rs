//! What was somebody's and is nobody's any more, in the store: believed only when it stayed so for long, without a break.
//!
//! An object that is missing is no message from its owner: definitions are deleted by mistake, stores are restored and
//! lose what was young. Whoever owned a prefix therefore owns it until its absence was seen all the time, by a connection
//! that stood and a store that was calm.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use warren_overlay::mesh::Allocation;
use warren_overlay::record::NodeName;

/// Since when what is missing has been missing, without a break.
pub(super) struct Absences {
    since: BTreeMap<(IpNet, NodeName), Instant>,
    patience: Duration,
}

impl Absences {
    pub(super) fn new(patience: Duration) -> Self {
        Self { since: BTreeMap::new(), patience }
    }

    /// Nobody looked, or what was seen is not to be believed: all begins anew.
    pub(super) fn forget(&mut self) {
        self.since.clear();
    }

    /// Of all that is missing now, what has been missing for long enough.
    pub(super) fn lasting(&mut self, missing: Vec<Allocation>, now: Instant) -> Vec<Allocation> {
        let key = |gone: &Allocation| (gone.cidr, gone.node.clone());
        let began = |gone: &Allocation| self.since.get(&key(gone)).copied().unwrap_or(now);
        self.since = missing.iter().map(|gone| (key(gone), began(gone))).collect();
        missing.into_iter().filter(|gone| self.since[&key(gone)] + self.patience <= now).collect()
    }

    /// When the next of them will have been missing for long enough; `None` when all were already.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.since.values().map(|since| *since + self.patience).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn gone(cidr: &str, node: &str) -> Allocation {
        Allocation { cidr: cidr.parse().unwrap(), node: node.parse().unwrap(), create_revision: 0 }
    }

    #[test]
    fn what_is_missing_is_given_back_only_after_it_was_missing_all_the_time() {
        let (mut absences, start) = (Absences::new(LONG), Instant::now());
        let (a, b) = (gone("10.1.0.0/24", "a"), gone("10.2.0.0/24", "b"));
        assert_eq!(absences.lasting(vec![a.clone()], start), []);
        assert_eq!(absences.deadline(start), Some(start + LONG));
        let late = start + LONG / 2;
        assert_eq!(absences.lasting(vec![a.clone(), b.clone()], late), []);
        assert_eq!(absences.lasting(vec![a.clone(), b.clone()], start + LONG), [a.clone()]);
        assert_eq!(absences.deadline(start + LONG), Some(late + LONG));
        assert_eq!(absences.lasting(vec![a.clone()], late + LONG), [a], "b came back");
        assert_eq!(absences.lasting(vec![b], late + LONG * 2), [], "and is missing anew");
    }

    #[test]
    fn time_in_which_nobody_looked_does_not_count() {
        let (mut absences, start) = (Absences::new(LONG), Instant::now());
        let a = gone("10.1.0.0/24", "a");
        absences.lasting(vec![a.clone()], start);
        absences.forget();
        assert_eq!(absences.deadline(start), None);
        assert_eq!(absences.lasting(vec![a.clone()], start + LONG * 2), []);
        assert_eq!(absences.lasting(vec![a.clone()], start + LONG * 3), [a]);
    }
}
