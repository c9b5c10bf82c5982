//! Where the headers of a TCP or UDP packet lie. Packets with IPv4 options, fragments and IPv6 extension headers have
//! none: they pass one by one.

use super::{TCP, UDP, checksum};

/// Longest IPv6 + TCP header.
pub(super) const HEADERS_MAX: usize = 40 + 60;

/// A packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// IP header, bytes.
    pub(super) ip: usize,
    /// IP and transport header, bytes.
    pub(super) headers: usize,
    /// [`TCP`] or [`UDP`].
    pub(super) protocol: u8,
    /// IPv6.
    pub(super) v6: bool,
}

impl Layout {
    /// Of a whole packet.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (ip, protocol, v6) = match packet.first()? {
            0x45 if packet.len() >= 20 && packet[6] & 0x3f == 0 && packet[7] == 0 => (20, packet[9], false),
            first if first >> 4 == 6 && packet.len() >= 40 => (40, packet[6], true),
            _ => return None,
        };
        let transport = match protocol {
            TCP => usize::from(packet.get(ip + 12)? >> 4) * 4,
            UDP => 8,
            _ => return None,
        };
        let least = if protocol == TCP { 20 } else { 8 };
        let headers = ip + transport;
        (transport >= least && packet.len() >= headers).then_some(Self { ip, headers, protocol, v6 })
    }

    /// Where the checksum lies in the transport header.
    pub(super) fn checksum_offset(self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    /// Sum of the pseudo header (RFC 9293, RFC 8200) for `len` bytes of transport header and payload.
    pub(super) fn pseudo(self, header: &[u8], len: usize) -> u64 {
        let addresses = if self.v6 { &header[8..40] } else { &header[12..20] };
        checksum::sum(addresses) + checksum::word(u16::from(self.protocol)) + checksum::word(len as u16)
    }

    /// Writes the lengths of a packet with `payload` bytes, and IPv4's header checksum.
    pub(super) fn set_length(self, header: &mut [u8], payload: usize) {
        let total = self.headers + payload;
        if self.v6 {
            header[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        } else {
            header[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            header[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(&header[..20]));
            header[10..12].copy_from_slice(&sum);
        }
        if self.protocol == UDP {
            let at = self.ip + 4;
            header[at..at + 2].copy_from_slice(&((total - self.ip) as u16).to_be_bytes());
        }
    }
}
