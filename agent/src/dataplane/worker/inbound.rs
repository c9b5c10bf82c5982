//! UDP to TUN.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use warren_crypto::association;
use warren_crypto::exchange::Probe;
use warren_crypto::message::Message;
use warren_io::steer::worker_of_index;
use warren_io::{Received, TRAINS_MAX, TunQueue};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::Slot;
use warren_overlay::frame;
use warren_overlay::offload::{PARTS_MAX, Write};
use warren_overlay::settle;

use super::super::counters::grow;
use super::super::peer::{Opening, Session};
use super::super::snapshot::Snapshot;
use super::super::strays::Stray;
use super::{Worker, lost};
use crate::config::Associations;

/// Bytes after which the turn goes back to the TUN: more than a train, since the end of a superpacket comes in a train
/// of its own.
const TURN_BYTES: usize = 66_000;
/// System calls after which the turn goes back to the TUN.
const TURN_TRAINS: usize = 64;

/// Ticks of the clerk in a period, in which the first packet of each association is told to its sender: three seconds.
const PERIOD: u32 = 12;

/// Where a turn brought several trains and none longer than this, the next turn asks for several in one call: all but the
/// first are copied once more.
const SHORT: usize = 2_048;

/// What came in a turn.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    bytes: usize,
    trains: usize,
    /// Trains, and calls that brought none.
    calls: usize,
    longest: usize,
}

impl Turn {
    fn count(&mut self, len: usize) {
        self.bytes += len;
        self.trains += 1;
        self.calls += 1;
        self.longest = self.longest.max(len);
    }
}

/// The peer whose session is locked right now.
type Held<'s> = Option<(Slot, MutexGuard<'s, Session>)>;

impl Worker {
    /// Takes trains off the socket and delivers them; false when there was none.
    pub(super) fn receive_turn(&mut self, snapshot: &Snapshot) -> bool {
        // What was handed over mostly came before what waits in the socket.
        let strays = self.shared.strays[self.number].take();
        let had_strays = !strays.is_empty();
        for Stray { datagram, from, to } in strays {
            self.open_stray(snapshot, &datagram, (from, to));
        }
        let mut turn = Turn::default();
        while turn.bytes < TURN_BYTES && turn.calls < TURN_TRAINS && self.receive(snapshot, &mut turn) {}
        self.many = turn.trains > 1 && turn.longest <= SHORT;
        self.deliver();
        turn.trains > 0 || had_strays
    }

