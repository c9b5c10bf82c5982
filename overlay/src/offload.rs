//! Segmentation offload in software: cut superpackets on the way out, coalesce segments on the way in.

mod bare;
mod coalesce;
mod cut;
mod inner;
mod run;
#[cfg(test)]
mod tests;

pub use bare::{may_be_bare, unmark};
pub use coalesce::{Coalescer, Opened, PARTS_MAX, Takes, Write};
pub use cut::Cutter;

use crate::drops::DropReason;

/// Length of the vnet header (`struct virtio_net_hdr_v1_hash_tunnel`; what is behind the first ten bytes is for tunnels).
pub const VNET_HDR_LEN: usize = 24;

const NEEDS_CSUM: u8 = 1;
const TUNNEL_CSUM: u8 = 8;
const ECN: u8 = 0x80;
const TUNNEL_IPV4: u8 = 0x20;
const TUNNEL_IPV6: u8 = 0x40;
/// The kernel wants the tunnel's UDP header so far behind the start as it were with an Ethernet header in front, which a TUN
/// has not (`virtio_net_hdr_tnl_to_skb`, include/linux/virtio_net.h, Linux 6.17 and 6.18). It believes what it is told only
/// until the packet enters IP, which looks for itself; so that much is added where a superpacket is written.
const ETHERNET_HEADER: u16 = 14;

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

    fn is_tunnel(header: &[u8; VNET_HDR_LEN]) -> bool {
        header[1] & (TUNNEL_IPV4 | TUNNEL_IPV6) != 0
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

    /// The bytes for a superpacket of a flow inside of a tunnel, as the kernel takes it; those that it gives say the same
    /// but for 14 bytes.
    fn encode_around(&self, v6: bool, outer_v6: bool, header_len: u16) -> [u8; VNET_HDR_LEN] {
        let mut bytes = self.encode(v6, header_len);
        let Some(tunnel) = self.tunnel else { return bytes };
        bytes[0] |= if tunnel.checksum { TUNNEL_CSUM } else { 0 };
        bytes[1] |= if outer_v6 { TUNNEL_IPV6 } else { TUNNEL_IPV4 };
        bytes[20..22].copy_from_slice(&(tunnel.outer_transport + ETHERNET_HEADER).to_le_bytes());
        bytes[22..24].copy_from_slice(&tunnel.inner_network.to_le_bytes());
        bytes
    }
}

/// The smallest superpackets of TCP inside of VXLAN, of IPv4 and of IPv6, to ask a kernel whether it takes such ones. Of the
/// packets only the version of IP is filled in: nobody would take them for something.
pub fn samples_of_tunnels() -> [Vec<u8>; 2] {
    [false, true].map(|v6| {
        let outer_transport = if v6 { 40 } else { 20 };
        let inner_network = outer_transport + 8 + 8 + 14;
        let tunnel = Some(Tunnel { outer_transport, inner_network, checksum: true });
        let csum_start = inner_network + 20;
        let header = VnetHeader { needs_csum: true, gso: Gso::Tcp, gso_size: 1, csum_start, csum_offset: 16, tunnel };
        let mut frame = header.encode_around(false, v6, csum_start + 20).to_vec();
        frame.resize(VNET_HDR_LEN + usize::from(csum_start) + 20 + 2, 0);
        frame[VNET_HDR_LEN] = if v6 { 0x60 } else { 0x45 };
        frame
    })
}
