//! The forwarding table: an immutable snapshot that the workers read.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::drops::DropReason;
use crate::packet::{self, View};
use crate::routes::Routes;

/// A peer's number in this node; also its tunnel's number.
pub type Slot = u32;

/// Which peer owns which prefix, and which addresses are this node's.
#[derive(Clone, Debug, Default)]
pub struct Table {
    remote: Routes<Slot>,
    local: Routes<()>,
    vteps: BTreeSet<SocketAddr>,
}

impl Table {
    /// `remote`: the peers' prefixes and node addresses. `local`: this node's own.
    pub fn new(remote: impl IntoIterator<Item = (IpNet, Slot)>, local: impl IntoIterator<Item = IpNet>) -> Self {
        let local = Routes::new(local.into_iter().map(|prefix| (prefix, ())));
        Self { remote: Routes::new(remote), local, vteps: BTreeSet::new() }
    }

    /// The same, on a host whose kernel takes VXLAN apart at these addresses, its own, and UDP ports.
    #[must_use]
    pub fn with_vteps(self, vteps: BTreeSet<SocketAddr>) -> Self {
        Self { vteps, ..self }
    }

    /// Whether this packet goes where this host takes VXLAN apart. That it is VXLAN is not said.
    pub fn to_vtep(&self, packet: &[u8], view: &View) -> bool {
        let is_udp = view.protocol == packet::UDP && !view.fragment && !self.vteps.is_empty();
        let port = packet.get(view.transport + 2..view.transport + 4).filter(|_| is_udp);
        port.map(|bytes| SocketAddr::new(view.destination, u16::from_be_bytes([bytes[0], bytes[1]])))
            .is_some_and(|to| self.vteps.contains(&to))
    }

    /// Who gets a packet from `source` to `destination` that came out of the TUN.
    ///
    /// # Errors
    /// Reserved addresses, no owner, or a source that the peer would refuse.
    pub fn egress(&self, source: IpAddr, destination: IpAddr) -> Result<Slot, DropReason> {
        if packet::reserved(source) || packet::reserved(destination) {
            return Err(DropReason::ReservedAddress);
        }
        let slot = self.remote.lookup(destination).ok_or(DropReason::NoRoute)?;
        self.local.lookup(source).ok_or(DropReason::SourceNotOurs)?;
        Ok(*slot)
    }

    /// Whether the peer in `slot` may send a packet from `source` to `destination`: the source must route back to it.
    ///
    /// # Errors
    /// Reserved addresses, a source of somebody else, or a destination that is not here.
    pub fn ingress(&self, slot: Slot, source: IpAddr, destination: IpAddr) -> Result<(), DropReason> {
        if packet::reserved(source) || packet::reserved(destination) {
            return Err(DropReason::ReservedAddress);
        }
        if self.remote.lookup(source) != Some(&slot) {
            return Err(DropReason::SourceSpoofed);
        }
        self.local.lookup(destination).copied().ok_or(DropReason::DestinationNotOurs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_goes_to_a_vxlan_device_of_this_host_itself_goes_to_a_vtep() {
        let own = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let table = Table::default().with_vteps([own(8472), own(4789)].into());
        let to = |to: [u8; 4], protocol: u8, port: u16, fragment: u8| {
            let mut packet = [0u8; 28];
            (packet[0], packet[3], packet[6], packet[9]) = (0x45, 28, fragment, protocol);
            packet[16..20].copy_from_slice(&to);
            packet[22..24].copy_from_slice(&port.to_be_bytes());
            table.to_vtep(&packet, &View::parse(&packet).unwrap())
        };
        assert!(to([192, 0, 2, 1], packet::UDP, 8472, 0) && to([192, 0, 2, 1], packet::UDP, 4789, 0));
        assert!(!to([10, 42, 1, 2], packet::UDP, 8472, 0), "a Pod's");
        assert!(!to([192, 0, 2, 1], packet::UDP, 8473, 0), "another port");
        assert!(!to([192, 0, 2, 1], packet::TCP, 8472, 0), "another protocol");
        assert!(!to([192, 0, 2, 1], packet::UDP, 8472, 0x20), "a fragment");
    }
}
