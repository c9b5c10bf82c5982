//! TUN to UDP.

use std::io::IoSlice;
use std::net::IpAddr;

use warren_crypto::exchange::Probe;
use warren_io::tun::FRAME_MAX;
use warren_io::{Train, TunQueue, UdpSocket};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{self, Batch, Seal, Slot};
use warren_overlay::frame;
use warren_overlay::icmp;
use warren_overlay::offload::{Cutter, VNET_HDR_LEN, VnetHeader};
use warren_overlay::packet::View;

use super::super::counters::grow;
use super::super::lanes::Lane;
use super::super::orders::PeerId;
use super::super::peer::{Peer, Session};
use super::super::snapshot::Snapshot;
use super::{Destination, Tally, Worker, lost};
use crate::config::Associations;

/// Frames taken off the queue in one turn, at most.
pub(super) const FRAMES_MAX: usize = 64;
/// Bytes after which a turn takes no further frame: one superpacket, so that its cache lines are still warm.
const TURN_BYTES: usize = 60_000;
/// Such takings in one turn: a superpacket is a little more than a train, and what is over joins the next one's.
const ROUNDS: usize = 4;
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
        let mut busy = false;
        for _ in 0..ROUNDS {
            let (taken, more) = self.take_frames(snapshot);
            busy |= taken > 0;
            self.seal_frames(snapshot);
            if !more {
                break;
            }
            // What nothing can join leaves; the rest waits for the frames that are there already.
            self.send(self.batch.complete());
            if self.batch.is_empty() {
                break;
            }
        }
        self.flush();
        self.settle(snapshot);
        self.destinations.clear();
        busy
    }

    fn seal_frames(&mut self, snapshot: &Snapshot) {
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
    }

    /// How many, and whether there may be more.
    fn take_frames(&mut self, snapshot: &Snapshot) -> (usize, bool) {
        let (mut used, mut taken) = (0, 0);
        while taken < FRAMES_MAX && used < TURN_BYTES && !self.queue_is_gone {
            let len = match self.queues[self.number].recv(&mut self.stage.buf[used..used + FRAME_MAX]) {
                Ok(len) => len,
                Err(error) => {
                    if TunQueue::is_gone(&error) {
                        self.lose_queue();
                    }
                    return (taken, false);
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
        (taken, !self.queue_is_gone)
    }

    /// All frames of a run go to one peer.
    fn seal_run(&mut self, peer: &Peer, run: std::ops::Range<usize>) {
        // A peer that was an agent and is none any longer has no associations.
        let lane = if peer.speaks() { self.lanes.take(peer.id()) } else { None };
        if let Some(mut lane) = lane {
            self.seal_on_lane(peer, &mut lane, run);
            self.lanes.put(lane);
            return;
        }
        let required = self.shared.options.associations == Associations::Require;
        let wants = self.shared.options.associations != Associations::Off && peer.speaks();
        if wants && peer.want() {
            self.clerk.connect(peer.slot());
        }
        if required {
            grow(&peer.lane(self.number).drops, run.len() as u64);
            return self.drop_packets(DropReason::NoAssociation, run.len() as u64);
        }
        self.seal_in_tunnel(peer, run);
    }

    /// No lock: the lane is this worker's own.
    fn seal_on_lane(&mut self, peer: &Peer, lane: &mut Lane, run: std::ops::Range<usize>) {
        let mut tally = Tally::default();
        if let Some(destination) = lane.destination(peer) {
            self.destinations.push(destination);
            for index in run {
                self.seal_frame(peer, lane, &mut tally, index);
            }
        } else {
            tally.drops = run.len() as u64;
            self.drop_packets(DropReason::NoEndpoint, run.len() as u64);
        }
        let counters = peer.lane(self.number);
        grow(&counters.tx_packets, tally.packets);
        grow(&counters.tx_bytes, tally.bytes);
        grow(&counters.drops, tally.drops);
    }

    /// One lock for the whole run.
    fn seal_in_tunnel(&mut self, peer: &Peer, run: std::ops::Range<usize>) {
        let mut session = peer.lock();
        if !session.tunnel.has_session() {
            return self.queue_run(peer, &mut session, run);
        }
        let Some(destination) = session.destination(peer.slot()) else {
            session.counters.drops += run.len() as u64;
            return self.drop_packets(DropReason::NoEndpoint, run.len() as u64);
        };
        self.destinations.push(destination);
        let mut tally = Tally::default();
        for index in run {
            self.seal_frame(peer, &mut *session, &mut tally, index);
        }
        session.counters.tx_packets += tally.packets;
        session.counters.tx_bytes += tally.bytes;
        session.counters.drops += tally.drops;
    }

    /// Asks on a lane, by one of its two ways, whether it arrives.
    pub(super) fn probe(&mut self, snapshot: &Snapshot, peer: PeerId, index: u32, own: bool) {
        let one_port = Some(self.shared.options.port);
        let Some(port) = (if own { self.shared.own_ports[self.number] } else { one_port }) else { return };
        let tried = self.lanes.is_tried(peer, index);
        let Some((found, mut lane)) = snapshot.peer(peer.slot).zip(self.lanes.take_by_index(peer, index)) else {
            return;
        };
        let carries = lane.leave_by(own);
        if let Some(destination) = lane.destination(found) {
            self.destinations.push(destination);
            let mut packet = [0; frame::PACKET_MAX];
            let len = frame::write(0, &Probe { port, own }.to_bytes(), 0, &mut packet).unwrap_or_default();
            let mut packet = packet[..len].to_vec();
            if own {
                // Another port may take another way, on which large packets need not arrive.
                packet.resize(found.mtu().max(len), 0);
            }
            if let Err(reason) = self.batch.seal(peer.slot, &packet, &mut *lane) {
                self.drop_packets(reason, 1);
            }
        }
        lane.leave_by(carries);
        self.lanes.put_back(lane, tried);
        self.flush();
        self.settle(snapshot);
        self.destinations.clear();
    }

    fn seal_frame(&mut self, peer: &Peer, sealer: &mut impl Seal, tally: &mut Tally, index: usize) {
        let Frame { at, len, slot, view, vnet } = self.stage.frames[index];
        let Self { stage, batch, shared, number, destinations, feedback, .. } = self;
        let (sockets, counters) = (shared.outgoing(*number), &shared.counters[*number]);
        let mut refused = (0, DropReason::Malformed);
        let sealed = forward::seal_frame(
            (&mut stage.buf[at..at + len + SPARE], view, vnet),
            (slot, peer.mtu()),
            sealer,
            batch,
            |reason| refused = (refused.0 + 1, reason),
            |batch| send_trains(sockets, (batch, usize::MAX), destinations, feedback),
        );
        match sealed {
            Ok((packets, bytes)) => {
                tally.packets += packets;
                tally.bytes += bytes;
            }
            Err(reason) => {
                tally.drops += 1;
                counters.add(reason, 1);
                if reason == DropReason::TooBig {
                    self.answer_too_big(peer, index);
                }
            }
        }
        let (packets, reason) = refused;
        tally.drops += packets;
        self.drop_packets(reason, packets);
    }

    /// No session yet: keep the packets for a moment and ask the clerk for one.
    fn queue_run(&mut self, peer: &Peer, session: &mut Session, run: std::ops::Range<usize>) {
        let mut ask = false;
        for index in run {
            let Frame { at, len, view, vnet, .. } = self.stage.frames[index];
            let buf = &mut self.stage.buf[at..at + len + SPARE];
            let counters = &self.shared.counters[self.number];
            match Cutter::new(buf, view, vnet, peer.mtu(), false) {
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
            let _ = self.queue().send(&[IoSlice::new(&vnet), IoSlice::new(&answer[..len])]);
        }
    }

    fn flush(&mut self) {
        self.send(usize::MAX);
    }

    /// The first `count` trains.
    fn send(&mut self, count: usize) {
        let Self { batch, shared, number, destinations, feedback, .. } = self;
        send_trains(shared.outgoing(*number), (batch, count), destinations, feedback);
    }
}

fn classify(read: &[u8], snapshot: &Snapshot) -> Result<(Slot, View, VnetHeader), DropReason> {
    let vnet = VnetHeader::parse(read)?;
    let view = View::parse(&read[VNET_HDR_LEN..])?;
    if frame::kind(&read[VNET_HDR_LEN..], &view) != frame::Kind::Other {
        return Err(DropReason::ReservedAddress);
    }
    let slot = snapshot.table.egress(view.source, view.destination)?;
    Ok((slot, view, vnet))
}

fn send_trains(
    (shared, own): (&UdpSocket, Option<&UdpSocket>),
    (batch, count): (&mut Batch, usize),
    destinations: &[Destination],
    feedback: &mut Vec<(Slot, warren_io::Sent)>,
) {
    // A peer's trains leave by one of the two, and so in their order.
    for (socket, by_own) in [(Some(shared), false), (own, true)] {
        let Some(socket) = socket else { continue };
        let trains = batch.trains().take(count).filter_map(|(slot, segment, payload)| {
            let way = destinations.iter().rev().find(|way| way.slot == slot)?;
            let train = Train { to: way.to, from: way.from, segment, payload };
            ((way.own && own.is_some()) == by_own).then_some((slot, (train, way.singly)))
        });
        socket.send_all(trains.clone().map(|(_, train)| train), |nth, sent| {
            feedback.extend(trains.clone().nth(nth).map(|(slot, _)| (slot, sent)));
        });
    }
    batch.sent(count);
}
