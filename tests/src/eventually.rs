//! Waiting for a condition, never for a length of time.

use std::time::{Duration, Instant};

/// How often a wait looks.
const POLL: Duration = Duration::from_millis(50);

/// Waits until `condition` gives a value; fails the test with `what` when that takes longer than `seconds`.
#[track_caller]
pub fn eventually<T>(seconds: u64, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        std::thread::sleep(POLL);
    }
}

/// Fails the test with `what` as soon as `condition` is false within `seconds`: for what must not happen.
#[track_caller]
pub fn holds_for(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        assert!(condition(), "{what}: no longer true after {:.1} s", began.elapsed().as_secs_f32());
        std::thread::sleep(POLL);
    }
}
