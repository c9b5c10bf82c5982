//! What `warren status` shows: the same type is the admin socket's reply and the `-o json` output.

use serde::{Deserialize, Serialize};

/// Data travels in associations.
pub const ASSOCIATIONS: &str = "associations";
/// Data travels in the WireGuard session.
pub const TUNNEL: &str = "tunnel";
/// Data is dropped as `no_association`: associations are required, and there are none.
pub const DROPPED: &str = "dropped";

/// The agent at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// Its public key (base64).
    pub public_key: String,
    /// UDP port.
    pub port: u16,
    /// Inner MTU.
    pub mtu: u16,
    /// Its CIDRs.
    pub cidrs: Vec<String>,
    /// `strict` or `permissive`.
    pub enforcement: String,
    /// `pods` or `nodes`.
    pub mode: String,
    /// Guard, routes and rules are in place and win.
    pub ready: bool,
    /// Data-path threads.
    pub workers: u16,
    /// Offloads in use, by name (`tun_tso`, `tun_uso`, `udp_gso`, `udp_gro`).
    pub offloads: Vec<String>,
    /// Registries and how they fare.
    pub registries: Vec<RegistryStatus>,
    /// The peers, sorted by name.
    pub peers: Vec<PeerStatus>,
    /// Drops by reason, those above zero, over all workers.
    pub drops: std::collections::BTreeMap<String, u64>,
    /// Datagrams that one worker handed to another, since the kernel had joined them with its own.
    #[serde(default)]
    pub strays: u64,
    /// Packets in clear that the guard counted (`permissive`) or refused (`strict`).
    pub guard: GuardStatus,
    /// By node, what passed in clear in `permissive`: nodes that no tunnel was ever made with, those without an agent too.
    #[serde(default)]
    pub in_clear: std::collections::BTreeMap<String, InClear>,
    /// What is wrong now, one sentence each: what, where, what to do.
    pub problems: Vec<String>,
    /// Refused records and claims: subject, reason, detail.
    pub refusals: Vec<warren_overlay::mesh::Refusal>,
    /// Repairs of what somebody else changed on the host.
    pub repairs: u64,
    /// A change that is held until `warren mesh accept`, if any.
    pub held: Option<String>,
}

/// A registry's health.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegistryStatus {
    /// `etcd`, `kubernetes` or `static`.
    pub name: String,
    /// Reachable and current.
    pub ok: bool,
    /// For people.
    pub detail: String,
}

/// What the guard counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStatus {
    /// The guard is loaded.
    pub active: bool,
    /// Packets in clear that it refused.
    pub refused: u64,
    /// Packets in clear that it let pass (`permissive`).
    pub passed: u64,
}

/// Packets in clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InClear {
    /// To the node.
    pub sent: u64,
    /// From the node.
    pub received: u64,
}

/// One peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub public_key: String,
    /// `static` or `registry`.
    pub origin: String,
    /// Where datagrams go now.
    pub endpoint: Option<String>,
    /// `up` (session), `connecting` (nothing answers, yet or any more), `idle` (no session, no traffic), `vanished` (record gone, kept for grace).
    pub state: String,
    /// A tunnel with it has stood: what belongs to it is never in clear again, in `permissive` neither.
    #[serde(default)]
    pub proven: bool,
    /// Seconds since the last handshake.
    pub handshake_age: Option<u64>,
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Inner packets sent.
    pub tx_packets: u64,
    /// Inner packets received.
    pub rx_packets: u64,
    /// Drops on the way to or from it.
    pub drops: u64,
    /// Prefixes routed to it.
    pub cidrs: Vec<String>,
    /// What carries data to it: [`ASSOCIATIONS`], [`TUNNEL`] or [`DROPPED`].
    #[serde(default)]
    pub data: String,
    /// The associations on which data is sent to it; `None` while there are none.
    #[serde(default)]
    pub association: Option<AssociationStatus>,
    /// Why data to it, or some of it, does not travel in associations.
    #[serde(default)]
    pub why_tunnel: Option<String>,
}

/// The associations on which data is sent to a peer. What comes from it, it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssociationStatus {
    /// `aes-256-gcm` or `chacha20-poly1305`.
    pub suite: String,
    /// Lanes on which this node sends, one for each of its workers. What a worker without one sends travels in the tunnel,
    /// or is dropped where associations are required.
    pub lanes: usize,
    /// Of these, by source ports of their own.
    pub own_ports: usize,
    /// Seconds since the keys were agreed on.
    pub age: u64,
    /// All data to the peer travels in associations, or is dropped: whoever breaks X25519 later learns nothing of it.
    pub post_quantum: bool,
}
