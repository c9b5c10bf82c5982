//! The configuration file: TOML, every key documented, unknown keys refused.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::cidrs::{Given, Where};
use crate::dataplane::ASSOCIATIONS;
use ipnet::IpNet;
use warren_crypto::association::Suite;
use warren_crypto::{PresharedKey, PublicKey};
use warren_overlay::mesh::{Enforcement, StaticPeer};
use warren_overlay::record::NodeName;

mod fault;
mod file;
pub mod keys;
mod layers;
mod table;
mod value;

pub use fault::{ConfigError, Fault, Place};
pub use file::{load, parse};
pub use layers::{Origin, Setting, set_flags};

/// Where the key, the last good mesh and the saved guard are, unless `node.state_dir` says otherwise.
pub const STATE_DIR: &str = "/var/lib/warren";
/// Where the admin socket is, unless `node.run_dir` says otherwise.
pub const RUN_DIR: &str = "/run/warren";

/// The whole file, after defaults, environment and flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from; watched for changes of the static peers.
    pub path: Option<PathBuf>,
    /// What did not come from there: keys, each with where its value stands.
    pub overridden: Vec<(String, String)>,
    /// `[node]`
    pub node: Node,
    /// `[overlay]`
    pub overlay: Overlay,
    /// `[underlay]`
    pub underlay: Underlay,
    /// `[offload]`
    pub offload: Offload,
    /// `[workers]`
    pub workers: Workers,
    /// `[health]`
    pub health: Health,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[cni]`
    pub cni: Cni,
    /// `[etcd]`
    pub etcd: Option<Etcd>,
    /// `[kubernetes]`, where it is enabled.
    pub kubernetes: Option<Kubernetes>,
    /// `[kubernetes]`, enabled or not: how the API server is reached when it is only asked for this node's prefixes.
    pub api_server: Kubernetes,
    /// `[[peer]]`
    pub peers: Vec<Peer>,
    /// `[log]`
    pub log: Log,
}

/// `[node]`: who this is.
#[derive(Clone, Debug)]
pub struct Node {
    /// `name`; default: the host name, up to the first dot kept whole.
    pub name: NodeName,
    /// `addresses`; `"auto"` (default): the addresses of the underlay devices.
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// `endpoints`: what peers dial, best first; default: every node address with the port.
    pub endpoints: Option<Vec<SocketAddr>>,
    /// `cidrs`: a list, `"auto"`, or what `cidrs_from` said.
    pub cidrs: Cidrs,
    /// `cidrs` as a source, `cni_dir`, `flannel_file`: who says what `cidrs` lists.
    pub cidrs_from: Option<Where>,
    /// `cni_dir`; default `/etc/cni/net.d`: the CNI's configurations.
    pub cni_dir: PathBuf,
    /// `state_dir`; default `/var/lib/warren`.
    pub state_dir: PathBuf,
    /// `key_file`; default `<state_dir>/private.key`.
    pub key_file: PathBuf,
    /// `run_dir`; default `/run/warren`: holds `warren.sock`.
    pub run_dir: PathBuf,
}

/// Which CIDRs the node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cidrs {
    /// These (with etcd: must be allocated to the node, `[]` takes what is allocated).
    Listed(BTreeSet<IpNet>),
    /// The node allocates one by itself out of the cluster's networks, of `length` (default /24, /64).
    Auto {
        /// Prefix length for IPv4 and IPv6 networks.
        length: (u8, u8),
    },
    /// Exactly these, as the API server said: what else was the node's it gives back.
    Given(Given),
}

impl Cidrs {
    /// As far as they are known here.
    pub fn known(&self) -> BTreeSet<IpNet> {
        match self {
            Self::Listed(cidrs) | Self::Given(Given { cidrs, .. }) => cidrs.clone(),
            Self::Auto { .. } => BTreeSet::new(),
        }
    }

    /// Together with what of the kept is still remembered to be the node's.
    pub(crate) fn remembering(&self, is_own: impl Fn(&IpNet) -> bool) -> Self {
        match self {
            Self::Given(given) => Self::Given(given.remembering(is_own)),
            other => other.clone(),
        }
    }

    /// Somebody says exactly which prefixes are this node's, and this is none of them.
    pub(crate) fn rule_out(&self, cidr: &IpNet) -> bool {
        matches!(self, Self::Given(given) if given.rules_out(cidr))
    }
}

/// Which traffic is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Pod traffic and traffic between Pods and nodes.
    Pods,
    /// Also everything between node addresses.
    Nodes,
}

/// `[overlay]`
#[derive(Clone, Debug)]
pub struct Overlay {
    /// `device`; default `warren0`.
    pub device: String,
    /// `address`: addresses of its own for a host without Pods.
    pub address: BTreeSet<IpAddr>,
    /// `mode`; default `pods`.
    pub mode: Mode,
    /// `networks`: the cluster network when no store says so; default: the union of all known CIDRs.
    pub networks: BTreeSet<IpNet>,
    /// `enforcement` when no store says so; default `strict`.
    pub enforcement: Enforcement,
    /// `mtu`: inner MTU; `"auto"` (default): the underlay's less 60 (IPv4) or 80 (IPv6).
    pub mtu: Option<u16>,
    /// `rule_priority`; default 90 (three rules: 90, 91, 92 ...).
    pub rule_priority: u32,
    /// `table`; default 51840.
    pub table: u32,
    /// `mark`; default 0x10: one bit.
    pub mark: u32,
    /// `exempt_ports` (mode `nodes`); default 22, 6443, 2379-2380, 10250.
    pub exempt_ports: Vec<std::ops::RangeInclusive<u16>>,
    /// `associations`: whether data between agents leaves the tunnel; default `prefer`.
    pub associations: Associations,
    /// `suite` of the associations; `"auto"` (default): AES where both CPUs have it. A pinned suite implies `require`.
    pub suite: Option<Suite>,
    /// `grace_seconds`: how long a vanished record's peer is kept; default 900.
    pub grace_seconds: u64,
}

/// Whether data between two agents travels in associations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Associations {
    /// Where they can be agreed on; otherwise in the tunnel.
    #[default]
    Prefer,
    /// In associations or not at all.
    Require,
    /// Never: nothing but standard WireGuard on the wire.
    Off,
}

/// `[underlay]`
#[derive(Clone, Debug)]
pub struct Underlay {
    /// `port`: UDP; default 51840.
    pub port: u16,
    /// `devices`; `"auto"` (default): those with a default route, or with a node address.
    pub devices: Option<BTreeSet<String>>,
    /// `source_ports`: `"auto"` (default, true) lets each lane leave from a port of its own; `"single"` keeps the one port.
    pub source_ports: bool,
}

/// `[offload]`: each can be switched off; default all on (used where the kernel has it).
#[derive(Clone, Copy, Debug)]
pub struct Offload {
    /// `tun_tso`: vnet header with TSO4/6.
    pub tun_tso: bool,
    /// `tun_uso`
    pub tun_uso: bool,
    /// `udp_gso`: UDP_SEGMENT.
    pub udp_gso: bool,
    /// `udp_gro`: UDP_GRO.
    pub udp_gro: bool,
}

/// `[workers]`
#[derive(Clone, Copy, Debug)]
pub struct Workers {
    /// `count`; 0 (default): one per core.
    pub count: u16,
    /// `pin`: each stays on one core; default false.
    pub pin: bool,
}

/// `[health]`
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// `listen`; default 127.0.0.1:9587; `None` for `"off"`.
    pub listen: Option<SocketAddr>,
}

/// `[metrics]`
#[derive(Clone, Copy, Debug)]
pub struct Metrics {
    /// `listen`; default 127.0.0.1:9586; `None` for `"off"`.
    pub listen: Option<SocketAddr>,
    /// `per_peer`: also series of every single peer; default true.
    pub per_peer: bool,
}

/// `[cni]`: what is put before the host's container runtime.
#[derive(Clone, Debug)]
pub struct Cni {
    /// `gate`: no Pod starts before the guard stands; default false.
    pub gate: bool,
    /// `install`: a network for a node that has no CNI; default false.
    pub install: bool,
    /// `bin_dir`; default `/opt/cni/bin`: the runtime's plugins.
    pub bin_dir: PathBuf,
}

/// `[etcd]`
#[derive(Clone, Debug)]
pub struct Etcd {
    /// `endpoints`: URLs.
    pub endpoints: Vec<String>,
    /// `cluster`; default `default`: keys live below `/warren/<cluster>/v1/`.
    pub cluster: String,
    /// `ca_file`, `cert_file`, `key_file`: PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// `username`
    pub username: Option<String>,
    /// `password_file`, read at every connection.
    pub password_file: Option<PathBuf>,
    /// `password`, instead of a file; the configuration file must then be readable by its owner alone.
    pub password: Option<Password>,
    /// `lease_seconds`; default 60.
    pub lease_seconds: u64,
}

/// `[kubernetes]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// `kubeconfig`; without it, what Kubernetes gives a Pod.
    pub kubeconfig: Option<PathBuf>,
    /// `context` of the kubeconfig; default: its current one.
    pub context: Option<String>,
    /// `server`: a URL instead of the one that is found.
    pub server: Option<String>,
    /// No setting: the URL that was found at the start, for whoever asks whether the overlay would carry it.
    pub found: Option<String>,
}

