//! When a handshake may be started again.
//!
//! boringtun repeats an initiation every five seconds for ninety seconds and then gives up for good. What follows is
//! decided here: at most one initiation in five seconds, and between two series that nobody answered a pause that
//! doubles from one second to a minute. Pure: time comes in as the age of the tunnel.

use std::time::Duration;

/// Between two initiations (WireGuard's `Rekey-Timeout`); up to a third of a second of jitter comes on top.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Jitter on top of [`REKEY_TIMEOUT`], in milliseconds (kernel `REKEY_TIMEOUT_JITTER_MAX_JIFFIES`).
const REKEY_JITTER_MS: u64 = 333;
/// How long boringtun repeats an initiation (WireGuard's `Rekey-Attempt-Time`).
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// After a response of ours: the peer confirms the session at once, an initiation would only cross it.
const CONFIRM_TIME: Duration = Duration::from_secs(1);
/// The longest pause between two series of initiations, in milliseconds.
const PAUSE_MAX_MS: u64 = 60_000;

/// The pace of one tunnel's handshakes.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    not_before: Duration,
    /// When the series under way began.
    series: Option<Duration>,
    /// Series in a row that nobody answered.
    failures: u32,
    /// Somebody asked for a session and none was started for it yet.
    wanted: bool,
}

impl Pacing {
    /// There is traffic without a session.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Boringtun repeats the initiation by itself: nothing more to start.
    pub(super) fn under_way(&mut self) {
        self.wanted = false;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// How long initiations have gone unanswered; `None` when none is out.
    pub(super) fn unanswered(&self, now: Duration) -> Option<Duration> {
        self.series.map(|began| now.saturating_sub(began))
    }

    pub(super) fn allows(&self, now: Duration) -> bool {
        now >= self.not_before
    }

    /// An initiation was sent.
    pub(super) fn initiated(&mut self, now: Duration, jitter: u32) {
        self.series.get_or_insert(now);
        self.wanted = false;
        let jitter = Duration::from_millis(u64::from(jitter) % (REKEY_JITTER_MS + 1));
        self.delay(now + REKEY_TIMEOUT + jitter);
    }

    /// A response was sent: the session stands as soon as the peer uses it.
    pub(super) fn responded(&mut self, now: Duration) {
        self.delay(now + CONFIRM_TIME);
    }

    /// A session stands: the peer has proven that it holds the keys.
    pub(super) fn confirmed(&mut self) {
        let not_before = self.not_before;
        *self = Self { not_before, ..Self::default() };
    }

    /// Boringtun gave up, for want of an answer or of traffic.
    pub(super) fn expired(&mut self, now: Duration, jitter: u32) {
        let Some(began) = self.series.take() else {
            return;
        };
        // Boringtun also forgets a series that began just before nine minutes of silence were over.
        self.wanted |= now.saturating_sub(began) < REKEY_ATTEMPT_TIME;
        self.delay(now + pause(self.failures, jitter));
        self.failures = self.failures.saturating_add(1);
    }

    fn delay(&mut self, until: Duration) {
        self.not_before = self.not_before.max(until);
    }
}

/// One second, doubled for every failure, up to a minute; between half and all of that, by `jitter`.
fn pause(failures: u32, jitter: u32) -> Duration {
    let whole = PAUSE_MAX_MS.min(1_000 << failures.min(6));
    Duration::from_millis(whole - u64::from(jitter) % (whole / 2 + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_from_one_second_to_a_minute() {
        let whole: Vec<_> = (0..9).map(|failures| pause(failures, 0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn initiations_are_unanswered_from_the_first_of_a_series_until_one_is_answered() {
        let mut pacing = Pacing::default();
        assert_eq!(pacing.unanswered(SECOND), None);
        for sent in [10, 15, 20] {
            pacing.initiated(sent * SECOND, 0);
        }
        assert_eq!(pacing.unanswered(22 * SECOND), Some(12 * SECOND));
        pacing.confirmed();
        assert_eq!(pacing.unanswered(23 * SECOND), None);
    }

    #[test]
    fn unanswered_series_are_ever_farther_apart_until_one_is_answered() {
        let mut pacing = Pacing::default();
        let mut now = Duration::ZERO;
        let mut gap_after_series = |pacing: &mut Pacing| {
            pacing.initiated(now, 0);
            now += REKEY_ATTEMPT_TIME;
            pacing.expired(now, 0);
            let began = now;
            while !pacing.allows(now) {
                now += SECOND;
            }
            now - began
        };
        let gaps: Vec<_> = (0..8).map(|_| gap_after_series(&mut pacing).as_secs()).collect();
        assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 60, 60]);
        pacing.confirmed();
        assert_eq!(gap_after_series(&mut pacing), SECOND);
    }

    #[test]
    fn a_tunnel_that_expired_idle_may_begin_at_once() {
        let mut pacing = Pacing::default();
        pacing.initiated(Duration::ZERO, 0);
        pacing.confirmed();
        pacing.expired(540 * SECOND, u32::MAX);
        assert!(pacing.allows(540 * SECOND));
        assert!(!pacing.is_wanted());
    }

    #[test]
    fn a_series_cut_short_is_wanted_again_and_one_that_ran_out_is_not() {
        for (length, wanted) in [(89, true), (90, false)] {
            let mut pacing = Pacing::default();
            pacing.initiated(SECOND, 0);
            pacing.expired(SECOND + length * SECOND, 0);
            assert_eq!(pacing.is_wanted(), wanted);
        }
    }

    proptest! {
        #[test]
        fn jitter_keeps_a_pause_between_half_and_all(failures: u32, jitter: u32) {
            let whole = pause(failures, 0);
            let pause = pause(failures, jitter);
            prop_assert!(pause <= whole && pause >= whole / 2);
        }

        #[test]
        fn initiations_are_five_seconds_apart(jitter: u32, early in 0u64..5000) {
            let mut pacing = Pacing::default();
            pacing.initiated(SECOND, jitter);
            pacing.responded(SECOND);
            pacing.confirmed();
            prop_assert!(!pacing.allows(SECOND + Duration::from_millis(early)));
            prop_assert!(pacing.allows(SECOND + Duration::from_millis(5334)));
        }
    }
}
