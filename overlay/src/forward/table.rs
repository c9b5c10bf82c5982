//! The forwarding table: an immutable snapshot that the workers read.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::drops::DropReason;
use crate::packet;
use crate::routes::Routes;

/// A peer's number in this node; also its tunnel's number.
pub type Slot = u32;

/// Which peer owns which prefix, and which addresses are this node's.
#[derive(Clone, Debug, Default)]
pub struct Table {
    remote: Routes<Slot>,
    local: Routes<()>,
}

impl Table {
    /// `remote`: the peers' prefixes and node addresses. `local`: this node's own.
    pub fn new(remote: impl IntoIterator<Item = (IpNet, Slot)>, local: impl IntoIterator<Item = IpNet>) -> Self {
        Self { remote: Routes::new(remote), local: Routes::new(local.into_iter().map(|prefix| (prefix, ()))) }
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
