//! Joins received segments of one flow into superpackets, by reference: the frame that goes to the kernel is a list of
//! slices of the buffer in which the packets were opened.
//!
//! Only neighbours are joined, so the order never changes. A segment joins when its headers differ from the first one's
//! in nothing but length, sequence, identification, PSH and checksums, and when its checksum is right: the kernel will not
//! look at it again; a bare packet's is right by authentication. A datagram without one (VXLAN) joins as it is. Everything
//! else passes alone, and untouched unless it is bare.
//!
//! A pushed segment does not end a superpacket, as it does in the kernel's own GRO: the whole is pushed then (RFC 9293,
//! section 3.9.1: that loses nothing). A sender pushes at the end of each write and a train ends somewhere else, so
//! that most trains would make two superpackets, each with an acknowledgement of its own.

use std::ops::Range;

use super::{Gso, VNET_HDR_LEN, VnetHeader, bare};
use crate::checksum::Sum;
use crate::packet::{self, View};

/// Most slices in one frame; with the vnet header well below the kernel's 1024.
pub const PARTS_MAX: usize = 128;
/// Most datagrams in one superpacket (kernel UDP_MAX_SEGMENTS before 6.9); it refuses one with more.
const DATAGRAMS_MAX: usize = 64;
/// IPv4's total length is 16 bits.
const SUPERPACKET_MAX: usize = 65_535;

const TCP_ACK: u8 = 0x10;
const TCP_PSH: u8 = 0x08;

/// A frame for the TUN: the vnet header, then these slices of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Write<'c> {
    /// First part of the frame.
    pub vnet: [u8; VNET_HDR_LEN],
    /// The packet: the first slice holds all headers.
    pub parts: &'c [Range<usize>],
    /// Segments in the frame.
    pub segments: usize,
}

/// What the TUN takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    /// Packets whose checksum is still to be made: the device has a vnet header.
    pub checksums: bool,
    /// TCP superpackets.
    pub tcp: bool,
    /// UDP superpackets.
    pub udp: bool,
}

/// Joins the packets of one train. Kept by the worker; allocates once.
#[derive(Debug)]
pub struct Coalescer {
    takes: Takes,
    parts: Vec<Range<usize>>,
    run: Option<Run>,
}

/// A superpacket under way.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: usize,
    view: View,
    /// Its first segment is.
    bare: bool,
    kind: Gso,
    header_len: usize,
    /// Payload of every segment but the last.
    size: usize,
    /// Length of the whole.
    len: usize,
    next_sequence: u32,
    verified: bool,
    /// One of its segments is.
    pushed: bool,
    /// The last segment was short: nothing may follow.
    sealed: bool,
}

impl Coalescer {
    /// Nothing is under way.
    pub fn new(takes: Takes) -> Self {
        Self { takes, parts: Vec::with_capacity(PARTS_MAX), run: None }
    }

