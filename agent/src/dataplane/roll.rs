//! A roll call: who turns answers it between two turns, at the price of one load. Nobody waits for anybody.

use std::sync::atomic::{AtomicBool, Ordering};

/// One place for each thread of the data path: every worker, then the clerk.
#[derive(Debug)]
pub(super) struct Roll(Box<[Called]>);

/// Whether this thread was called and has not answered. Read at every turn: on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Called(AtomicBool);

impl Roll {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| Called::default()).collect())
    }

    /// Calls everybody; somebody else has to wake them.
    pub(super) fn call(&self) {
        for Called(called) in &self.0 {
            called.store(true, Ordering::Release);
        }
    }

    /// This thread turns.
    pub(super) fn answer(&self, number: usize) {
        if let Some(Called(called)) = self.0.get(number)
            && called.load(Ordering::Relaxed)
        {
            called.store(false, Ordering::Release);
        }
    }

    /// The names of the threads that have not answered yet.
    pub(super) fn absent(&self) -> Vec<String> {
        let clerk = self.0.len() - 1;
        let name = |number: usize| match number {
            number if number == clerk => "warren-clerk".to_owned(),
            number => format!("warren-worker-{number}"),
        };
        let called = self.0.iter().enumerate().filter(|(_, Called(called))| called.load(Ordering::Acquire));
        called.map(|(number, _)| name(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_turn_is_missed_by_name() {
        let roll = Roll::new(2);
        assert!(roll.absent().is_empty(), "nobody was called");
        roll.call();
        assert_eq!(roll.absent(), ["warren-worker-0", "warren-worker-1", "warren-clerk"]);
        roll.answer(0);
        roll.answer(2);
        assert_eq!(roll.absent(), ["warren-worker-1"]);
        roll.answer(1);
        roll.answer(7);
        assert!(roll.absent().is_empty());
    }
}
