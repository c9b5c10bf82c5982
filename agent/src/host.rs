//! The host: link, addresses, routes, rules, guard. Reads back what is, applies the difference, writes nothing when nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use warren_overlay::mesh::Enforcement;

use crate::config::Mode;

/// Everything the host should be, computed by the control plane from the mesh and the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The TUN device (opened by the data path before).
    pub device: String,
    /// Its MTU.
    pub mtu: u16,
    /// This node's own underlay addresses: put on the device as /32 and /128 without a prefix route, and used as route source.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Addresses of its own for a host without Pods.
    pub overlay_addresses: BTreeSet<IpAddr>,
    /// This node's Pod CIDRs.
    pub local_cidrs: BTreeSet<IpNet>,
    /// Peers' prefixes that go into the tunnel, each with the MTU of its path.
    pub remote_cidrs: BTreeMap<IpNet, u16>,
    /// Peers' node addresses, each with the MTU of its path.
    pub peer_addresses: BTreeMap<IpAddr, u16>,
    /// The cluster network: prefixes that must never leave in clear.
    pub networks: BTreeSet<IpNet>,
    /// Tunnel or nothing, or a roll-out.
    pub enforcement: Enforcement,
    /// Which traffic is carried.
    pub mode: Mode,
    /// Our own UDP port (never into the tunnel, always through the guard).
    pub port: u16,
    /// The underlay devices the guard watches.
    pub underlay_devices: BTreeSet<String>,
    /// First rule preference.
    pub rule_priority: u32,
    /// Routing table.
    pub table: u32,
    /// The one mark bit.
    pub mark: u32,
    /// Ports left in clear between nodes in mode `nodes`.
    pub exempt_ports: Vec<RangeInclusive<u16>>,
}
