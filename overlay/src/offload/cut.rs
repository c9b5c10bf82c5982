//! Cuts a superpacket into the packets that it stands for, in its own buffer.
//!
//! Each segment's headers are written into the bytes before its payload: those belong to the segment before, which has
//! been consumed by then. So every segment is contiguous plaintext and not one payload byte is moved.
//!
//! ```text
//! frame:   [headers][payload 0][payload 1][payload 2]
//! cut 1:        [headers'][payload 1]        the tail of payload 0 is overwritten
//! ```
//!
//! Where the flow is inside of a UDP tunnel (VXLAN, Geneve), the headers are those of the tunnel and of the flow, and each
//! segment is a datagram of the tunnel.

use super::inner::{self, Inner};
use super::{Gso, VnetHeader, bare};
use crate::checksum::Sum;
use crate::drops::DropReason;
use crate::packet::{self, View};

/// IPv6 with extension headers and TCP options; more than any real packet has.
const HEADER_MAX: usize = 256;
/// Plaintext is padded to a multiple of this (WireGuard paper, section 5.4.6).
const PADDING: usize = 16;

const TCP_FIN_PSH: u8 = 0x01 | 0x08;
const TCP_CWR: u8 = 0x80;

/// Yields the packets of one frame, padded, one after the other.
#[derive(Debug)]
pub struct Cutter<'f> {
    buf: &'f mut [u8],
    view: View,
    vnet: VnetHeader,
    /// The flow inside of the tunnel, if it is inside of one.
    inner: Option<Inner>,
    /// Length of all headers; the payload starts here.
    header_len: usize,
    header: [u8; HEADER_MAX],
    /// Where the next segment's payload starts.
    next: usize,
    index: u32,
    mtu: usize,
    /// The other end makes the checksums.
    bare: bool,
    /// The bytes that padding overwrote, to be put back.
    saved: [u8; PADDING],
    padded: Option<(usize, usize)>,
}

impl<'f> Cutter<'f> {
    /// `buf` holds the packet (without its vnet header) in its first `view.len` bytes and at least 16 more. With `marks`
    /// the other end makes the checksums that the kernel left out.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`] when the vnet header asks for what the packet cannot give;
    /// [`DropReason::TooBig`] when a segment would exceed `mtu`.
    pub fn new(buf: &'f mut [u8], view: View, vnet: VnetHeader, mtu: usize, marks: bool) -> Result<Self, DropReason> {
        if buf.len() < view.len + PADDING {
            return Err(DropReason::BadOffload);
        }
        let inner = vnet.tunnel.map(|tunnel| inner::named(buf, &view, &vnet, tunnel)).transpose()?;
        let header_len = match inner {
            _ if vnet.gso == Gso::None => view.len,
            None => header_len(&buf[..view.len], &view, &vnet, HEADER_MAX)?,
            Some(Inner { start, view }) => {
                let packet = &buf[start..start + view.len];
                start + header_len(packet, &view, &vnet, HEADER_MAX.saturating_sub(start))?
            }
        };
        let segment = if vnet.gso == Gso::None { 0 } else { usize::from(vnet.gso_size).min(view.len - header_len) };
        if header_len + segment > mtu {
            return Err(DropReason::TooBig);
        }
        let mut cutter = Self {
            buf,
            view,
            vnet,
            inner,
            header_len,
            header: [0; HEADER_MAX],
            next: header_len,
            index: 0,
            mtu,
            bare: marks && is_partial(&view, &vnet),
            saved: [0; PADDING],
            padded: None,
        };
        if vnet.gso == Gso::None {
            cutter.finish_checksum()?;
            if cutter.bare {
                bare::mark(cutter.buf);
            }
        } else {
            cutter.header[..header_len].copy_from_slice(&cutter.buf[..header_len]);
        }
        Ok(cutter)
    }

    /// How many packets this frame stands for.
    pub fn segments(&self) -> usize {
        match self.vnet.gso {
            Gso::None => 1,
            _ => (self.view.len - self.header_len).div_ceil(usize::from(self.vnet.gso_size)).max(1),
        }
    }

    /// The next packet with its padding: a whole IP packet, then zeroes.
    #[allow(clippy::should_implement_trait, reason = "the item borrows from the cutter")]
    pub fn next(&mut self) -> Option<&mut [u8]> {
        if let Some((at, len)) = self.padded.take() {
            self.buf[at..at + len].copy_from_slice(&self.saved[..len]);
        }
        let (start, end) = if self.vnet.gso == Gso::None { self.whole()? } else { self.segment()? };
        let padding = padding(end - start, self.mtu);
        if padding > 0 {
            let tail = &mut self.buf[end..end + padding];
            self.saved[..padding].copy_from_slice(tail);
            tail.fill(0);
            self.padded = Some((end, padding));
        }
        Some(&mut self.buf[start..end + padding])
    }

    fn whole(&mut self) -> Option<(usize, usize)> {
        if self.index > 0 {
            return None;
        }
        self.index = 1;
        Some((0, self.view.len))
    }

