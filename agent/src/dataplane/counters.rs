//! Drop counters: each thread writes its own, the reader sums them up.

use std::sync::atomic::{AtomicU64, Ordering};

use warren_overlay::drops::DropReason;
use warren_overlay::forward::Drops;

use super::peer::PeerCounters;

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

/// What passed on one worker's associations with one peer. Only that worker writes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct LaneCounters {
    pub(super) tx_packets: AtomicU64,
    pub(super) tx_bytes: AtomicU64,
    pub(super) rx_packets: AtomicU64,
    pub(super) rx_bytes: AtomicU64,
    pub(super) drops: AtomicU64,
}

impl LaneCounters {
    /// The peer's counters with this worker's.
    pub(super) fn add_to(sum: PeerCounters, lane: &Self) -> PeerCounters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerCounters {
            tx_packets: sum.tx_packets + of(&lane.tx_packets),
            tx_bytes: sum.tx_bytes + of(&lane.tx_bytes),
            rx_packets: sum.rx_packets + of(&lane.rx_packets),
            rx_bytes: sum.rx_bytes + of(&lane.rx_bytes),
            drops: sum.drops + of(&lane.drops),
        }
    }
}

impl std::ops::AddAssign for PeerCounters {
    fn add_assign(&mut self, other: Self) {
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.drops += other.drops;
    }
}

/// Adds to a counter that only the calling thread writes.
pub(super) fn grow(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
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
