//! The host: link, addresses, routes, rules, guard. Reads back what is, applies the difference, writes nothing when
//! nothing changed.
//!
//! Never touches a route, rule, address or table that is not Warren's own, and never runs a shell.

mod apply;
mod check;
mod cleanup;
mod discover;
pub mod forward;
pub mod guard;
mod monitor;
mod netlink;
mod plan;
mod route;
mod rule;
mod survey;
pub(crate) mod sysctl;
mod used;
mod vxlan;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use warren_overlay::mesh::Enforcement;

use tokio::sync::mpsc;

use crate::config::Mode;
use crate::status::GuardStatus;
pub use discover::{Underlay, UnderlayDevice};
use guard::{Guard, InClear, Touched};
use monitor::{Ears, Repairs};
use netlink::Netlink;
pub use survey::{Survey, survey};
use sysctl::Sysctls;
pub use vxlan::VxlanSocket;

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
    /// Node addresses of such peers: the same in mode `nodes`.
    pub proven_nodes: BTreeSet<IpAddr>,
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
    /// `nft` is missing or refused.
    #[error("the guard cannot be loaded: {0}")]
    Nft(String),
    /// What must survive a reboot cannot be written.
    #[error("{} cannot be written: {error}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
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
    guard: Guard,
    in_clear: InClear,
    sysctls: Sysctls,
    repairs: Arc<Repairs>,
    heard: Arc<Ears>,
    last: Option<Desired>,
    state_dir: PathBuf,
}

impl Host {
    /// Opens the ways to the kernel. Needs a running tokio runtime. What must survive a reboot is kept in `state_dir`.
    ///
    /// # Errors
    /// When a netlink socket cannot be opened.
    pub fn open(state_dir: &Path) -> Result<Self, HostError> {
        Ok(Self {
            netlink: Netlink::open()?,
            guard: Guard::new(state_dir),
            in_clear: InClear::default(),
            sysctls: Sysctls::open(state_dir),
            repairs: Arc::new(Repairs::new()),
            heard: Arc::new(Ears::default()),
            last: None,
            state_dir: state_dir.to_owned(),
        })
    }

    /// Loads the guard, with or without a device. Comes before anything that could carry a packet.
    ///
    /// # Errors
    /// When `nft` is missing or refuses, or when `desired` would cut off the node itself.
    pub fn guard(&mut self, desired: &Desired) -> Result<Applied, HostError> {
        validate(desired)?;
        let (nftables, traffic_control) = (self.heard.nftables.touched(), self.heard.traffic_control.touched());
        let touched = Touched { nftables, traffic_control };
        let applied = self.guard.apply(desired, touched);
        if applied.is_err() {
            self.distrust();
        }
        Ok(Applied { writes: applied? })
    }

    /// Brings the host in line: guard, link, addresses, routes, rules, in this order, and only what differs.
    ///
    /// # Errors
    /// When the kernel refuses, when the device is missing, or when `desired` would cut off the node itself.
    pub async fn apply(&mut self, desired: &Desired) -> Result<Applied, HostError> {
        let same = self.last.as_ref() == Some(desired);
        let writes = self.guard(desired)?.writes + self.route(desired).await?.writes;
        if same && writes > 0 {
            self.repairs.count();
        }
        Ok(Applied { writes })
    }

    /// Everything but the guard, which must stand already.
    ///
    /// # Errors
    /// When the kernel refuses, or when the device is missing.
    pub async fn route(&mut self, desired: &Desired) -> Result<Applied, HostError> {
        let writes = self.sysctls.apply(desired) + apply::routing(&self.netlink, desired).await?;
        if self.last.as_ref() != Some(desired) {
            self.last = Some(desired.clone());
        }
        Ok(Applied { writes })
    }

    /// What keeps our rules and routes from winning, one sentence each: what, and what to do. Empty when all is well.
    pub async fn check(&self, desired: &Desired) -> Vec<String> {
        let mut problems = match check::check(&self.netlink, desired).await {
            Ok(problems) => problems,
            Err(error) => vec![error.to_string()],
        };
        if !desired.local_cidrs.is_empty() {
            problems.extend(forward::refusing(&desired.device, &desired.networks));
        }
        problems.extend(self.sysctls.problems.iter().cloned());
        problems.extend(self.repairs.fight());
        problems
    }