    fn segment(&mut self) -> Option<(usize, usize)> {
        if self.next >= self.view.len && self.index > 0 {
            return None;
        }
        let end = (self.next + usize::from(self.vnet.gso_size)).min(self.view.len);
        let start = self.next - self.header_len;
        self.buf[start..self.next].copy_from_slice(&self.header[..self.header_len]);
        let packet = &mut self.buf[start..end];
        let (sent, last) = (self.next - self.header_len, end == self.view.len);
        if let Some(Inner { start, view }) = &self.inner {
            // The inner one first: the outer checksum covers it.
            let flow = &mut packet[*start..];
            patch(flow, view, self.vnet.gso, (sent, self.index, last));
            put_checksum(flow, view);
            patch(packet, &self.view, Gso::Udp, (sent, self.index, last));
        } else {
            patch(packet, &self.view, self.vnet.gso, (sent, self.index, last));
        }
        if self.bare {
            bare::mark(packet);
        } else if self.vnet.tunnel.is_none_or(|tunnel| tunnel.checksum) {
            put_checksum(packet, &self.view);
        }
        self.next = end;
        self.index += 1;
        Some((start, end))
    }

    /// Completes the checksum that the kernel left to the device.
    fn finish_checksum(&mut self) -> Result<(), DropReason> {
        if !self.vnet.needs_csum || self.bare {
            return Ok(());
        }
        let start = usize::from(self.vnet.csum_start);
        let field = start + usize::from(self.vnet.csum_offset);
        if start < self.view.transport || field + 2 > self.view.len {
            return Err(DropReason::BadOffload);
        }
        // The field holds the sum of the pseudo header, so the sum over everything completes it.
        let sum =
            bare::never_zero(Sum::default().add_bytes(&self.buf[start..self.view.len]).finish(), self.view.protocol);
        self.buf[field..field + 2].copy_from_slice(&sum);
        Ok(())
    }
}

/// How much to add to a packet of `len` bytes: up to a multiple of 16, never beyond the MTU.
fn padding(len: usize, mtu: usize) -> usize {
    (len.next_multiple_of(PADDING)).min(mtu.max(len)) - len
}

/// Whether the kernel left out just the checksum that a bare packet leaves out.
fn is_partial(view: &View, vnet: &VnetHeader) -> bool {
    let asked = bare::checksum_field(view.protocol).is_some_and(|(offset, _)| {
        usize::from(vnet.csum_start) == view.transport && usize::from(vnet.csum_offset) == offset
    });
    bare::may_be_bare(view) && (vnet.gso != Gso::None || vnet.needs_csum && asked)
}

/// Of the packet whose flow is cut: IP and transport.
fn header_len(buf: &[u8], view: &View, vnet: &VnetHeader, most: usize) -> Result<usize, DropReason> {
    let transport = match (vnet.gso, view.protocol) {
        (Gso::Tcp, packet::TCP) => usize::from(buf.get(view.transport + 12).ok_or(DropReason::BadOffload)? >> 4) * 4,
        (Gso::Udp, packet::UDP) => 8,
        _ => return Err(DropReason::BadOffload),
    };
    let minimum = if vnet.gso == Gso::Tcp { 20 } else { 8 };
    let len = view.transport + transport;
    if view.fragment || transport < minimum || len > view.len || len > most || vnet.gso_size == 0 {
        return Err(DropReason::BadOffload);
    }
    Ok(len)
}

/// Makes the headers of a superpacket those of its segment `index`, but for the transport checksum.
fn patch(packet: &mut [u8], view: &View, gso: Gso, (sent, index, last): (usize, u32, bool)) {
    patch_ip(packet, view, index);
    match gso {
        Gso::Tcp => patch_tcp(packet, view, sent, index, last),
        _ => patch_udp(packet, view),
    }
}

fn patch_ip(packet: &mut [u8], view: &View, index: u32) {
    let len = packet.len() as u16;
    if view.source.is_ipv6() {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        return;
    }
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(index as u16);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[10..12].fill(0);
    let sum = Sum::default().add_bytes(&packet[..view.transport]).finish();
    packet[10..12].copy_from_slice(&sum);
}

fn patch_tcp(packet: &mut [u8], view: &View, sent: usize, index: u32, last: bool) {
    let tcp = view.transport;
    let sequence = u32::from_be_bytes([packet[tcp + 4], packet[tcp + 5], packet[tcp + 6], packet[tcp + 7]]);
    packet[tcp + 4..tcp + 8].copy_from_slice(&sequence.wrapping_add(sent as u32).to_be_bytes());
    if !last {
        packet[tcp + 13] &= !TCP_FIN_PSH;
    }
    if index > 0 {
        packet[tcp + 13] &= !TCP_CWR;
    }
}

fn patch_udp(packet: &mut [u8], view: &View) {
    let len = (packet.len() - view.transport) as u16;
    packet[view.transport + 4..view.transport + 6].copy_from_slice(&len.to_be_bytes());
}

fn put_checksum(packet: &mut [u8], view: &View) {
    let Some((offset, _)) = bare::checksum_field(view.protocol) else { return };
    let field = view.transport + offset;
    packet[field..field + 2].fill(0);
    let len = (packet.len() - view.transport) as u16;
    let sum = Sum::default()
        .add_pseudo(view.source, view.destination, view.protocol)
        .add_u16(len)
        .add_bytes(&packet[view.transport..])
        .finish();
    packet[field..field + 2].copy_from_slice(&bare::never_zero(sum, view.protocol));
}
