//! Control frames on their way: inner IPv6/UDP packets between two agents, told from everything else by their addresses.
//!
//! | bytes | what |
//! |---|---|
//! | 40 | IPv6 header: [`SOURCE`] to [`DESTINATION`], UDP, hop limit 1 |
//! | 8 | UDP header: [`PORT`] to [`PORT`] |
//! | 2 | number of the frame, little endian |
//! | 1 | number of this part |
//! | 1 | parts of the frame |
//! | n | the part |
//!
//! The tunnel authenticates the peer and hides the frame. Nothing with these addresses ever crosses the TUN, whichever
//! way it goes: neither a Pod nor a stock peer can make one that an agent believes, and no Pod sees one.

use std::net::{IpAddr, Ipv6Addr};

use crate::checksum::Sum;
use crate::packet::{UDP, View};

/// Where frames come from: link-local, so that no route leads there. The middle spells the name.
pub const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5741, 0x5252, 0x454e, 1);
/// Where frames go to.
pub const DESTINATION: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5741, 0x5252, 0x454e, 2);
/// Both ports.
pub const PORT: u16 = 51_840;

const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const PART_HEADER: usize = 4;
const HEADERS: usize = IPV6_HEADER + UDP_HEADER + PART_HEADER;
/// Bytes of a frame in one packet: fits the smallest inner MTU, 1280 (RFC 8200, section 5).
const PART: usize = 1200;
/// Most parts of a frame.
const PARTS_MAX: usize = 4;
/// The longest packet that carries a part.
pub const PACKET_MAX: usize = HEADERS + PART;

/// What a packet is, as far as frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing of ours.
    Other,
    /// A part of a frame.
    Frame,
    /// Almost a frame: our addresses, but anything else than the one 5-tuple. Never to be let through.
    Reserved,
}

/// Looks at a packet that came out of a tunnel, or out of the TUN.
pub fn kind(packet: &[u8], view: &View) -> Kind {
    let ours = |address: IpAddr| address == IpAddr::V6(SOURCE) || address == IpAddr::V6(DESTINATION);
    if !ours(view.source) && !ours(view.destination) {
        return Kind::Other;
    }
    let ports = [PORT.to_be_bytes(), PORT.to_be_bytes()].concat();
    let exact = view.source == IpAddr::V6(SOURCE)
        && view.destination == IpAddr::V6(DESTINATION)
        && view.protocol == UDP
        && view.transport == IPV6_HEADER
        && packet.get(IPV6_HEADER..IPV6_HEADER + 4) == Some(&ports)
        && view.len >= HEADERS;
    if exact { Kind::Frame } else { Kind::Reserved }
}

/// Writes part `part` of a frame as a packet; gives the packet's length, `None` behind the last part.
pub fn write(number: u16, frame: &[u8], part: usize, out: &mut [u8; PACKET_MAX]) -> Option<usize> {
    let parts = frame.len().div_ceil(PART);
    let body = frame.chunks(PART).nth(part).filter(|_| parts <= PARTS_MAX)?;
    let len = HEADERS + body.len();
    let udp_len = (len - IPV6_HEADER) as u16;
    let packet = &mut out[..len];
    packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    packet[4..6].copy_from_slice(&udp_len.to_be_bytes());
    packet[6..8].copy_from_slice(&[UDP, 1]);
    packet[8..24].copy_from_slice(&SOURCE.octets());
    packet[24..40].copy_from_slice(&DESTINATION.octets());
    packet[40..42].copy_from_slice(&PORT.to_be_bytes());
    packet[42..44].copy_from_slice(&PORT.to_be_bytes());
    packet[44..46].copy_from_slice(&udp_len.to_be_bytes());
    packet[46..48].fill(0);
    packet[48..50].copy_from_slice(&number.to_le_bytes());
    packet[50..52].copy_from_slice(&[part as u8, parts as u8]);
    packet[HEADERS..].copy_from_slice(body);
    let sum = Sum::default().add_pseudo(SOURCE.into(), DESTINATION.into(), UDP).add_u16(udp_len);
    let sum = sum.add_bytes(&packet[IPV6_HEADER..]).finish();
    packet[46..48].copy_from_slice(&sum);
    Some(len)
}

/// The frame in a packet of [`Kind::Frame`] that holds all of it.
pub fn whole(packet: &[u8]) -> Option<&[u8]> {
    let (_, [0, 1]) = packet.get(..HEADERS)?.split_last_chunk()? else { return None };
    packet.get(HEADERS..).filter(|frame| !frame.is_empty() && frame.len() <= PART)
}

/// What a packet of [`Kind::Frame`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'p> {
    number: u16,
    part: usize,
    parts: usize,
    body: &'p [u8],
}

impl<'p> Part<'p> {
    /// Reads it; `None` when it is no part as [`write`] makes them.
    pub fn parse(packet: &'p [u8]) -> Option<Self> {
        let (header, body) = packet.get(HEADERS - PART_HEADER..)?.split_first_chunk::<PART_HEADER>()?;
        let [n0, n1, part, parts] = header.map(usize::from);
        let number = (n1 << 8 | n0) as u16;
        let fits = part < parts && parts <= PARTS_MAX && !body.is_empty() && body.len() <= PART;
        fits.then_some(Self { number, part, parts, body })
    }
}

