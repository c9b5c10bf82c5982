//! Bare packets: their transport checksum is left out by one end and made by the other.
//!
//! What travels in an association is authenticated, which says more than a checksum does. So where the kernel has left
//! the checksum to the device ("partial", as between a virtual machine and its host), neither end makes it in software:
//! the receiving kernel takes the packet as partial too. The mark is the top bit of the first byte, which no IP version
//! uses; it is set before sealing and taken off after opening, so that it never shows on any device.

use crate::packet::{self, View};

const MARK: u8 = 0x80;

/// Where the checksum of a transport header is, and how long that header is at least.
pub(super) fn checksum_field(protocol: u8) -> Option<(usize, usize)> {
    match protocol {
        packet::TCP => Some((16, 20)),
        packet::UDP => Some((6, 8)),
        _ => None,
    }
}

/// Whether a packet may be bare: whole TCP or UDP right behind a plain IP header, so that its addresses are those of
/// the pseudo header.
pub fn may_be_bare(view: &View) -> bool {
    let plain = if view.source.is_ipv4() { 20 } else { 40 };
    let fits = |(_, header)| view.len >= view.transport + header;
    view.transport == plain && !view.fragment && checksum_field(view.protocol).is_some_and(fits)
}

/// Marks a packet.
pub(super) fn mark(packet: &mut [u8]) {
    if let Some(first) = packet.first_mut() {
        *first |= MARK;
    }
}

/// Takes the mark off; true when there was one.
pub fn unmark(packet: &mut [u8]) -> bool {
    let Some(first) = packet.first_mut() else { return false };
    let marked = *first & MARK != 0;
    *first &= !MARK;
    marked
}

/// A UDP checksum of zero means "none" (RFC 768).
pub(super) fn never_zero(sum: [u8; 2], protocol: u8) -> [u8; 2] {
    if protocol == packet::UDP && sum == [0, 0] { [0xff, 0xff] } else { sum }
}
