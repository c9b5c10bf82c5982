//! Segmentation offload in software: cut superpackets on the way out, coalesce segments on the way in.

mod bare;
mod coalesce;
mod cut;
#[cfg(test)]
mod tests;

pub use bare::{may_be_bare, unmark};
pub use coalesce::{Coalescer, PARTS_MAX, Takes, Write};
pub use cut::Cutter;

use crate::drops::DropReason;

/// Length of the vnet header (`struct virtio_net_hdr_v1_hash_tunnel`; what is behind the first ten bytes is for tunnels).
pub const VNET_HDR_LEN: usize = 24;

const NEEDS_CSUM: u8 = 1;
const TUNNEL_CSUM: u8 = 8;
const ECN: u8 = 0x80;
const TUNNEL_IPV4: u8 = 0x20;
const TUNNEL_IPV6: u8 = 0x40;

/// What kind of superpacket a frame is (include/uapi/linux/virtio_net.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// One packet.
    None,
    /// TCP over IPv4 (1) or IPv6 (4).
    Tcp,
    /// UDP datagrams of equal size (5).
    Udp,
}

/// What a superpacket says of the UDP tunnel (VXLAN, Geneve) around the flow that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where the tunnel's UDP header starts.
    pub outer_transport: u16,
    /// Where the IP header of the flow inside starts.
    pub inner_network: u16,
    /// The tunnel's UDP header has a checksum.
    pub checksum: bool,
}

/// The header in front of every frame of the TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum from `csum_start` on is still to be made.
    pub needs_csum: bool,
    /// What kind of superpacket.
    pub gso: Gso,
    /// Payload bytes in each segment.
    pub gso_size: u16,
    /// Where the sum starts.
    pub csum_start: u16,
    /// Where its field is, from `csum_start`.
    pub csum_offset: u16,
    /// The flow that the superpacket is of is inside of a tunnel: the rest is said of the flow.
    pub tunnel: Option<Tunnel>,
}

impl VnetHeader {
    /// Reads the header off a frame.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`] for kinds that were never asked for.
    pub fn parse(frame: &[u8]) -> Result<Self, DropReason> {
        let header: &[u8; VNET_HDR_LEN] =
            frame.get(..VNET_HDR_LEN).and_then(|bytes| bytes.try_into().ok()).ok_or(DropReason::BadOffload)?;
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let tunnel = match header[1] & (TUNNEL_IPV4 | TUNNEL_IPV6) {
            0 => None,
            _ => Some(Tunnel {
                outer_transport: u16::from_le_bytes([header[20], header[21]]),
                inner_network: u16::from_le_bytes([header[22], header[23]]),
                checksum: header[0] & TUNNEL_CSUM != 0,
            }),
        };
        let gso = match header[1] & !(ECN | TUNNEL_IPV4 | TUNNEL_IPV6) {
            0 if tunnel.is_some() => return Err(DropReason::BadOffload),
            0 => Gso::None,
            1 | 4 => Gso::Tcp,
            5 => Gso::Udp,
            _ => return Err(DropReason::BadOffload),
        };
        // hdr_len (bytes 2..4) is not trusted: forwarded packets carry wrong ones.
        Ok(Self {
            needs_csum: header[0] & NEEDS_CSUM != 0,
            gso,
            gso_size: field(4),
            csum_start: field(6),
            csum_offset: field(8),
            tunnel,
        })
    }

    /// The bytes for a superpacket whose headers take `header_len` bytes.
    fn encode(&self, v6: bool, header_len: u16) -> [u8; VNET_HDR_LEN] {
        let kind = match (self.gso, v6) {
            (Gso::None, _) => 0,
            (Gso::Tcp, false) => 1,
            (Gso::Tcp, true) => 4,
            (Gso::Udp, _) => 5,
        };
        let mut bytes = [0u8; VNET_HDR_LEN];
        bytes[0] = if self.needs_csum { NEEDS_CSUM } else { 0 };
        bytes[1] = kind;
        for (at, value) in [(2, header_len), (4, self.gso_size), (6, self.csum_start), (8, self.csum_offset)] {
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}
