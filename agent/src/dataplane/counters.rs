//! Drop counters: each thread writes its own, the reader sums them up.

use std::sync::atomic::{AtomicU64, Ordering};

use warren_overlay::drops::DropReason;
use warren_overlay::forward::Drops;

/// One thread's drops. Only that thread writes, so a plain load and store suffice.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct WorkerCounters([AtomicU64; DropReason::ALL.len()]);

impl WorkerCounters {
    /// Counts `n` losses; for the owning thread alone.
    pub(super) fn add(&self, reason: DropReason, n: u64) {
        let counter = &self.0[reason as usize];
        counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
}

/// The sum over all threads.
pub(super) fn total(all: &[WorkerCounters]) -> Drops {
    let mut drops = Drops::default();
    for counters in all {
        for reason in DropReason::ALL {
            drops.add(reason, counters.0[reason as usize].load(Ordering::Relaxed));
        }
    }
    drops
}
