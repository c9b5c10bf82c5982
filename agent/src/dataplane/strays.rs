//! Datagrams that came to the wrong worker: the kernel joins what one sender sends to one port into one train, whichever
//! associations it is for. They go to their worker over a bounded queue; no bulk path depends on it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Datagrams that wait for a worker, at most.
const MOST: usize = 1024;

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

    /// All of them, for their worker alone; costs one load when there are none.
    pub(super) fn take(&self) -> VecDeque<Stray> {
        if !self.waiting.load(Ordering::Acquire) {
            return VecDeque::new();
        }
        self.waiting.store(false, Ordering::Release);
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
