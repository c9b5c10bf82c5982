//! What was written last, and when the same may be written again: only after the watch has come as far as the answer to
//! that write, and shows something else. A watch that lags says nothing of what became of it, and whoever then writes
//! again makes it lag more.

use std::time::Duration;

use tokio::time::Instant;

use super::follow::went_back;

/// The same is not written again sooner than the first; doubled up to the last while somebody takes it away each time.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));
/// So many times longer when the watch does not tell what became of it.
const UNHEARD: u32 = 10;

/// One write.
#[derive(Debug)]
pub(super) struct Written<T> {
    what: T,
    /// By which the watch tells of it.
    version: Option<String>,
    at: Instant,
    pause: Duration,
}

impl<T: PartialEq> Written<T> {
    /// It was written now, after `before`.
    pub(super) fn new(what: T, version: Option<String>, before: Option<&Self>, now: Instant) -> Self {
        let again = before.filter(|before| before.what == what && now < before.at + before.pause * UNHEARD * 2);
        let pause = again.map_or(PAUSE.0, |before| (before.pause * 2).min(PAUSE.1));
        Self { what, version, at: now, pause }
    }

    /// Until when the same is left alone; `None` when it may be written now. `reached` is how far the watch has come.
    pub(super) fn until(&self, what: &T, reached: Option<&str>, now: Instant) -> Option<Instant> {
        let heard = self.version.as_deref().zip(reached).is_some_and(|(version, reached)| !went_back(version, reached));
        let until = self.at + if heard { self.pause } else { self.pause * UNHEARD };
        Some(until).filter(|until| self.what == *what && now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_is_written_again_only_after_the_watch_has_told_of_it() {
        let start = Instant::now();
        let written = Written::new("a", Some("100".to_owned()), None, start);
        assert_eq!(written.until(&"a", Some("99"), at(start, 4)), Some(at(start, 30)), "the watch lags");
        assert_eq!(written.until(&"a", Some("100"), at(start, 2)), Some(at(start, 3)));
        assert_eq!(written.until(&"a", Some("101"), at(start, 3)), None, "it is not there any more");
        assert_eq!(written.until(&"a", Some("99"), at(start, 30)), None, "the watch never tells");
        assert_eq!(written.until(&"b", Some("99"), start), None, "something else is written at once");
    }

    #[test]
    fn what_is_taken_away_each_time_is_written_ever_later() {
        let (start, version) = (Instant::now(), || Some("1".to_owned()));
        let (mut written, mut now) = (Written::new("a", version(), None, start), start);
        for seconds in [3, 6, 12, 24, 48, 60, 60] {
            let until = written.until(&"a", Some("2"), now).unwrap();
            assert_eq!(until, at(now, seconds));
            (written, now) = (Written::new("a", version(), Some(&written), until), until);
        }
        let calm = at(now, 3600);
        assert_eq!(Written::new("a", version(), Some(&written), calm).until(&"a", Some("2"), calm), Some(at(calm, 3)));
    }
}
