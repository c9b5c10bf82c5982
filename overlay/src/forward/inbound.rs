//! Inbound: trains are received into one arena, opened there, checked, joined by reference and written.

use std::net::IpAddr;
use std::ops::Range;

use super::{Open, Slot, Table};
use crate::drops::DropReason;
use crate::frame::{self, Kind};
use crate::offload::{Coalescer, Opened, Takes, Write, may_be_bare, unmark};
use crate::packet::View;

/// A train, with room to spare for what is opened elsewhere than in its place.
const TRAIN_MAX: usize = 65_536;
/// What is kept of earlier trains, a whole one, and its packets where a session does not open in place; each session may
/// want a whole train's room for every packet.
const ARENA_LEN: usize = 6 * TRAIN_MAX;
/// Datagrams in a train (kernel UDP_GRO_CNT_MAX), twice.
const PACKETS_MAX: usize = 128;
const ALIGN: usize = 64;

/// The receive arena and the packets in it.
#[derive(Debug)]
pub struct Inbound {
    arena: Box<[u8]>,
    used: usize,
    packets: Vec<Opened>,
    coalescer: Coalescer,
    /// The last flow that passed the table; trains are mostly of one flow.
    passed: Option<(Slot, IpAddr, IpAddr)>,
    /// Where the control frame lies that was opened last.
    frame: Option<Range<usize>>,
}

impl Inbound {
    /// An empty one, for a TUN that takes this.
    pub fn new(takes: Takes) -> Self {
        Self {
            arena: vec![0; ARENA_LEN].into(),
            used: 0,
            packets: Vec::with_capacity(PACKETS_MAX),
            coalescer: Coalescer::new(takes),
            passed: None,
            frame: None,
        }
    }

    /// Where the next train may be received: 64 KiB, or nothing before what is there was delivered.
    pub fn room(&mut self) -> &mut [u8] {
        if self.packets.is_empty() {
            self.used = 0;
        }
        let enough = self.arena.len() - self.used >= 3 * TRAIN_MAX;
        let len = if enough { TRAIN_MAX } else { 0 };
        &mut self.arena[self.used..self.used + len]
    }

    /// The first `len` bytes of [`Self::room`] are a train now. Gives where it lies.
    pub fn arrived(&mut self, len: usize) -> Range<usize> {
        let start = self.used;
        self.used = (start + len.min(TRAIN_MAX)).next_multiple_of(ALIGN).min(self.arena.len());
        start..(start + len).min(self.used)
    }

    /// Copies a datagram in that was received elsewhere; `None` before what is there was delivered.
    pub fn place(&mut self, datagram: &[u8]) -> Option<Range<usize>> {
        self.room().get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(self.arrived(datagram.len()))
    }

    /// A datagram of a train.
    pub fn datagram(&self, at: Range<usize>) -> &[u8] {
        self.arena.get(at).unwrap_or_default()
    }

    /// True when no further datagram can be opened: deliver first.
    pub fn is_full(&self) -> bool {
        self.packets.len() >= PACKETS_MAX
    }

    /// Forgets which flow passed; call when the table changed.
    pub fn forget(&mut self) {
        self.passed = None;
    }

    /// Opens a datagram of the peer in `slot` and keeps its packet. Gives the packet's length, 0 for a keepalive and for a
    /// control frame, which [`Self::take_frame`] gives.
    ///
    /// # Errors
    /// Why it is lost; [`DropReason::QueueFull`] when the caller ignored [`Inbound::is_full`].
    pub fn open<O: Open>(
        &mut self,
        table: &Table,
        slot: Slot,
        datagram: Range<usize>,
        session: &mut O,
    ) -> Result<usize, DropReason> {
        if self.is_full() || datagram.end > self.used {
            return Err(DropReason::QueueFull);
        }
        let at = session.open(&mut self.arena, datagram, self.used)?;
        let (start, end) = (at.start, at.end);
        let packet = self.arena.get_mut(at).ok_or(DropReason::Malformed)?;
        if packet.is_empty() {
            return Ok(0);
        }
        let bare = O::MARKS && unmark(packet);
        let view = View::parse(packet)?;
        match frame::kind(packet, &view) {
            Kind::Other => {}
            Kind::Frame => {
                self.frame = Some(start..start + view.len);
                return Ok(0);
            }
            Kind::Reserved => return Err(DropReason::ReservedAddress),
        }
        if bare && !may_be_bare(&view) {
            return Err(DropReason::Malformed);
        }
        let flow = (slot, view.source, view.destination);
        if self.passed != Some(flow) {
            table.ingress(slot, view.source, view.destination)?;
            self.passed = Some(flow);
        }
        let to_vtep = table.to_vtep(packet, &view);
        self.packets.push(Opened { start, view, bare, to_vtep });
        self.used = self.used.max(end.next_multiple_of(ALIGN)).min(self.arena.len());
        Ok(view.len)
    }

    /// The control frame that was opened just now; it never reaches the device.
    pub fn take_frame(&mut self) -> Option<&[u8]> {
        self.arena.get(self.frame.take()?)
    }

    /// Takes back the packet that was opened last: it came by a way on which it may not come.
    pub fn discard(&mut self) {
        self.packets.pop();
    }

    /// From now on TCP inside of tunnels is joined as datagrams of the tunnel only.
    pub fn join_no_tunnels(&mut self) {
        self.coalescer.join_no_tunnels();
    }

    /// Hands all packets, joined where they allow it, to `write`. Datagrams that are not opened yet stay.
    pub fn deliver(&mut self, mut write: impl FnMut(&mut [u8], &Write<'_>)) {
        for packet in self.packets.drain(..) {
            self.coalescer.push(&mut self.arena, packet, &mut write);
        }
        self.coalescer.flush(&mut self.arena, &mut write);
    }
}
