//! TUN to UDP.

use std::io::IoSlice;
use std::net::IpAddr;

use warren_io::tun::FRAME_MAX;
use warren_io::{Train, TunQueue};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{self, Batch, Slot};
use warren_overlay::icmp;
use warren_overlay::offload::{Cutter, VNET_HDR_LEN, VnetHeader};
use warren_overlay::packet::View;

use super::super::peer::{Peer, Session};
use super::super::snapshot::Snapshot;
use super::{Destination, Worker, lost};

/// Frames taken off the queue in one turn, at most.
pub(super) const FRAMES_MAX: usize = 64;
/// Bytes after which a turn takes no further frame: one superpacket, so that its cache lines are still warm.
const TURN_BYTES: usize = 60_000;
/// Room behind every frame for padding.
const SPARE: usize = 16;

/// A frame that has a destination.
#[derive(Clone, Copy)]
struct Frame {
    at: usize,
    len: usize,
    slot: Slot,
    view: View,
    vnet: VnetHeader,
}

/// The frames of one turn.
pub(super) struct Stage {
    buf: Box<[u8]>,
    frames: Vec<Frame>,
}

impl Default for Stage {
    fn default() -> Self {
        let len = TURN_BYTES + FRAMES_MAX * SPARE + FRAME_MAX + SPARE;
        Self { buf: vec![0; len].into(), frames: Vec::with_capacity(FRAMES_MAX) }
    }
}

impl Worker {
    /// Takes frames off the TUN queue and sends them; false when there was none.
    pub(super) fn send_turn(&mut self, snapshot: &Snapshot) -> bool {
        let taken = self.take_frames(snapshot);
        let mut next = 0;
        while let Some(frame) = self.stage.frames.get(next) {
            let slot = frame.slot;
            let run = self.stage.frames[next..].iter().take_while(|frame| frame.slot == slot).count();
            if let Some(peer) = snapshot.peer(slot) {
                self.seal_run(peer, next..next + run);
            }
            next += run;
        }
        self.stage.frames.clear();
        self.flush();
        self.settle(snapshot);
        self.destinations.clear();
        taken > 0
    }

    fn take_frames(&mut self, snapshot: &Snapshot) -> usize {
        let (mut used, mut taken) = (0, 0);
        while taken < FRAMES_MAX && used < TURN_BYTES && !self.queue_is_gone {
            let len = match self.queue.recv(&mut self.stage.buf[used..used + FRAME_MAX]) {
                Ok(len) => len,
                Err(error) => {
                    if TunQueue::is_gone(&error) {
                        self.lose_queue();
                    }
                    break;
                }
            };
            taken += 1;
            match classify(&self.stage.buf[used..used + len], snapshot) {
                Ok((slot, view, vnet)) => {
                    self.stage.frames.push(Frame { at: used + VNET_HDR_LEN, len: view.len, slot, view, vnet });
                    used += len + SPARE;
                }
                Err(reason) => self.drop_packets(reason, 1),
            }
        }
        taken
    }

    /// One lock for all frames that go to one peer.
    fn seal_run(&mut self, peer: &Peer, run: std::ops::Range<usize>) {
        let mut session = peer.lock();
        if !session.tunnel.has_session() {
            return self.queue_run(peer, &mut session, run);
        }
        let Some(destination) = session.destination(peer.slot()) else {
            session.counters.drops += run.len() as u64;
            return self.drop_packets(DropReason::NoEndpoint, run.len() as u64);
        };
        self.destinations.push(destination);
        for index in run {
            self.seal_frame(peer, &mut session, index);
        }
    }

    fn seal_frame(&mut self, peer: &Peer, session: &mut Session, index: usize) {
        let Frame { at, len, slot, view, vnet } = self.stage.frames[index];
        let Self { stage, batch, shared, number, destinations, feedback, .. } = self;
        let (socket, counters) = (&shared.sockets[*number], &shared.counters[*number]);
        let mut refused = None;
        let sealed = forward::seal_frame(
            (&mut stage.buf[at..at + len + SPARE], view, vnet),
            (slot, peer.mtu()),
            session,
            batch,
            |reason| refused = Some(reason),
            |batch| send_batch(socket, batch, destinations, feedback),
        );
        match sealed {
            Ok((packets, bytes)) => {
                session.counters.tx_packets += packets;
                session.counters.tx_bytes += bytes;
            }
            Err(DropReason::TooBig) => {
                lost(session, counters, DropReason::TooBig);
                self.answer_too_big(peer, index);
            }
            Err(reason) => lost(session, counters, reason),
        }
        if let Some(reason) = refused {
            lost(session, &self.shared.counters[self.number], reason);
        }
    }

    /// No session yet: keep the packets for a moment and ask the clerk for one.
    fn queue_run(&mut self, peer: &Peer, session: &mut Session, run: std::ops::Range<usize>) {
        let mut ask = false;
        for index in run {
            let Frame { at, len, view, vnet, .. } = self.stage.frames[index];
            let buf = &mut self.stage.buf[at..at + len + SPARE];
            let counters = &self.shared.counters[self.number];
            match Cutter::new(buf, view, vnet, peer.mtu()) {
                Ok(mut cutter) => {
                    while let Some(packet) = cutter.next() {
                        match session.wait(packet) {
                            Ok(first) => ask |= first,
                            Err(reason) => lost(session, counters, reason),
                        }
                    }
                }
                Err(reason) => lost(session, counters, reason),
            }
        }
        if ask && !self.clerk.connect(peer.slot()) {
            session.answered();
        }
    }

    fn answer_too_big(&self, peer: &Peer, index: usize) {
        let Frame { at, len, view, .. } = self.stage.frames[index];
        let own = self.shared.options.addresses.iter().find(|own| own.is_ipv4() == view.source.is_ipv4());
        let from: IpAddr = own.copied().unwrap_or(view.destination);
        let mut answer = [0; icmp::ANSWER_MAX];
        let packet = &self.stage.buf[at..at + len];
        if let Some(len) = icmp::too_big(packet, &view, from, peer.mtu() as u16, &mut answer) {
            let vnet = [0u8; VNET_HDR_LEN];
            // A lost answer is repeated by the next packet that is too big.
            let _ = self.queue.send(&[IoSlice::new(&vnet), IoSlice::new(&answer[..len])]);
        }
    }

    fn flush(&mut self) {
        let Self { batch, shared, number, destinations, feedback, .. } = self;
        send_batch(&shared.sockets[*number], batch, destinations, feedback);
    }
}

fn classify(frame: &[u8], snapshot: &Snapshot) -> Result<(Slot, View, VnetHeader), DropReason> {
    let vnet = VnetHeader::parse(frame)?;
    let view = View::parse(&frame[VNET_HDR_LEN..])?;
    let slot = snapshot.table.egress(view.source, view.destination)?;
    Ok((slot, view, vnet))
}

fn send_batch(
    socket: &warren_io::UdpSocket,
    batch: &mut Batch,
    destinations: &[Destination],
    feedback: &mut Vec<(Slot, warren_io::Sent)>,
) {
    batch.drain(|slot, segment, payload| {
        let Some(way) = destinations.iter().rev().find(|way| way.slot == slot) else { return };
        let sent = socket.send(&Train { to: way.to, from: way.from, segment, payload }, way.singly);
        if sent != warren_io::Sent::default() {
            feedback.push((slot, sent));
        }
    });
}