impl Kubernetes {
    /// Where the API server is, as far as somebody says.
    pub(crate) fn url(&self) -> Option<&String> {
        self.server.as_ref().or(self.found.as_ref())
    }
}

/// A password: redacted in `Debug`, wiped on drop.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// `[[peer]]`: a static peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `name`
    pub name: NodeName,
    /// `public_key`
    pub public_key: PublicKey,
    /// `endpoint`
    pub endpoint: Option<SocketAddr>,
    /// `cidrs`: the allowed prefixes.
    pub cidrs: BTreeSet<IpNet>,
    /// `addresses`: its node addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Content of `preshared_key_file`.
    pub preshared_key: Option<PresharedKey>,
    /// `persistent_keepalive`: seconds.
    pub persistent_keepalive: Option<u16>,
    /// `mtu`
    pub mtu: Option<u16>,
    /// `associations`: it is an agent that knows them.
    pub associations: bool,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// `level`; default `info`.
    pub level: String,
    /// `format`: `text` (default) or `json`.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Config {
    /// Whether records come from a store, and not from this file alone.
    pub fn has_store(&self) -> bool {
        self.etcd.is_some() || self.kubernetes.is_some()
    }

    /// The API server that this node depends on: its registry, or who says its prefixes.
    pub fn asked_server(&self) -> Option<&Kubernetes> {
        let asks = self.node.cidrs_from.as_ref().is_some_and(|place| place.source.is_remote());
        self.kubernetes.as_ref().or_else(|| asks.then_some(&self.api_server))
    }

    /// The static peers as the mesh takes them.
    pub fn static_peers(&self) -> Vec<StaticPeer> {
        self.peers.iter().cloned().map(StaticPeer::from).collect()
    }
}

impl From<Peer> for StaticPeer {
    fn from(peer: Peer) -> Self {
        Self {
            name: peer.name,
            public_key: peer.public_key,
            endpoint: peer.endpoint,
            cidrs: peer.cidrs,
            addresses: peer.addresses,
            preshared_key: peer.preshared_key,
            persistent_keepalive: peer.persistent_keepalive,
            mtu: peer.mtu,
            features: peer.associations.then(|| ASSOCIATIONS.to_owned()).into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