    /// One call; false when nothing is left.
    fn receive(&mut self, snapshot: &Snapshot, turn: &mut Turn) -> bool {
        let most = if self.many { (TURN_TRAINS - turn.calls).min(TRAINS_MAX) } else { 1 };
        let room = self.inbound.room();
        if room.is_empty() {
            return false;
        }
        match self.shared.sockets[self.number].recv(room, &mut self.rooms, most) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            // An ICMP error of an earlier send, or a signal; the next call is fine.
            Err(_) => {
                turn.calls += 1;
                return true;
            }
        }
        let came = self.rooms.trains().len();
        for nth in 0..came {
            let Some(Received { from, to, len, segment }) = self.rooms.trains().get(nth).copied() else { break };
            turn.count(len);
            match self.take_in(nth, len) {
                Some(train) => self.open_train(snapshot, train, segment, (from, to)),
                None => self.drop_packets(DropReason::QueueFull, len.div_ceil(segment) as u64),
            }
        }
        came == most
    }

    /// Where the train lies in the arena: the first came there, the others are put there.
    fn take_in(&mut self, nth: usize, len: usize) -> Option<Range<usize>> {
        if nth == 0 {
            return Some(self.inbound.arrived(len));
        }
        if self.inbound.room().is_empty() {
            self.deliver();
        }
        self.inbound.place(self.rooms.bytes(nth))
    }

    fn open_stray(&mut self, snapshot: &Snapshot, datagram: &[u8], way: (SocketAddr, Option<IpAddr>)) {
        if self.inbound.room().is_empty() {
            self.deliver();
        }
        match self.inbound.place(datagram) {
            Some(train) => self.open_train(snapshot, train, datagram.len(), way),
            None => self.drop_packets(DropReason::QueueFull, 1),
        }
    }

    fn open_train(
        &mut self,
        snapshot: &Snapshot,
        train: Range<usize>,
        segment: usize,
        (from, to): (SocketAddr, Option<IpAddr>),
    ) {
        let mut held: Held<'_> = None;
        for start in train.clone().step_by(segment.max(1)) {
            let at = start..(start + segment).min(train.end);
            if self.inbound.is_full() {
                // The kernel's work is not done under a peer's lock.
                drop(held.take());
                self.deliver();
            }
            let datagram = self.inbound.datagram(at.clone());
            if let Some(index) = association::index_of(datagram) {
                // It may ask a peer's session, this one's too, where that sends to.
                drop(held.take());
                self.open_association(snapshot, index, at, (from, to));
                continue;
            }
            match Message::classify(datagram) {
                Some(Message::Data { peer, .. }) => {
                    if held.as_ref().is_none_or(|(slot, _)| *slot != peer) {
                        drop(held.take());
                        held = snapshot.peer(peer).map(|found| (peer, found.lock()));
                    }
                    match held.as_mut() {
                        Some((slot, session)) => self.open_data(snapshot, *slot, session, at, (from, to)),
                        None => self.drop_packets(DropReason::UnknownTunnel, 1),
                    }
                }
                Some(_) => {
                    if !self.clerk.handshake(datagram, from, to) {
                        self.drop_packets(DropReason::Handshake, 1);
                    }
                }
                None => self.drop_packets(DropReason::NotWireGuard, 1),
            }
        }
    }

    /// No lock: the receiver is this worker's own.
    fn open_association(
        &mut self,
        snapshot: &Snapshot,
        index: u32,
        at: Range<usize>,
        (from, to): (SocketAddr, Option<IpAddr>),
    ) {
        let Self { lanes, inbound, shared, number, clerk, .. } = self;
        let Some(receiving) = lanes.receiver(index) else { return self.stray(index, at, (from, to)) };
        let (id, generation) = (receiving.peer, receiving.generation);
        let Some(peer) = snapshot.peer(id.slot).filter(|peer| peer.id() == id) else {
            return self.drop_packets(DropReason::UnknownTunnel, 1);
        };
        let counters = peer.lane(*number);
        let (mut opened, mut is_probe) = (inbound.open(&snapshot.table, id.slot, at, receiving), false);
        // Of control frames probes alone travel here; all others in the tunnel.
        if let Some(packet) = inbound.take_frame() {
            match frame::whole(packet).and_then(Probe::parse) {
                Some(probe) => {
                    is_probe = true;
                    if receiving.is_probed(probe, from.port(), shared.ticks.load(Ordering::Relaxed)) {
                        clerk.probed(id, (generation, index), (probe, from.port()));
                    }
                }
                None => opened = Err(DropReason::ReservedAddress),
            }
        }
        match opened {
            Ok(len) => {
                if len > 0 {
                    grow(&counters.rx_packets, 1);
                    grow(&counters.rx_bytes, len as u64);
                }
                let period = shared.ticks.load(Ordering::Relaxed) / PERIOD;
                if !is_probe && receiving.first_heard(period) && !clerk.heard(id, generation, index) {
                    receiving.not_heard();
                }
                if let Some(there) = receiving.elsewhere(peer, from) {
                    clerk.probe(id, there, to);
                }
            }
            Err(reason) => {
                grow(&counters.drops, 1);
                shared.counters[*number].add(reason, 1);
            }
        }
    }

    /// A datagram for another worker's association, or for none.
    fn stray(&self, index: u32, at: Range<usize>, (from, to): (SocketAddr, Option<IpAddr>)) {
        let worker = worker_of_index(index, self.shared.strays.len());
        if worker == self.number {
            return self.drop_packets(DropReason::UnknownTunnel, 1);
        }
        let datagram = self.inbound.datagram(at).into();
        match self.shared.strays[worker].hand_over(Stray { datagram, from, to }) {
            Some(true) => self.shared.wakers[worker].wake(),
            Some(false) => {}
            None => self.drop_packets(DropReason::QueueFull, 1),
        }
    }

    fn open_data(
        &mut self,
        snapshot: &Snapshot,
        slot: Slot,
        session: &mut Session,
        at: Range<usize>,
        (from, to): (SocketAddr, Option<IpAddr>),
    ) {
        let had_session = session.tunnel.has_session();
        let mut opening = Opening { session, from, to };
        let opened = self.inbound.open(&snapshot.table, slot, at, &mut opening);
        // The first authentic packet is what confirms a responder's session.
        if !had_session && session.tunnel.has_session() && session.has_waiting() {
            self.clerk.connect(slot);
        }
        let associates = self.shared.options.associations != Associations::Off;
        if let Some(frame) = self.inbound.take_frame() {
            let peer = snapshot.peer(slot).filter(|peer| peer.speaks() && associates);
            if let Err(reason) = self.clerk.control(peer.map(|peer| peer.id()), frame) {
                lost(session, &self.shared.counters[self.number], reason);
            }
            return;
        }
        match opened {
            Ok(0) => {}
            Ok(_) if self.shared.options.associations == Associations::Require => {
                self.inbound.discard();
                lost(session, &self.shared.counters[self.number], DropReason::NoAssociation);
            }
            Ok(len) => {
                session.counters.rx_packets += 1;
                session.counters.rx_bytes += len as u64;
            }
            Err(reason) => lost(session, &self.shared.counters[self.number], reason),
        }
    }

    fn deliver(&mut self) {
        let Self { inbound, queues, shared, number, .. } = self;
        let (counters, mut refused) = (&shared.counters[*number], false);
        inbound.deliver(|buf, frame| {
            let header = frame.parts.first().and_then(|span| buf.get(span.clone())).unwrap_or_default();
            if let Err(error) = write_frame(&queues[settle::queue(header, queues.len())], buf, frame) {
                counters.add(DropReason::TunWriteFailed, frame.segments as u64);
                refused |= frame.is_tunnel() && error.kind() == io::ErrorKind::InvalidInput;
            }
        });
        if refused {
            // It took the samples, when the device was opened.
            tracing::warn!(
                worker = *number,
                "the kernel refuses superpackets of VXLAN: it gets joined datagrams from now on"
            );
            inbound.join_no_tunnels();
        }
    }
}

fn write_frame(queue: &TunQueue, buf: &[u8], frame: &Write<'_>) -> io::Result<usize> {
    let mut parts = [IoSlice::new(&[]); PARTS_MAX + 1];
    parts[0] = IoSlice::new(&frame.vnet);
    for (part, span) in parts[1..].iter_mut().zip(frame.parts) {
        *part = IoSlice::new(&buf[span.clone()]);
    }
    queue.send(&parts[..=frame.parts.len()])
}
