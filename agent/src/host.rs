//! The host: link, addresses, routes, rules, guard. Reads back what is, applies the difference, writes nothing when
//! nothing changed.
//!
//! Never touches a route, rule, address or table that is not Warren's own, and never runs a shell.

mod apply;
mod netlink;
mod plan;
mod route;
mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use warren_overlay::mesh::Enforcement;

use crate::config::Mode;
use netlink::Netlink;

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
    /// Prefixes of peers with whom a tunnel has stood: never in clear again, also in `permissive`.
    pub proven_cidrs: BTreeSet<IpNet>,
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

/// What bringing the host in line took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Things written: a guard, a device, addresses, routes, rules. 0 when all was as it should be.
    pub writes: u32,
}

/// Why the host could not be read or brought in line.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No way to the kernel at all.
    #[error("{what} cannot be opened: {error}")]
    Open {
        /// What.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("the kernel refused to {doing}: {detail}; is CAP_NET_ADMIN there?")]
    Netlink {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        detail: String,
    },
    /// The device is not there, or is not ours.
    #[error("{0}")]
    Device(String),
    /// What is wanted cannot work.
    #[error("{0}")]
    Refused(String),
}

/// The host's network, as far as it is ours. One exists; the control plane owns it.
pub struct Host {
    netlink: Netlink,
}

impl Host {
    /// Opens the ways to the kernel. Needs a running tokio runtime.
    ///
    /// # Errors
    /// When a netlink socket cannot be opened.
    pub fn open(_state_dir: &std::path::Path) -> Result<Self, HostError> {
        Ok(Self { netlink: Netlink::open()? })
    }

    /// Brings the host in line: guard, link, addresses, routes, rules, in this order, and only what differs.
    ///
    /// # Errors
    /// When the kernel refuses, when the device is missing, or when `desired` would cut off the node itself.
    pub async fn apply(&mut self, desired: &Desired) -> Result<Applied, HostError> {
        let writes = apply::routing(&self.netlink, desired).await?;
        Ok(Applied { writes })
    }
}
