//! What was somebody's and is nobody's any more, in the store: believed only when it stayed so for long, without a break.
//!
//! An object that is missing is no message from its owner: definitions are deleted by mistake, stores are restored and
//! lose what was young. Whoever owned a prefix therefore owns it until its absence was seen all the time, by watches that
//! stood, or went on where they were, and in a store that was calm. Time in which nobody looked is not counted.

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
    /// Since when nobody looks.
    blind: Option<Instant>,
}

impl Absences {
    pub(super) fn new(patience: Duration) -> Self {
        Self { since: BTreeMap::new(), patience, blind: None }
    }

    /// What was seen is not to be believed, or does not go on where it was: all begins anew.
    pub(super) fn forget(&mut self) {
        self.since.clear();
    }

    /// Nobody looks for now.
    pub(super) fn pause(&mut self, now: Instant) {
        self.blind.get_or_insert(now);
    }

    /// Watches go on where they were. What they missed they tell within `margin`, which does not count either.
    pub(super) fn go_on(&mut self, margin: Duration, now: Instant) {
        let Some(blind) = self.blind.take() else { return };
        let missed = now.saturating_duration_since(blind) + margin;
        self.since.values_mut().for_each(|since| *since = (*since + missed).min(now));
    }

    /// Of all that is missing now, what has been missing for long enough.
    pub(super) fn lasting(&mut self, missing: Vec<Allocation>, now: Instant) -> Vec<Allocation> {
        let key = |gone: &Allocation| (gone.cidr, gone.node.clone());
        let began = |gone: &Allocation| self.since.get(&key(gone)).copied().unwrap_or(now);
        self.since = missing.iter().map(|gone| (key(gone), began(gone))).collect();
        let lasts = |gone: &Allocation| self.blind.is_none() && self.since[&key(gone)] + self.patience <= now;
        missing.into_iter().filter(lasts).collect()
    }

    /// When the next of them will have been missing for long enough; `None` when all were already.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let ends = self.since.values().map(|since| *since + self.patience);
        ends.filter(|at| *at > now && self.blind.is_none()).min()
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
        assert_eq!(absences.lasting(vec![a.clone(), b.clone()], start + LONG), std::slice::from_ref(&a));
        assert_eq!(absences.deadline(start + LONG), Some(late + LONG));
        assert_eq!(absences.lasting(vec![a.clone()], late + LONG), [a], "b came back");
        assert_eq!(absences.lasting(vec![b], late + LONG * 2), [], "and is missing anew");
    }

    #[test]
    fn connections_that_end_and_go_on_do_not_begin_the_time_anew() {
        let minute = Duration::from_secs(60);
        let (mut absences, start) = (Absences::new(LONG), Instant::now());
        let (a, b) = (gone("10.1.0.0/24", "a"), gone("10.2.0.0/24", "b"));
        absences.lasting(vec![a.clone()], start);
        absences.pause(start + LONG / 2);
        absences.pause(start + LONG);
        assert_eq!(absences.deadline(start + LONG / 2), None);
        assert_eq!(absences.lasting(vec![a.clone(), b], start + LONG * 2), [], "nobody looks");
        absences.go_on(minute, start + LONG * 2);
        // Half was seen before; of the rest a minute does not count.
        let due = start + LONG * 5 / 2 + minute;
        assert_eq!(absences.deadline(start + LONG * 2), Some(due));
        assert_eq!(absences.lasting(vec![a.clone()], due - minute / 60), []);
        assert_eq!(absences.lasting(vec![a.clone()], due), [a]);
    }

    #[test]
    fn time_before_a_break_does_not_count() {
        let (mut absences, start) = (Absences::new(LONG), Instant::now());
        let a = gone("10.1.0.0/24", "a");
        absences.lasting(vec![a.clone()], start);
        absences.forget();
        assert_eq!(absences.deadline(start), None);
        assert_eq!(absences.lasting(vec![a.clone()], start + LONG * 2), []);
        assert_eq!(absences.lasting(vec![a.clone()], start + LONG * 3), [a]);
    }
}
