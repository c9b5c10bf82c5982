//! What the clerk tells the workers about associations. A worker looks between two turns; nobody waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use warren_crypto::association::Suite;
use warren_crypto::exchange::End;
use warren_overlay::forward::Slot;

/// A peer, as long as it is the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerId {
    pub(super) slot: Slot,
    /// No two peers of one run have the same.
    pub(super) serial: u64,
}

/// One thing to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Be ready on these, then say so to the clerk.
    Receive { peer: PeerId, generation: u64, suite: Suite, ends: Vec<End> },
    /// Have this one to send on, beside what there is.
    Try { peer: PeerId, generation: u64, suite: Suite, end: End },
    /// Ask on the one with this receiver index whether it arrives, from a port of its own or from the one port.
    Probe { peer: PeerId, index: u32, own: bool },
    /// Send on it from now, in that way.
    Carry { peer: PeerId, index: u32, own: bool },
    /// Send no more on the one with this receiver index.
    Rest { peer: PeerId, index: u32 },
    /// Give up a generation, in both directions.
    Drop { peer: PeerId, generation: u64 },
    /// Give up everything but the generation `keep`.
    Purge { peer: PeerId, keep: Option<u64> },
}

impl Order {
    /// Whom it concerns.
    pub(super) fn peer(&self) -> PeerId {
        match self {
            Self::Receive { peer, .. }
            | Self::Try { peer, .. }
            | Self::Probe { peer, .. }
            | Self::Carry { peer, .. }
            | Self::Rest { peer, .. }
            | Self::Drop { peer, .. }
            | Self::Purge { peer, .. } => *peer,
        }
    }
}

/// A worker receives on a generation now. Never lost: there is one for each order, and no stranger can make one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) peer: PeerId,
    pub(super) generation: u64,
    pub(super) worker: usize,
}

/// One worker's orders.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pending: AtomicBool,
    queue: Mutex<Vec<Order>>,
}

impl Orders {
    /// Adds one; wake the worker then.
    pub(super) fn give(&self, order: Order) {
        self.lock().push(order);
        self.pending.store(true, Ordering::Release);
    }

    /// Everything that was given, for the worker alone; costs one load when there is nothing.
    pub(super) fn take(&self) -> Vec<Order> {
        if !self.pending.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.pending.store(false, Ordering::Release);
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Order>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
