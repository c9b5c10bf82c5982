//! What an operator must know of a node although nobody asks it: few matters, each of them lasting.

use std::collections::BTreeMap;

/// One matter; what is more urgent comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// The node cannot carry what it should.
    NotReady,
    /// The node does not have its own prefixes.
    NotAllocated,
    /// The host, or somebody on it, works against routes, rules or guard.
    HostInterference,
    /// The guard refuses packets in clear, and not just a few.
    ClearTextRefused,
    /// The store says less, or older things, than it did.
    RegistryDoubted,
    /// Records or prefixes of others are refused here.
    PeersRefused,
}

/// What is wrong now, a sentence each.
pub type Concerns = BTreeMap<Concern, String>;
