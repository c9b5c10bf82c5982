//! A watchdog's stamp: when the control plane turned last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When the control plane turned last. It does so at least once a second.
#[derive(Debug)]
pub struct Vitals {
    born: Instant,
    /// Milliseconds after `born`.
    turned: AtomicU64,
}

impl Vitals {
    /// It turned just now.
    #[allow(clippy::new_without_default, reason = "a default that reads the clock would surprise")]
    pub fn new() -> Self {
        Self { born: Instant::now(), turned: AtomicU64::new(0) }
    }

    /// The control plane turns.
    pub fn turn(&self) {
        self.turned.store(self.age(), Ordering::Relaxed);
    }

    /// How long ago that was.
    pub fn still(&self) -> Duration {
        Duration::from_millis(self.age().saturating_sub(self.turned.load(Ordering::Relaxed)))
    }

    fn age(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_turns_is_never_still_for_long() {
        let vitals = Vitals::new();
        let began = Instant::now();
        while vitals.still() < Duration::from_millis(20) {
            assert!(began.elapsed() < Duration::from_secs(10), "nobody turns, and nobody notices");
            std::thread::yield_now();
        }
        vitals.turn();
        assert!(vitals.still() < Duration::from_secs(5));
    }
}
