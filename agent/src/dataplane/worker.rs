//! A worker: one thread, one TUN queue, one UDP socket, its own buffers. It takes what is there, passes it on, and sleeps
//! only when both sides are empty; it never waits to fill a batch.

mod inbound;
mod outbound;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::Cache;
use warren_io::{Sent, TunQueue, UdpSocket, Waker};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Batch, Inbound, Slot};

use super::clerk::Mailbox;
use super::counters::WorkerCounters;
use super::peer::Destination;
use super::snapshot::Snapshot;
use super::{Shared, peer};
use outbound::Stage;

/// Everything one worker owns.
pub(super) struct Worker {
    number: usize,
    shared: Arc<Shared>,
    queue: TunQueue,
    clerk: Mailbox,
    waker: Arc<Waker>,
    stage: Stage,
    batch: Batch,
    /// Where this turn's trains go.
    destinations: Vec<Destination>,
    /// What the network said of them; applied when no peer is locked.
    feedback: Vec<(Slot, Sent)>,
    train: Box<[u8]>,
    inbound: Inbound,
    generation: u64,
}

impl Worker {
    pub(super) fn new(
        number: usize,
        shared: Arc<Shared>,
        queue: TunQueue,
        clerk: Mailbox,
        waker: Arc<Waker>,
        (tcp, udp): (bool, bool),
    ) -> Self {
        Self {
            number,
            shared,
            queue,
            clerk,
            waker,
            stage: Stage::default(),
            batch: Batch::default(),
            destinations: Vec::with_capacity(outbound::FRAMES_MAX),
            feedback: Vec::with_capacity(outbound::FRAMES_MAX),
            train: vec![0; 65_536].into(),
            inbound: Inbound::new(tcp, udp),
            generation: 0,
        }
    }

    /// Runs until the data path stops.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut cache = Cache::new(&shared.snapshot);
        while !self.shared.stop.load(Ordering::Acquire) {
            let snapshot = Arc::clone(cache.load());
            if self.generation != snapshot.generation {
                self.generation = snapshot.generation;
                self.inbound.forget();
            }
            let busy = self.send_turn(&snapshot) | self.receive_turn(&snapshot);
            if !busy && let Err(error) = self.wait() {
                tracing::error!(worker = self.number, %error, "worker cannot wait for packets, stops");
                return;
            }
        }
    }

    fn wait(&self) -> std::io::Result<()> {
        warren_io::wait(self.queue.as_raw_fd(), self.socket().as_raw_fd(), &self.waker, -1).map(|_| ())
    }

    fn socket(&self) -> &UdpSocket {
        &self.shared.sockets[self.number]
    }

    fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.number]
    }

    fn drop_packets(&self, reason: DropReason, n: u64) {
        if n > 0 {
            self.counters().add(reason, n);
        }
    }

    /// Acts on what the network said, now that no peer is locked.
    fn settle(&mut self, snapshot: &Snapshot) {
        for index in 0..self.feedback.len() {
            let (slot, sent) = self.feedback[index];
            self.drop_packets(DropReason::TooBig, sent.too_big as u64);
            self.drop_packets(DropReason::SendFailed, (sent.lost - sent.too_big) as u64);
            let Some(peer) = snapshot.peer(slot) else { continue };
            let mut session = peer.lock();
            session.counters.drops += sent.lost as u64;
            if sent.source_gone {
                session.forget_local();
            }
            if sent.segmentation_refused {
                session.refuse_segmentation();
            }
        }
        self.feedback.clear();
    }
}

/// A packet that the session refused is lost for this reason.
fn lost(session: &mut peer::Session, counters: &WorkerCounters, reason: DropReason) {
    session.counters.drops += 1;
    counters.add(reason, 1);
}
