//! A worker: one thread, one TUN queue to read, one UDP socket, its own buffers. It takes what is there, passes it on,
//! and sleeps only when both sides are empty; it never waits to fill a batch.

mod inbound;
mod outbound;

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use arc_swap::Cache;
use warren_io::{Rooms, Sent, TunQueue, UdpSocket};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Batch, Inbound, Slot};

use super::clerk::Mailbox;
use super::counters::WorkerCounters;
use super::lanes::Lanes;
use super::orders::{Order, Ready};
use super::peer::Destination;
use super::snapshot::Snapshot;
use super::{Queues, Shared, peer};
use outbound::Stage;

/// Everything one worker owns.
pub(super) struct Worker {
    number: usize,
    shared: Arc<Shared>,
    /// All of the device's: this worker reads its own, and writes each flow to where it settles.
    queues: Arc<[TunQueue]>,
    /// Somebody deleted the device: its queue is not read until a successor comes.
    queue_is_gone: bool,
    clerk: Mailbox,
    lanes: Lanes,
    stage: Stage,
    batch: Batch,
    /// Where this turn's trains go.
    destinations: Vec<Destination>,
    /// What the network said of them; applied when no peer is locked.
    feedback: Vec<(Slot, Sent)>,
    inbound: Inbound,
    /// Where what came with the first train of a call lies.
    rooms: Rooms,
    /// Trains are short and come close together: the next call may bring several.
    many: bool,
    generation: u64,
}

impl Worker {
    pub(super) fn new(number: usize, shared: Arc<Shared>, (queues, takes): Queues, clerk: Mailbox) -> Self {
        Self {
            number,
            shared,
            queues,
            queue_is_gone: false,
            clerk,
            lanes: Lanes::default(),
            stage: Stage::default(),
            batch: Batch::default(),
            destinations: Vec::with_capacity(outbound::FRAMES_MAX),
            feedback: Vec::with_capacity(outbound::FRAMES_MAX),
            inbound: Inbound::new(takes),
            rooms: Rooms::default(),
            many: false,
            generation: 0,
        }
    }

    /// Runs until the data path stops.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut cache = Cache::new(&shared.snapshot);
        while !self.shared.stop.load(Ordering::Acquire) {
            shared.roll.answer(self.number);
            let snapshot: &Snapshot = cache.load();
            if self.generation != snapshot.generation {
                self.generation = snapshot.generation;
                self.inbound.forget();
                self.lanes.follow(snapshot);
            }
            self.obey();
            let busy = self.send_turn(snapshot) | self.receive_turn(snapshot);
            if !busy && let Err(error) = self.wait() {
                tracing::error!(worker = self.number, %error, "worker cannot wait for packets, stops");
                return;
            }
        }
    }

    /// What the clerk wants done about associations.
    fn obey(&mut self) {
        let orders = self.shared.orders[self.number].take();
        if orders.is_empty() {
            return;
        }
        // Newer than this turn's: nobody would tell this worker again that a peer is gone.
        let snapshot = self.shared.snapshot.load_full();
        for order in orders {
            let id = order.peer();
            if snapshot.peer(id.slot).is_none_or(|peer| peer.id() != id) {
                continue;
            }
            if let Order::Probe { peer, index, own } = order {
                self.probe(&snapshot, peer, index, own);
            } else if let Some((peer, generation)) = self.lanes.obey(order) {
                let ready = Ready { peer, generation, worker: self.number };
                self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner).push(ready);
                self.clerk.ready();
            }
        }
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let tun = if self.queue_is_gone { -1 } else { self.queue().as_raw_fd() };
        let ready = warren_io::wait(tun, self.socket().as_raw_fd(), &self.shared.wakers[self.number], -1)?;
        if ready.woken {
            self.take_successor();
        }
        Ok(())
    }

    /// The device was deleted: go on with the new one, or tell whoever can make it.
    fn lose_queue(&mut self) {
        self.queue_is_gone = true;
        {
            let place = self.successor();
            if place.is_none() {
                self.shared.device_gone.store(true, Ordering::Release);
            }
        }
        self.take_successor();
    }

    fn take_successor(&mut self) {
        let successor = self.successor().take();
        if let Some((queues, takes)) = successor {
            self.queues = queues;
            self.queue_is_gone = false;
            self.inbound = Inbound::new(takes);
        }
    }

    fn successor(&self) -> MutexGuard<'_, Option<Queues>> {
        self.shared.successors[self.number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> &TunQueue {
        &self.queues[self.number]
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
                drop(session);
                self.lanes.refuse_segmentation(peer.id());
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

/// What became of a run of packets.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    packets: u64,
    bytes: u64,
    drops: u64,
}
