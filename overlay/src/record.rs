//! What a node publishes of itself: versioned JSON, read with suspicion.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use warren_crypto::PublicKey;

use crate::packet;

/// The layout that this agent writes, and the only one that it reads.
pub const RECORD_VERSION: u32 = 1;
/// The longest record, in bytes.
pub const RECORD_MAX: usize = 8 << 10;
/// The smallest inner MTU that IPv6 allows (RFC 8200, section 5).
const MTU_MIN: u16 = 1280;
const NAME_MAX: usize = 63;
/// So many endpoints a record has at the most.
pub const ENDPOINTS_MAX: usize = 16;
const ADDRESSES_MAX: usize = 32;
/// The most prefixes of one node.
pub const CIDRS_MAX: usize = 64;
const WORDS_MAX: usize = 32;

/// A node's name: 1 to 63 characters of `a-z`, `0-9`, `-` and `.`, alphanumeric at both ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// Why a text is no node name. Never carries the text, which may be hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node name has 1 to 63 characters of a-z, 0-9, '-' and '.', and begins and ends with a letter or digit")]
pub struct NameError;

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let alphanumeric = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let inside = bytes.iter().all(|byte| alphanumeric(Some(byte)) || matches!(byte, b'-' | b'.'));
        if inside && bytes.len() <= NAME_MAX && alphanumeric(bytes.first()) && alphanumeric(bytes.last()) {
            Ok(Self(text))
        } else {
            Err(NameError)
        }
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.to_owned().try_into()
    }
}

/// A node's record, as it stands in the registry. A registry whose own order can be turned back adds a `sequence` to it,
/// which says nothing of the node and is not read here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Layout of the record; a reader refuses versions that it does not know.
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

/// Why a record was refused. Never carries its bytes, which may be hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than [`RECORD_MAX`].
    #[error("the record is longer than 8 KiB")]
    Oversized,
    /// Not JSON, or a field is missing or of the wrong kind.
    #[error("the record is not JSON of the known layout (line {line}, column {column})")]
    Malformed {
        /// Line of the first error.
        line: usize,
        /// Column of the first error.
        column: usize,
    },
    /// A layout from the future.
    #[error("the record has layout version {0}; this agent reads version 1: upgrade it")]
    UnknownVersion(u32),
    /// A list is longer than any honest node's.
    #[error("the record lists too many {0}")]
    TooMany(&'static str),
    /// An endpoint that cannot be dialled.
    #[error("an endpoint of the record has port 0 or an address that cannot be dialled")]
    BadEndpoint,
    /// Host bits in a CIDR.
    #[error("a CIDR of the record has host bits set")]
    HostBits,
    /// An MTU below the smallest that IPv6 allows.
    #[error("the record's MTU is below 1280")]
    BadMtu,
}

impl RecordError {
    /// The stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Malformed { .. } => "malformed",
            Self::UnknownVersion(_) => "unknown_version",
            Self::TooMany(_) => "too_many",
            Self::BadEndpoint => "bad_endpoint",
            Self::HostBits => "host_bits",
            Self::BadMtu => "bad_mtu",
        }
    }
}

/// The one field that every layout has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Record {
    /// Reads a record off the registry. Unknown fields are ignored.
    ///
    /// # Errors
    /// Why the whole record is refused; single prefixes are judged by the mesh.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_MAX {
            return Err(RecordError::Oversized);
        }
        let malformed =
            |error: serde_json::Error| RecordError::Malformed { line: error.line(), column: error.column() };
        let Version { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != RECORD_VERSION {
            return Err(RecordError::UnknownVersion(version));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        record.check()?;
        Ok(record)
    }

    /// The record as it goes to the registry.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), RecordError> {
        let limits = [
            ("endpoints", self.endpoints.len(), ENDPOINTS_MAX),
            ("addresses", self.addresses.len(), ADDRESSES_MAX),
            ("CIDRs", self.cidrs.len(), CIDRS_MAX),
            ("suites", self.suites.len(), WORDS_MAX),
            ("features", self.features.len(), WORDS_MAX),
        ];
        if let Some((what, ..)) = limits.iter().find(|(_, len, max)| len > max) {
            return Err(RecordError::TooMany(what));
        }
        if self.endpoints.iter().any(|endpoint| endpoint.port() == 0 || packet::reserved(endpoint.ip())) {
            return Err(RecordError::BadEndpoint);
        }
        if self.cidrs.iter().any(|cidr| cidr.addr() != cidr.network()) {
            return Err(RecordError::HostBits);
        }
        if self.mtu < MTU_MIN {
            return Err(RecordError::BadMtu);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
        let mut value = serde_json::json!({
            "version": 1, "name": "a", "public_key": PublicKey::from_bytes([9; 32]).to_string(),
            "endpoints": ["192.0.2.1:51840"], "addresses": ["192.0.2.1"], "cidrs": ["10.1.0.0/24"],
            "mtu": 1420, "workers": 2
        });
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    }

    fn refusal(change: impl Fn(&mut serde_json::Value)) -> &'static str {
        Record::parse(&json(change)).unwrap_err().name()
    }

    #[test]
    fn a_record_survives_writing_and_reading() {
        let record = Record::parse(&json(|_| ())).unwrap();
        assert_eq!(Record::parse(&record.to_bytes()), Ok(record));
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_versions_refused() {
        assert!(Record::parse(&json(|value| value["future"] = 7.into())).is_ok());
        assert_eq!(refusal(|value| value["version"] = 2.into()), "unknown_version");
    }

    #[test]
    fn what_no_honest_node_publishes_is_refused_by_name() {
        assert_eq!(refusal(|value| value["endpoints"] = serde_json::json!(["192.0.2.1:0"])), "bad_endpoint");
        assert_eq!(refusal(|value| value["endpoints"] = serde_json::json!(["127.0.0.1:1"])), "bad_endpoint");
        assert_eq!(refusal(|value| value["cidrs"] = serde_json::json!(["10.1.0.1/24"])), "host_bits");
        assert_eq!(refusal(|value| value["mtu"] = 100.into()), "bad_mtu");
        assert_eq!(refusal(|value| value["name"] = "../x".into()), "malformed");
        assert_eq!(refusal(|value| value["endpoints"] = vec!["192.0.2.1:1"; 17].into()), "too_many");
        assert_eq!(Record::parse(&vec![b' '; RECORD_MAX + 1]).unwrap_err().name(), "oversized");
    }

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "node-1", "a.b-c", "0", &"x".repeat(63)] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "A", "a b", "a\n", "ä", "a/b", &"x".repeat(64)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Record::parse(&bytes);
        }

        #[test]
        fn any_single_change_is_read_or_refused(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = json(|_| ());
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Record::parse(&bytes);
        }
    }
}
