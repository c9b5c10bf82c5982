//! A superpacket under way: which packets continue it, and the headers of the whole.

use super::coalesce::{Opened, PARTS_MAX, Takes};
use super::inner::{self, Inner};
use super::{Gso, Tunnel, VNET_HDR_LEN, VnetHeader};
use crate::checksum::Sum;
use crate::packet::{self, View};

/// Most datagrams in one superpacket (kernel UDP_MAX_SEGMENTS before 6.9); it refuses one with more.
const DATAGRAMS_MAX: usize = 64;
/// IPv4's total length is 16 bits.
const SUPERPACKET_MAX: usize = 65_535;

const TCP_ACK: u8 = 0x10;
const TCP_PSH: u8 = 0x08;

/// A superpacket under way; of one segment at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The first segment.
    pub(super) packet: Opened,
    /// What is inside of the tunnel, where that is joined.
    inner: Option<Inner>,
    kind: Gso,
    /// Length of all headers.
    pub(super) header_len: usize,
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

/// What its transport header says of a segment.
struct Segment {
    kind: Gso,
    /// Length of the transport header.
    header_len: usize,
    sequence: u32,
    pushed: bool,
}

impl Run {
    /// With a packet that could start or join a superpacket.
    pub(super) fn begin(buf: &[u8], packet: Opened, takes: Takes) -> Option<Self> {
        let bytes = buf.get(packet.start..packet.start + packet.view.len)?;
        if !is_plain(&packet.view) {
            return None;
        }
        let within = || Self::within(bytes, packet, inner::of_vxlan(bytes, &packet.view)?);
        let inside = if packet.to_vtep && takes.tunnels { within() } else { None };
        inside.or_else(|| {
            let segment = match packet.view.protocol {
                packet::TCP if takes.tcp => tcp(&bytes[packet.view.transport..]),
                packet::UDP if takes.udp => udp(&bytes[packet.view.transport..]),
                _ => None,
            };
            Self::of(packet, None, segment?)
        })
    }

    /// With TCP inside of a tunnel.
    fn within(bytes: &[u8], packet: Opened, inner: Inner) -> Option<Self> {
        let joins = is_plain(&inner.view) && inner.view.protocol == packet::TCP;
        let segment = tcp(bytes.get(inner.start + inner.view.transport..).filter(|_| joins)?)?;
        Self::of(packet, Some(inner), segment)
    }

    fn of(packet: Opened, inner: Option<Inner>, segment: Segment) -> Option<Self> {
        let transport = inner.map_or(packet.view.transport, |inner| inner.start + inner.view.transport);
        let header_len = transport + segment.header_len;
        let size = packet.view.len.checked_sub(header_len).filter(|size| *size > 0)?;
        Some(Self {
            packet,
            inner,
            kind: segment.kind,
            header_len,
            size,
            len: packet.view.len,
            next_sequence: segment.sequence.wrapping_add(size as u32),
            verified: false,
            pushed: segment.pushed,
            sealed: false,
        })
    }

    pub(super) fn segments_max(&self) -> usize {
        if self.kind == Gso::Udp { DATAGRAMS_MAX } else { PARTS_MAX }
    }

