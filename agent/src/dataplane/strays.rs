//! Datagrams that came to the wrong worker: the kernel joins what one sender sends to one port into one train, whichever
//! associations it is for. They go to their worker over a bounded queue, each in a box of its own, under a mutex: lanes
//! that leave from ports of their own make hardly any (docs/adr/0011-what-the-fast-path-does-without.md).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::counters::grow;

/// Datagrams that wait for a worker, at most.
const MOST: usize = 1024;
/// Datagrams that one turn takes, at most.
const TURN: usize = 64;

/// A datagram, and between which addresses it travelled.
#[derive(Debug)]
pub(super) struct Stray {
    pub(super) datagram: Box<[u8]>,
    pub(super) from: SocketAddr,
    pub(super) to: Option<IpAddr>,
}

/// One worker's.
#[derive(Debug, Default)]
pub(super) struct Strays {
    waiting: AtomicBool,
    queue: Mutex<VecDeque<Stray>>,
    /// How many their worker took so far. Only that worker writes.
    taken: AtomicU64,
}

impl Strays {
    /// Hands one over; `None` when there is no room, true when it is the first: wake the worker then.
    pub(super) fn hand_over(&self, stray: Stray) -> Option<bool> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= MOST {
            return None;
        }
        queue.push_back(stray);
        self.waiting.store(true, Ordering::Release);
        Some(queue.len() == 1)
    }

    /// The oldest, for their worker alone; costs one load when there are none. Who took some has to come again.
    pub(super) fn take(&self) -> VecDeque<Stray> {
        if !self.waiting.load(Ordering::Acquire) {
            return VecDeque::new();
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let now = queue.len().min(TURN);
        let rest = queue.split_off(now);
        let strays = std::mem::replace(&mut *queue, rest);
        self.waiting.store(!queue.is_empty(), Ordering::Release);
        grow(&self.taken, strays.len() as u64);
        strays
    }

    /// How many came to their worker this way.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}