/// Puts the parts of one peer's frames together: one frame at a time, the newest.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    number: u16,
    parts: [Vec<u8>; PARTS_MAX],
    expected: usize,
}

impl Assembly {
    /// Takes a packet of [`Kind::Frame`]; gives the frame when it is whole.
    pub fn take(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let Part { number, part, parts, body } = Part::parse(packet)?;
        if (number, parts) != (self.number, self.expected) {
            *self = Self { number, expected: parts, ..Self::default() };
        }
        self.parts[part] = body.to_vec();
        if self.parts[..parts].iter().any(Vec::is_empty) {
            return None;
        }
        Some(std::mem::take(self).parts.concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets(number: u16, frame: &[u8]) -> Vec<Vec<u8>> {
        let mut out = [0; PACKET_MAX];
        (0..).map_while(|part| write(number, frame, part, &mut out).map(|len| out[..len].to_vec())).collect()
    }

    proptest! {
        #[test]
        fn frames_of_any_length_arrive_in_whatever_order_their_parts_come(
            frame in proptest::collection::vec(any::<u8>(), 1..PARTS_MAX * PART), backwards: bool) {
            let mut packets = packets(7, &frame);
            if backwards {
                packets.reverse();
            }
            let mut assembly = Assembly::default();
            let mut whole = None;
            for packet in &packets {
                prop_assert!(whole.is_none());
                let view = View::parse(packet).unwrap();
                prop_assert_eq!(kind(packet, &view), Kind::Frame);
                let sum = Sum::default().add_pseudo(view.source, view.destination, UDP);
                let sum = sum.add_u16((packet.len() - IPV6_HEADER) as u16).add_bytes(&packet[IPV6_HEADER..]);
                prop_assert!(sum.is_valid());
                whole = assembly.take(packet);
            }
            prop_assert_eq!(whole, Some(frame));
        }

        #[test]
        fn any_bytes_are_put_together_or_not(parts in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..1400), 0..10)) {
            let mut assembly = Assembly::default();
            for part in parts {
                let _ = assembly.take(&part);
            }
        }
    }

    #[test]
    fn a_short_frame_is_whole_in_one_packet() {
        assert_eq!(whole(&packets(1, &[1; 10])[0]), Some(&[1; 10][..]));
        assert_eq!(whole(&packets(1, &[1; 2000])[0]), None);
        assert_eq!(whole(&packets(1, &[1; 10])[0][..HEADERS]), None);
    }

    #[test]
    fn what_is_no_part_is_told_from_a_part_whose_frame_is_not_whole() {
        let good = packets(1, &[1; 2000]).remove(0);
        assert_eq!(Part::parse(&good).map(|part| (part.number, part.part, part.parts)), Some((1, 0, 2)));
        let changed = |part, parts| {
            let mut packet = good.clone();
            packet[HEADERS - 2..HEADERS].copy_from_slice(&[part, parts]);
            packet
        };
        for packet in [changed(0, 0), changed(2, 2), changed(0, 5), good[..HEADERS].into(), good[..20].into()] {
            assert_eq!(Part::parse(&packet), None, "{packet:?}");
        }
        assert_eq!(Part::parse(&[good, vec![1]].concat()), None, "longer than a part");
    }

    #[test]
    fn a_newer_frame_takes_the_place_of_one_that_never_became_whole() {
        let (old, new) = (packets(1, &[1; 2000]), packets(2, &[2; 2000]));
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(&old[0]), None);
        assert_eq!(assembly.take(&new[0]), None);
        assert_eq!(assembly.take(&old[1]), None);
        assert_eq!(assembly.take(&new[1]), None, "the old part had taken its place");
        assert_eq!(assembly.take(&new[0]), Some(vec![2; 2000]));
    }

    #[test]
    fn nothing_near_the_one_5_tuple_is_a_frame() {
        let good = packets(1, &[1; 10]).remove(0);
        let kind_of = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = good.clone();
            change(&mut packet);
            View::parse(&packet).map(|view| kind(&packet, &view))
        };
        assert_eq!(kind_of(&|_| ()), Ok(Kind::Frame));
        for (at, what) in
            [(41, "source port"), (43, "destination port"), (6, "protocol"), (23, "source"), (39, "destination")]
        {
            assert_ne!(kind_of(&|packet| packet[at] ^= 0x40), Ok(Kind::Frame), "another {what}");
        }
        assert_eq!(kind_of(&|packet| packet[41] ^= 1), Ok(Kind::Reserved));
        let swapped = kind_of(&|packet| {
            packet[8..24].copy_from_slice(&DESTINATION.octets());
            packet[24..40].copy_from_slice(&SOURCE.octets());
        });
        assert_eq!(swapped, Ok(Kind::Reserved));
    }

    #[test]
    fn a_frame_that_is_too_long_is_not_sent() {
        assert!(packets(1, &[0; PARTS_MAX * PART + 1]).is_empty());
    }
}
