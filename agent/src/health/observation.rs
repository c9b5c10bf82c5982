//! Everything that probes and metrics are made of, at one moment. The control plane puts it together when it is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use warren_overlay::forward::Drops;

use super::probe::{self, Check};
use crate::dataplane::PeerCounters;
use crate::status::Status;

/// The agent at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// What `warren status` shows too.
    pub status: Status,
    /// The TUN device.
    pub device: String,
    /// Seconds since 1970 when the agent started.
    pub started: f64,
    /// What must be so for the node to be ready.
    pub checks: Vec<Check>,
    /// Losses by reason.
    pub drops: Drops,
    /// What passed with all peers, with those that are gone too: it never shrinks.
    pub traffic: PeerCounters,
    /// Handshakes by peer.
    pub handshakes: BTreeMap<String, Handshake>,
    /// By registry, when it answered last.
    pub contacts: BTreeMap<&'static str, Contact>,
}

impl Observation {
    /// Every check passes.
    pub fn is_ready(&self) -> bool {
        probe::pass(&self.checks)
    }
}

/// The last handshake with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// Seconds since 1970.
    pub at: u64,
    /// How long the last one took that this node began.
    pub took: Option<Duration>,
}

/// An answer of a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Contact {
    /// Seconds since 1970.
    pub at: f64,
    /// Of what is known.
    pub revision: u64,
}