    /// Takes `next` in if it continues this run.
    pub(super) fn take(&mut self, buf: &[u8], next: &Self) -> bool {
        let fits = !self.sealed
            && self.kind == next.kind
            && self.header_len == next.header_len
            && next.size <= self.size
            && self.len + next.size <= SUPERPACKET_MAX
            && self.continues(next)
            && self.same_headers(buf, next);
        if !fits || !next.is_intact(buf) {
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
        let header = |run: &Self| &buf[run.packet.start..run.packet.start + run.header_len];
        let (a, b) = (header(self), header(next));
        let t = self.packet.view.transport;
        match (self.inner, next.inner) {
            (None, None) => same_flow(a, b, t, self.kind),
            (Some(inner), Some(other)) if inner.start == other.start && t == next.packet.view.transport => {
                let (around, others) = (&a[..inner.start], &b[..inner.start]);
                same_flow(around, others, t, Gso::Udp)
                    && (around[t + 6..t + 8] == [0, 0]) == (others[t + 6..t + 8] == [0, 0])
                    && around[t + 8..] == others[t + 8..]
                    && same_flow(&a[inner.start..], &b[inner.start..], inner.view.transport, self.kind)
            }
            _ => false,
        }
    }

    /// All checksums are right, or there are none to be.
    fn is_intact(&self, buf: &[u8]) -> bool {
        let Opened { start, view, bare, .. } = self.packet;
        let bytes = &buf[start..start + view.len];
        (bare || is_intact(bytes, &view))
            && self.inner.is_none_or(|inner| is_intact(&bytes[inner.start..], &inner.view))
    }

    /// Makes the first segment's headers those of the whole; gives the vnet header.
    pub(super) fn patch(&self, buf: &mut [u8]) -> [u8; VNET_HDR_LEN] {
        let Opened { start, view, bare, .. } = self.packet;
        let bytes = &mut buf[start..start + self.header_len];
        let Some(inner) = self.inner else {
            patch(bytes, &view, self.len, self.kind, self.pushed);
            return self.vnet(&view, 0, None).encode(view.source.is_ipv6(), self.header_len as u16);
        };
        patch(&mut bytes[inner.start..], &inner.view, self.len - inner.start, self.kind, self.pushed);
        let field = view.transport + 6;
        let checksum = bare || bytes[field..field + 2] != [0, 0];
        patch(bytes, &view, self.len, Gso::Udp, false);
        if !checksum {
            bytes[field..field + 2].fill(0);
        }
        let (outer_transport, inner_network) = (view.transport as u16, inner.start as u16);
        let vnet = self.vnet(&inner.view, inner.start, Some(Tunnel { outer_transport, inner_network, checksum }));
        vnet.encode_around(inner.view.source.is_ipv6(), view.source.is_ipv6(), self.header_len as u16)
    }

    /// For the flow whose packets start at `at`.
    fn vnet(&self, flow: &View, at: usize, tunnel: Option<Tunnel>) -> VnetHeader {
        VnetHeader {
            needs_csum: true,
            gso: self.kind,
            gso_size: self.size as u16,
            csum_start: (at + flow.transport) as u16,
            csum_offset: if self.kind == Gso::Tcp { 16 } else { 6 },
            tunnel,
        }
    }
}

/// Whole, and its transport header right behind a plain IP header.
fn is_plain(view: &View) -> bool {
    !view.fragment && view.transport == if view.source.is_ipv4() { 20 } else { 40 }
}

fn tcp(header: &[u8]) -> Option<Segment> {
    let flags = *header.get(13)?;
    let header_len = usize::from(header.get(12)? >> 4) * 4;
    // ACK, perhaps PSH; anything else (SYN, FIN, RST, URG, ECE, CWR) passes alone.
    if flags & !TCP_PSH != TCP_ACK || header_len < 20 || header_len > header.len() {
        return None;
    }
    let sequence = u32::from_be_bytes(header.get(4..8)?.try_into().ok()?);
    Some(Segment { kind: Gso::Tcp, header_len, sequence, pushed: flags & TCP_PSH != 0 })
}

fn udp(header: &[u8]) -> Option<Segment> {
    let len = usize::from(u16::from_be_bytes(header.get(4..6)?.try_into().ok()?));
    (len == header.len()).then_some(Segment { kind: Gso::Udp, header_len: 8, sequence: 0, pushed: false })
}

/// Of headers whose transport starts at `t`: equal but for lengths, identification, sequence, PSH and checksums.
fn same_flow(a: &[u8], b: &[u8], t: usize, kind: Gso) -> bool {
    let ip = if t == 20 {
        a[..2] == b[..2] && a[6..10] == b[6..10] && a[12..20] == b[12..20]
    } else {
        a[..4] == b[..4] && a[6..40] == b[6..40]
    };
    let ports = a[t..t + 4] == b[t..t + 4];
    if kind == Gso::Udp {
        return ip && ports;
    }
    ip && ports
        && a[t + 8..t + 13] == b[t + 8..t + 13]
        && a[t + 14..t + 16] == b[t + 14..t + 16]
        && a[t + 18..] == b[t + 18..]
}

/// Both checksums are right, or there is none to be.
fn is_intact(packet: &[u8], view: &View) -> bool {
    let (ip, transport) = packet[..view.len].split_at(view.transport);
    let ip = view.source.is_ipv6() || Sum::default().add_bytes(ip).is_valid();
    if view.protocol == packet::UDP && transport[6..8] == [0, 0] {
        // Without a checksum (RFC 768) there is nothing to verify. Joined, it gets one: the kernel takes no other.
        return ip;
    }
    ip && pseudo(view, transport.len()).add_bytes(transport).is_valid()
}

/// Makes headers those of a packet of `len` bytes.
fn patch(header: &mut [u8], view: &View, len: usize, kind: Gso, pushed: bool) {
    let t = view.transport;
    if view.source.is_ipv6() {
        header[4..6].copy_from_slice(&((len - t) as u16).to_be_bytes());
    } else {
        header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        header[10..12].fill(0);
        let sum = Sum::default().add_bytes(&header[..t]).finish();
        header[10..12].copy_from_slice(&sum);
    }
    let partial = pseudo(view, len - t).partial();
    let field = t + if kind == Gso::Tcp { 16 } else { 6 };
    header[field..field + 2].copy_from_slice(&partial);
    match kind {
        Gso::Tcp if pushed => header[t + 13] |= TCP_PSH,
        Gso::Tcp => {}
        _ => header[t + 4..t + 6].copy_from_slice(&((len - t) as u16).to_be_bytes()),
    }
}

/// The sum over the pseudo header of a transport of `len` bytes.
pub(super) fn pseudo(view: &View, len: usize) -> Sum {
    Sum::default().add_pseudo(view.source, view.destination, view.protocol).add_u16(len as u16)
}
