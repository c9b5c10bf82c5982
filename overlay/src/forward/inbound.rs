//! Inbound: datagrams are opened side by side into one arena, checked, joined by reference and written.

use std::net::IpAddr;
use std::ops::Range;

use super::{Open, Slot, Table};
use crate::drops::DropReason;
use crate::frame::{self, Kind};
use crate::offload::{Coalescer, Write};
use crate::packet::View;

/// Two trains of 64 KiB.
const ARENA_LEN: usize = 2 * 65_536;
/// Datagrams in a train (kernel UDP_GRO_CNT_MAX), twice.
const PACKETS_MAX: usize = 128;
const ALIGN: usize = 16;

/// The receive arena and the packets in it.
#[derive(Debug)]
pub struct Inbound {
    arena: Box<[u8]>,
    used: usize,
    packets: Vec<(usize, View)>,
    coalescer: Coalescer,
    /// The last flow that passed the table; trains are mostly of one flow.
    passed: Option<(Slot, IpAddr, IpAddr)>,
    /// Where the control frame lies that was opened last.
    frame: Option<Range<usize>>,
}

impl Inbound {
    /// `tcp` and `udp`: which superpackets the TUN takes.
    pub fn new(tcp: bool, udp: bool) -> Self {
        Self {
            arena: vec![0; ARENA_LEN].into(),
            used: 0,
            packets: Vec::with_capacity(PACKETS_MAX),
            coalescer: Coalescer::new(tcp, udp),
            passed: None,
            frame: None,
        }
    }

    /// True when a datagram of `len` bytes may not fit: deliver first.
    pub fn is_full_for(&self, len: usize) -> bool {
        self.arena.len() - self.used < len || self.packets.len() >= PACKETS_MAX
    }

    /// Forgets which flow passed; call when the table changed.
    pub fn forget(&mut self) {
        self.passed = None;
    }

    /// Opens a datagram of the peer in `slot` and keeps its packet. Gives the packet's length, 0 for a keepalive and for a
    /// control frame, which [`Self::take_frame`] gives.
    ///
    /// # Errors
    /// Why it is lost; [`DropReason::QueueFull`] when the caller ignored [`Inbound::is_full_for`].
    pub fn open(
        &mut self,
        table: &Table,
        slot: Slot,
        datagram: &[u8],
        session: &mut impl Open,
    ) -> Result<usize, DropReason> {
        if self.is_full_for(datagram.len()) {
            return Err(DropReason::QueueFull);
        }
        let start = self.used;
        let len = session.open(datagram, &mut self.arena[start..])?;
        if len == 0 {
            return Ok(0);
        }
        let packet = self.arena.get(start..start + len).ok_or(DropReason::Malformed)?;
        let view = View::parse(packet)?;
        match frame::kind(packet, &view) {
            Kind::Other => {}
            Kind::Frame => {
                self.frame = Some(start..start + view.len);
                return Ok(0);
            }
            Kind::Reserved => return Err(DropReason::ReservedAddress),
        }
        let flow = (slot, view.source, view.destination);
        if self.passed != Some(flow) {
            table.ingress(slot, view.source, view.destination)?;
            self.passed = Some(flow);
        }
        self.packets.push((start, view));
        self.used = (start + view.len).next_multiple_of(ALIGN).min(self.arena.len());
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

    /// Hands all packets, joined where they allow it, to `write` and empties the arena.
    pub fn deliver(&mut self, mut write: impl FnMut(&mut [u8], &Write<'_>)) {
        for (start, view) in self.packets.drain(..) {
            self.coalescer.push(&mut self.arena, start, view, &mut write);
        }
        self.coalescer.flush(&mut self.arena, &mut write);
        self.used = 0;
    }
}
