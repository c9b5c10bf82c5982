//! The packet inside of a UDP tunnel (VXLAN, Geneve).

use super::{Tunnel, VnetHeader};
use crate::drops::DropReason;
use crate::packet::{self, View};

/// VXLAN's own header and the Ethernet header behind it (RFC 7348, section 5).
const VXLAN_AND_ETHERNET: usize = 8 + 14;
/// Of the flags only that there is a network identifier: no group policy, no other protocol than Ethernet.
const VXLAN_PLAIN: [u8; 4] = [0x08, 0, 0, 0];

/// The packet inside of a tunnel; it fills the rest of the one around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    /// Where it starts in the outer packet.
    pub(super) start: usize,
    pub(super) view: View,
}

impl Inner {
    fn fills(buf: &[u8], start: usize, outer: &View) -> Option<Self> {
        let view = View::parse(buf.get(start..outer.len)?).ok()?;
        (start + view.len == outer.len).then_some(Self { start, view })
    }
}

/// Where the kernel says that it is.
///
/// # Errors
/// [`DropReason::BadOffload`] when the packet contradicts.
pub(super) fn named(buf: &[u8], view: &View, vnet: &VnetHeader, tunnel: Tunnel) -> Result<Inner, DropReason> {
    let start = usize::from(tunnel.inner_network);
    let outer = view.protocol == packet::UDP && !view.fragment && usize::from(tunnel.outer_transport) == view.transport;
    if !outer || start < view.transport + 8 {
        return Err(DropReason::BadOffload);
    }
    let inner = Inner::fills(buf, start, view).ok_or(DropReason::BadOffload)?;
    if usize::from(vnet.csum_start) != start + inner.view.transport {
        return Err(DropReason::BadOffload);
    }
    Ok(inner)
}

/// Of a datagram of VXLAN: an IP packet in an Ethernet frame without tags.
pub(super) fn of_vxlan(packet: &[u8], view: &View) -> Option<Inner> {
    if view.protocol != packet::UDP || view.fragment {
        return None;
    }
    let start = view.transport + 8 + VXLAN_AND_ETHERNET;
    let header = packet.get(view.transport + 4..start)?;
    let len = usize::from(u16::from_be_bytes([header[0], header[1]]));
    let ether_type = [header[header.len() - 2], header[header.len() - 1]];
    let inner = Inner::fills(packet, start, view)?;
    let version = if inner.view.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    (view.transport + len == view.len && header[4..8] == VXLAN_PLAIN && ether_type == version).then_some(inner)
}
