//! Notices that most objects of a kind went at once, however the news came: in a list, one deletion after the other by the watch,
//! or while this node was down.

use std::time::Duration;

use tokio::time::Instant;

/// How many there were a moment ago.
pub(super) struct Brake {
    before: usize,
    since: Instant,
    window: Duration,
}

impl Brake {
    /// `known` is how many there were when this node last looked.
    pub(super) fn new(known: usize, window: Duration, now: Instant) -> Self {
        Self { before: known, since: now, window }
    }

    /// There are this many now: `true` when that is less than half of what there was.
    pub(super) fn pulls(&mut self, count: usize, now: Instant) -> bool {
        let pulls = self.before > 1 && count * 2 < self.before;
        if pulls || count > self.before || now >= self.since + self.window {
            (self.before, self.since) = (count, now);
        }
        pulls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn deletions_that_come_one_by_one_are_noticed_together() {
        let now = Instant::now();
        let mut brake = Brake::new(0, MINUTE, now);
        assert!(!brake.pulls(100, now));
        let pulled = (0..100).rev().find(|count| brake.pulls(*count, now)).expect("it pulls");
        assert_eq!(pulled, 49);
    }

    #[test]
    fn an_empty_store_after_a_restart_is_noticed_by_what_was_remembered() {
        let now = Instant::now();
        assert!(Brake::new(100, MINUTE, now).pulls(0, now + MINUTE * 60));
        assert!(!Brake::new(0, MINUTE, now).pulls(0, now));
    }

    #[test]
    fn nodes_that_leave_over_a_day_are_believed() {
        let now = Instant::now();
        let mut brake = Brake::new(8, MINUTE, now);
        for (minute, count) in [(1, 7), (2, 5), (3, 3), (4, 2), (5, 1), (6, 1)] {
            assert!(!brake.pulls(count, now + MINUTE * minute), "{count}");
        }
    }

    #[test]
    fn what_is_gone_is_noticed_once() {
        let now = Instant::now();
        let mut brake = Brake::new(9, MINUTE, now);
        assert!(brake.pulls(1, now));
        assert!(!brake.pulls(1, now) && !brake.pulls(1, now + MINUTE));
    }
}
