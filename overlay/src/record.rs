//! What a node publishes of itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use warren_crypto::PublicKey;

/// A node's name: 1 to 63 characters of `a-z`, `0-9`, `-` and `.`, alphanumeric at both ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// A node's record, as it stands in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Layout of the record; a reader refuses majors it does not know.
    pub version: u32,
    /// The node.
    pub name: NodeName,
    /// Its public key.
    pub public_key: PublicKey,
    /// Where its tunnel listens, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Its own addresses on the underlay and the overlay.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// The Pod CIDRs that it claims.
    #[serde(default)]
    pub cidrs: BTreeSet<IpNet>,
    /// The largest inner packet it takes, in bytes.
    pub mtu: u16,
    /// Its data-path threads.
    pub workers: u16,
    /// The suites it speaks, best first. Empty until associations exist.
    #[serde(default)]
    pub suites: Vec<String>,
    /// What else it can do.
    #[serde(default)]
    pub features: BTreeSet<String>,
    /// The agent's version, for people.
    #[serde(default)]
    pub agent: String,
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // Replaced by the crate's owner with the rule above.
        if text.is_empty() { Err("a node name must not be empty".into()) } else { Ok(Self(text)) }
    }
}