    /// Takes the next packet, which starts at `start` of `buf` and may be bare. Whatever can no longer grow goes to
    /// `write`.
    pub fn push(
        &mut self,
        buf: &mut [u8],
        (start, view, bare): (usize, View, bool),
        write: &mut impl FnMut(&mut [u8], &Write<'_>),
    ) {
        let candidate = self.candidate(buf, start, view, bare);
        if let (Some(run), Some(next)) = (self.run.as_mut(), candidate.as_ref())
            && self.parts.len() < run.segments_max()
            && run.take(buf, next)
        {
            self.parts.push(start + next.header_len..start + view.len);
            return;
        }
        self.flush(buf, write);
        match candidate {
            Some(run) => {
                self.parts.push(start..start + view.len);
                self.run = Some(run);
            }
            None => {
                let vnet = if bare { self.alone(buf, start, view) } else { [0; VNET_HDR_LEN] };
                let alone = start..start + view.len;
                write(buf, &Write { vnet, parts: std::slice::from_ref(&alone), segments: 1 });
            }
        }
    }

    /// Writes what is left; call at the end of every train.
    pub fn flush(&mut self, buf: &mut [u8], write: &mut impl FnMut(&mut [u8], &Write<'_>)) {
        let Some(run) = self.run.take() else { return };
        let segments = self.parts.len();
        let vnet = match segments {
            1 if run.bare => self.alone(buf, run.start, run.view),
            1 => [0; VNET_HDR_LEN],
            _ => run.patch(buf),
        };
        write(buf, &Write { vnet, parts: &self.parts, segments });
        self.parts.clear();
    }

    /// A packet that could start or join a superpacket.
    fn candidate(&self, buf: &[u8], start: usize, view: View, bare: bool) -> Option<Run> {
        let packet = buf.get(start..start + view.len)?;
        let plain = if view.source.is_ipv4() { 20 } else { 40 };
        if view.fragment || view.transport != plain {
            return None;
        }
        let transport = packet.get(view.transport..)?;
        let (kind, transport_len, next_sequence, pushed) = match view.protocol {
            packet::TCP if self.takes.tcp => tcp(transport)?,
            packet::UDP if self.takes.udp => udp(transport)?,
            _ => return None,
        };
        let header_len = view.transport + transport_len;
        let size = view.len.checked_sub(header_len).filter(|size| *size > 0)?;
        let next_sequence = next_sequence.wrapping_add(size as u32);
        let (len, verified, sealed) = (view.len, bare, false);
        Some(Run { start, view, bare, kind, header_len, size, len, next_sequence, verified, pushed, sealed })
    }

    /// What a bare packet needs that nothing is joined to.
    fn alone(&self, buf: &mut [u8], start: usize, view: View) -> [u8; VNET_HDR_LEN] {
        let Some((offset, _)) = bare::checksum_field(view.protocol) else { return [0; VNET_HDR_LEN] };
        let transport = &mut buf[start + view.transport..start + view.len];
        let partial = pseudo(&view, transport.len()).partial();
        transport[offset..offset + 2].copy_from_slice(&partial);
        if !self.takes.checksums {
            let sum = bare::never_zero(Sum::default().add_bytes(transport).finish(), view.protocol);
            transport[offset..offset + 2].copy_from_slice(&sum);
            return [0; VNET_HDR_LEN];
        }
        let (csum_start, csum_offset) = (view.transport as u16, offset as u16);
        VnetHeader { needs_csum: true, gso: Gso::None, gso_size: 0, csum_start, csum_offset, tunnel: None }
            .encode(false, 0)
    }
}

/// Kind, header length, sequence, and whether it is pushed.
fn tcp(header: &[u8]) -> Option<(Gso, usize, u32, bool)> {
    let flags = *header.get(13)?;
    let len = usize::from(header.get(12)? >> 4) * 4;
    // ACK, perhaps PSH; anything else (SYN, FIN, RST, URG, ECE, CWR) passes alone.
    if flags & !TCP_PSH != TCP_ACK || len < 20 || len > header.len() {
        return None;
    }
    let sequence = u32::from_be_bytes(header.get(4..8)?.try_into().ok()?);
    Some((Gso::Tcp, len, sequence, flags & TCP_PSH != 0))
}

fn udp(header: &[u8]) -> Option<(Gso, usize, u32, bool)> {
    let len = usize::from(u16::from_be_bytes(header.get(4..6)?.try_into().ok()?));
    (len == header.len()).then_some((Gso::Udp, 8, 0, false))
}

impl Run {
    fn segments_max(&self) -> usize {
        if self.kind == Gso::Udp { DATAGRAMS_MAX } else { PARTS_MAX }
    }

    /// Takes `next` in if it continues this run.
    fn take(&mut self, buf: &[u8], next: &Self) -> bool {
        let fits = !self.sealed
            && self.kind == next.kind
            && self.header_len == next.header_len
            && next.size <= self.size
            && self.len + next.size <= SUPERPACKET_MAX
            && self.continues(next)
            && self.same_headers(buf, next);
        if !fits || !next.bare && !next.is_intact(buf) {
            return false;
        }
        if !self.verified {
            if !self.is_intact(buf) {
                return false;
            }
            self.verified = true;
        }
        self.len += next.size;
        self.next_sequence = next.next_sequence;
        self.pushed |= next.pushed;
        self.sealed = next.size < self.size;
        true
    }

    fn continues(&self, next: &Self) -> bool {
        self.kind == Gso::Udp || self.next_sequence.wrapping_add(next.size as u32) == next.next_sequence
    }

    /// Equal but for lengths, identification, sequence, PSH and checksums.
    fn same_headers(&self, buf: &[u8], next: &Self) -> bool {
        let (a, b) = (&buf[self.start..self.start + self.header_len], &buf[next.start..next.start + next.header_len]);
        let t = self.view.transport;
        let ip = if t == 20 {
            a[..2] == b[..2] && a[6..10] == b[6..10] && a[12..20] == b[12..20]
        } else {
            a[..4] == b[..4] && a[6..40] == b[6..40]
        };
        let ports = a[t..t + 4] == b[t..t + 4];
        if self.kind == Gso::Udp {
            return ip && ports;
        }
        ip && ports
            && a[t + 8..t + 13] == b[t + 8..t + 13]
            && a[t + 14..t + 16] == b[t + 14..t + 16]
            && a[t + 20..] == b[t + 20..]
    }

    /// Both checksums are right, or there is none to be.
    fn is_intact(&self, buf: &[u8]) -> bool {
        let packet = &buf[self.start..self.start + self.view.len];
        let ip = self.view.source.is_ipv6() || Sum::default().add_bytes(&packet[..self.view.transport]).is_valid();
        let transport = &packet[self.view.transport..];
        if self.kind == Gso::Udp && transport[6..8] == [0, 0] {
            // Without a checksum (RFC 768) there is nothing to verify. Joined, it gets one: the kernel takes no other.
            return ip;
        }
        ip && pseudo(&self.view, transport.len()).add_bytes(transport).is_valid()
    }

    /// Makes the first segment's headers those of the whole; gives the vnet header.
    fn patch(&self, buf: &mut [u8]) -> [u8; VNET_HDR_LEN] {
        let packet = &mut buf[self.start..self.start + self.header_len];
        let t = self.view.transport;
        let v6 = t == 40;
        if v6 {
            packet[4..6].copy_from_slice(&((self.len - t) as u16).to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
            packet[10..12].fill(0);
            let sum = Sum::default().add_bytes(&packet[..t]).finish();
            packet[10..12].copy_from_slice(&sum);
        }
        let partial = pseudo(&self.view, self.len - t).partial();
        let csum_offset = if self.kind == Gso::Tcp { 16 } else { 6 };
        packet[t + csum_offset..t + csum_offset + 2].copy_from_slice(&partial);
        match self.kind {
            Gso::Tcp if self.pushed => packet[t + 13] |= TCP_PSH,
            Gso::Tcp => {}
            _ => packet[t + 4..t + 6].copy_from_slice(&((self.len - t) as u16).to_be_bytes()),
        }
        let header = VnetHeader {
            needs_csum: true,
            gso: self.kind,
            gso_size: self.size as u16,
            csum_start: t as u16,
            csum_offset: csum_offset as u16,
            tunnel: None,
        };
        header.encode(v6, self.header_len as u16)
    }
}

/// The sum over the pseudo header of a transport of `len` bytes.
fn pseudo(view: &View, len: usize) -> Sum {
    Sum::default().add_pseudo(view.source, view.destination, view.protocol).add_u16(len as u16)
}
