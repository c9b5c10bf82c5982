//! Flows of packets as a sender makes them.

use warren_overlay::offload::VNET_HDR_LEN;

use super::naive;
use crate::fuzz::Feed;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A flow's headers.
pub(super) struct Flow {
    v6: bool,
    tcp: bool,
    /// Bytes of TCP options.
    options: usize,
    sequence: u32,
    pub(super) flags: u8,
    port: u8,
}

/// Bytes that differ from one segment to the next.
pub(super) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8)) as u8).collect()
}

impl Flow {
    pub(super) fn read(feed: &mut Feed<'_>) -> Self {
        let shape = feed.byte();
        Self {
            v6: shape & 1 != 0,
            tcp: shape & 2 != 0,
            options: usize::from(shape >> 4) % 11 * 4,
            sequence: u32::from_be_bytes([feed.byte(), 0xff, 0xff, feed.byte()]),
            flags: if shape & 4 != 0 { feed.byte() } else { 0x10 | (shape & 8) },
            port: shape >> 7,
        }
    }

    /// Nothing that asks for a packet of its own: no TCP flag but ACK, FIN and PSH, of which the last segment has two.
    pub(super) fn is_plain(&self) -> bool {
        !self.tcp || self.flags & !0x09 == 0x10
    }

    fn transport(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    pub(super) fn header_len(&self) -> usize {
        self.transport() + if self.tcp { 20 + self.options } else { 8 }
    }

    /// The vnet header in front of a superpacket of this flow.
    pub(super) fn vnet(&self, size: u16) -> [u8; VNET_HDR_LEN] {
        let kind = match (self.tcp, self.v6) {
            (true, false) => 1,
            (true, true) => 4,
            (false, _) => 5,
        };
        let mut vnet = [0; VNET_HDR_LEN];
        vnet[..2].copy_from_slice(&[1, kind]);
        let offset = if self.tcp { 16 } else { 6 };
        for (at, value) in [(2, self.header_len() as u16), (4, size), (6, self.transport() as u16), (8, offset)] {
            vnet[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        vnet
    }

    /// One whole packet with right checksums.
    pub(super) fn packet(&self, payload: &[u8], offset: usize, id: u16, flags: u8) -> Vec<u8> {
        let (t, len) = (self.transport(), self.header_len() + payload.len());
        let mut packet = vec![0; self.header_len()];
        let protocol = if self.tcp { TCP } else { UDP };
        if self.v6 {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&[protocol, 64]);
            (packet[8], packet[23], packet[24], packet[39]) = (0xfd, 1, 0xfd, 2);
        } else {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[6..10].copy_from_slice(&[0x40, 0, 64, protocol]);
            packet[12..20].copy_from_slice(&[10, 1, 0, 2, 10, 2, 0, 2]);
        }
        packet[t..t + 4].copy_from_slice(&[0x9c, self.port, 0x14, 0x51]);
        if self.tcp {
            packet[t + 4..t + 8].copy_from_slice(&self.sequence.wrapping_add(offset as u32).to_be_bytes());
            packet[t + 8..t + 12].copy_from_slice(&7u32.to_be_bytes());
            packet[t + 12..t + 14].copy_from_slice(&[(((20 + self.options) / 4) as u8) << 4, flags]);
            packet[t + 14..t + 16].copy_from_slice(&512u16.to_be_bytes());
            packet[t + 20..].fill(1);
        } else {
            packet[t + 4..t + 6].copy_from_slice(&((len - t) as u16).to_be_bytes());
        }
        packet.extend_from_slice(payload);
        naive::put_checksums(&mut packet, t, protocol);
        packet
    }

    /// What the network would carry of this payload.
    pub(super) fn segments(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let last = payload.len().div_ceil(size).max(1) - 1;
        let flags = |at: usize| if at == last { self.flags } else { self.flags & !0x09 };
        let segment = |(at, chunk): (usize, &[u8])| self.packet(chunk, at * size, 100 + at as u16, flags(at));
        payload.chunks(size).enumerate().map(segment).collect()
    }
}
