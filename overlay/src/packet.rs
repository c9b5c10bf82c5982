//! Checked views of IP packets: parsed once, in bounds ever after.
//!
//! IPv6 extension headers are walked (RFC 8200, section 4) so that the transport header is found where it is, and a
//! fragment is never mistaken for one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::drops::DropReason;

/// Protocol numbers (IANA).
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// More extension headers than any honest packet has.
const EXTENSIONS_MAX: usize = 8;

/// Where things are in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Length of the packet by its own header; never more than the buffer.
    pub len: usize,
    /// Transport protocol.
    pub protocol: u8,
    /// Where the transport header starts.
    pub transport: usize,
    /// True for every fragment, the first included.
    pub fragment: bool,
}

impl View {
    /// Parses a packet; bytes beyond its own length (padding) are left out of the view.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the headers contradict the buffer or one another.
    pub fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => parse_v4(packet),
            Some(6) => parse_v6(packet),
            _ => None,
        }
        .ok_or(DropReason::Malformed)
    }
}

/// Source and destination alone; for the path that needs no more.
///
/// # Errors
/// As [`View::parse`].
pub fn addresses(packet: &[u8]) -> Result<(IpAddr, IpAddr), DropReason> {
    let found = match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER => v4_at(packet, 12).zip(v4_at(packet, 16)),
        Some(6) if packet.len() >= IPV6_HEADER => v6_at(packet, 8).zip(v6_at(packet, 24)),
        _ => None,
    };
    found.ok_or(DropReason::Malformed)
}

/// Addresses that must never cross the overlay: loopback, link-local, multicast, unspecified, broadcast.
pub fn reserved(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_unspecified() || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.is_unspecified()
                || v6.to_ipv4_mapped().is_some()
        }
    }
}

fn u16_at(packet: &[u8], at: usize) -> Option<usize> {
    let bytes = packet.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
}

fn v4_at(packet: &[u8], at: usize) -> Option<IpAddr> {
    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(bytes).into())
}

fn v6_at(packet: &[u8], at: usize) -> Option<IpAddr> {
    let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

fn parse_v4(packet: &[u8]) -> Option<View> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let len = u16_at(packet, 2)?;
    if header < IPV4_HEADER || len < header || len > packet.len() {
        return None;
    }
    // More fragments, or an offset (RFC 791).
    let fragment = u16_at(packet, 6)? & 0x3fff != 0;
    Some(View {
        source: v4_at(packet, 12)?,
        destination: v4_at(packet, 16)?,
        len,
        protocol: *packet.get(9)?,
        transport: header,
        fragment,
    })
}

fn parse_v6(packet: &[u8]) -> Option<View> {
    let len = IPV6_HEADER + u16_at(packet, 4)?;
    if packet.len() < len {
        return None;
    }
    let mut view = View {
        source: v6_at(packet, 8)?,
        destination: v6_at(packet, 24)?,
        len,
        protocol: *packet.get(6)?,
        transport: IPV6_HEADER,
        fragment: false,
    };
    for _ in 0..EXTENSIONS_MAX {
        let Some(length) = extension_len(packet.get(..len)?, &view)? else {
            return Some(view);
        };
        let fragment_offset = if view.protocol == 44 { u16_at(packet, view.transport + 2)? & 0xfff8 } else { 0 };
        view.fragment |= view.protocol == 44;
        view.protocol = *packet.get(view.transport)?;
        view.transport += length;
        if view.transport > len {
            return None;
        }
        if fragment_offset != 0 {
            return Some(view);
        }
    }
    None
}

/// Length of the extension header that the view stands on; `Some(None)` when it stands on a transport header.
#[allow(clippy::option_option, reason = "the outer None is an error, the inner one an end")]
fn extension_len(packet: &[u8], view: &View) -> Option<Option<usize>> {
    match view.protocol {
        // Hop-by-hop, routing, destination options.
        0 | 43 | 60 => Some(Some((usize::from(*packet.get(view.transport + 1)?) + 1) * 8)),
        // Fragment.
        44 => Some(Some(8)),
        // Authentication header (RFC 4302).
        51 => Some(Some((usize::from(*packet.get(view.transport + 1)?) + 2) * 4)),
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0u8; 40];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = next;
        packet[8] = 0xfd;
        packet[24] = 0xfd;
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn transport_is_found_behind_extension_headers() {
        let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0];
        payload.extend_from_slice(&[UDP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend_from_slice(&[0; 8]);
        let view = View::parse(&v6(0, &payload)).unwrap();
        assert_eq!((view.protocol, view.transport, view.fragment), (UDP, 64, false));
    }

    #[test]
    fn a_later_fragment_has_no_transport_header_to_look_into() {
        let view = View::parse(&v6(44, &[TCP, 0, 0x05, 0x38, 0, 0, 0, 1, 9, 9, 9, 9])).unwrap();
        assert!(view.fragment);
        assert_eq!(view.transport, 48);
    }

    #[test]
    fn an_extension_header_longer_than_the_packet_is_malformed() {
        assert_eq!(View::parse(&v6(0, &[TCP, 200, 0, 0, 0, 0, 0, 0])), Err(DropReason::Malformed));
    }

    #[test]
    fn an_endless_chain_of_extension_headers_is_malformed() {
        let chain = [60u8, 0, 0, 0, 0, 0, 0, 0].repeat(40);
        assert_eq!(View::parse(&v6(0, &chain)), Err(DropReason::Malformed));
    }

    #[test]
    fn an_ipv4_length_beyond_the_buffer_is_malformed() {
        let mut packet = vec![0u8; 20];
        packet[0] = 0x45;
        packet[3] = 21;
        assert_eq!(View::parse(&packet), Err(DropReason::Malformed));
        packet[3] = 20;
        assert!(View::parse(&packet).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused_within_bounds(packet in proptest::collection::vec(any::<u8>(), 0..200), version in 4u8..=6) {
            let mut packet = packet;
            if let Some(first) = packet.first_mut() {
                *first = version << 4 | (*first & 0x0f);
            }
            let _ = addresses(&packet);
            if let Ok(view) = View::parse(&packet) {
                prop_assert!(view.transport <= view.len && view.len <= packet.len());
            }
        }
    }
}
