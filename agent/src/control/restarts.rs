//! When a task that ended by a fault of its own is started again: at once, and ever later while it keeps ending.

use std::time::{Duration, Instant};

/// Between two starts: the first, doubled up to the last.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// What ran for this long is sound.
const SOUND: Duration = Duration::from_secs(600);

/// When it was started again last, and how long it is left alone if it ends once more.
#[derive(Debug, Default)]
pub(super) struct Restarts(Option<(Instant, Duration)>);

impl Restarts {
    /// It has ended: whether it is to be started now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let lately = self.0.filter(|(last, _)| now < *last + SOUND);
        if lately.is_some_and(|(last, pause)| now < last + pause) {
            return false;
        }
        self.0 = Some((now, lately.map_or(PAUSE.0, |(_, pause)| (pause * 2).min(PAUSE.1))));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_ending_is_started_ever_later_and_what_ran_for_long_at_once() {
        let (mut restarts, mut now) = (Restarts::default(), Instant::now());
        assert!(restarts.is_due(now));
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(seconds);
            assert!(!restarts.is_due(now + pause - Duration::from_millis(1)), "{seconds}");
            now += pause;
            assert!(restarts.is_due(now), "{seconds}");
        }
        now += SOUND;
        assert!(restarts.is_due(now) && !restarts.is_due(now) && restarts.is_due(now + PAUSE.0));
    }
}
