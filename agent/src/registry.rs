//! Registries: where records live. Each runs as a task on the control plane's runtime and speaks through channels only.

pub mod cache;
mod concerns;
pub mod etcd;
mod known;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod rest;
mod sequence;
pub mod static_peers;
#[cfg(feature = "kubernetes")]
mod voice;

use std::sync::Arc;
use std::time::Duration;

pub use concerns::{Concern, Concerns};
pub use known::Known;
use rand_core::{OsRng, RngCore as _};
use tokio::sync::{mpsc, watch};
use warren_overlay::mesh::{Snapshot, StaticPeer};
use warren_overlay::record::Record;

use crate::cidrs::Found;
use crate::config::Cidrs;

/// What a registry tells the control plane.
#[derive(Clone, Debug)]
pub enum Event {
    /// Everything the store knows now (always the whole; the registry merges watch events itself).
    Snapshot(Arc<Snapshot>),
    /// The static peers, at start and whenever the file changed.
    Static(Vec<StaticPeer>),
    /// What the host's CNI says of this node's prefixes, or why it says nothing, when that changes.
    Cidrs(Result<Found, String>),
    /// How the registry fares, when that changes.
    Health(Health),
    /// It answered just now.
    Contact {
        /// `etcd` or another.
        registry: &'static str,
        /// Of what is known.
        revision: u64,
    },
}

/// How a registry fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `etcd`, `kubernetes` or `static`.
    pub registry: &'static str,
    /// Reachable and current.
    pub ok: bool,
    /// For people: what is wrong and what to do.
    pub detail: String,
}

/// The channels between the control plane and one registry.
pub struct Channels {
    /// To the control plane.
    pub events: mpsc::Sender<Event>,
    /// What to publish of ourselves; `None` until known, and again to withdraw.
    pub publish: watch::Receiver<Option<Record>>,
    /// Which prefixes this node should have. That they change ends nothing: not what is being followed, nor what is waited for.
    pub cidrs: watch::Receiver<Cidrs>,
}

/// Up to half of `pause`, at random, so that nodes that lost the same store do not come back all at once.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(f64::from(OsRng.next_u32()) / f64::from(u32::MAX) / 2.0)
}