    /// A message whenever somebody changed links, addresses, routes, rules or the guard; then [`Host::apply`] again.
    /// Slows down while somebody fights us.
    pub fn monitor(&self) -> mpsc::Receiver<()> {
        monitor::monitor(Arc::clone(&self.repairs), Arc::clone(&self.heard))
    }

    /// The next [`Host::apply`] looks at the guard whatever was heard.
    pub fn distrust(&self) {
        self.heard.nftables.touch();
        self.heard.traffic_control.touch();
    }

    /// Where the guard does not see what traffic control redirects, one sentence each: what, where, what to do. The rest
    /// of the guard stands.
    pub fn gaps(&self) -> &[String] {
        self.guard.gaps()
    }

    /// How often [`Host::apply`] found something undone although nothing new was asked for.
    pub fn repairs(&self) -> u64 {
        self.repairs.total()
    }

    /// What the guard counted.
    pub async fn guard_counters(&self) -> GuardStatus {
        guard::counters()
    }

    /// Counts from now on what passes in clear on these devices from and to these prefixes, and what of no other. Lets
    /// nothing pass and holds nothing up; the guard does not depend on it.
    pub fn count_in_clear(&mut self, devices: &BTreeSet<String>, prefixes: BTreeSet<IpNet>) {
        self.in_clear.apply(devices, prefixes);
    }

    /// What was counted so: packets received and sent, by prefix.
    pub fn in_clear(&mut self) -> BTreeMap<IpNet, (u64, u64)> {
        self.in_clear.counted()
    }

    /// The named underlay devices, or those that look like it: a default route or a global address.
    ///
    /// # Errors
    /// When a named device does not exist, or the kernel cannot be asked.
    pub async fn discover(&self, devices: Option<&BTreeSet<String>>) -> Result<Underlay, HostError> {
        discover::discover(&self.netlink, devices).await
    }

    /// Every address in use on this host: its devices' but that one's, and its Pods', where each has a route of its own.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn used(&self, but: &str) -> Result<BTreeSet<IpAddr>, HostError> {
        used::used(&self.netlink, but).await
    }

    /// The MTU of the route to an underlay address, bytes.
    ///
    /// # Errors
    /// When there is no route.
    pub async fn path_mtu(&self, to: IpAddr) -> Result<u16, HostError> {
        discover::path_mtu(&self.netlink, to, self.last.as_ref().map(|desired| desired.port)).await
    }

    /// For people: which way the kernel would send a packet of this host.
    pub async fn route_of(&self, _desired: &Desired, to: IpAddr) -> String {
        check::describe(&self.netlink, to).await.unwrap_or_else(|error| error.to_string())
    }

    /// Removes every trace from the host and names what there was: rules, routes, device, guard, sysctls.
    ///
    /// # Errors
    /// When the kernel refuses; what was removed before stays removed.
    pub async fn cleanup(&mut self, device: &str, table: u32) -> Result<Vec<String>, HostError> {
        let mut removed = cleanup::routing(&self.netlink, device, table).await?;
        removed.extend(self.sysctls.restore());
        removed.extend(guard::remove(&self.state_dir)?);
        self.last = None;
        self.guard = Guard::new(&self.state_dir);
        self.in_clear = InClear::default();
        Ok(removed)
    }
}

/// A cluster network that holds a node's own address would cut the node off.
fn validate(desired: &Desired) -> Result<(), HostError> {
    let prefixes = plan::overlay_prefixes(desired);
    let clash = desired
        .node_addresses
        .iter()
        .find_map(|address| prefixes.iter().find(|net| net.contains(address)).map(|net| (address, net)));
    match clash {
        Some((address, net)) => Err(HostError::Refused(format!(
            "the node address {address} is inside the overlay prefix {net}: the node would cut itself off; \
             choose other Pod networks, or set node.addresses"
        ))),
        None => Ok(()),
    }
}
