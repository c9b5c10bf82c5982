//! Where things are in the store. Everything of one cluster lives below one prefix.
//!
//! | key | value | written by |
//! |---|---|---|
//! | `cluster` | the cluster, JSON | an administrator |
//! | `alloc/<address>-<length>` | `{"node": name}`, JSON | an administrator, or the node itself where it may |
//! | `alloc-order` | nothing; guards the set of allocations against races | whoever allocates |
//! | `released/<address>-<length>@<name>` | nothing: a tombstone | an administrator |
//! | `nodes/<name>` | the node's record, JSON, with its `sequence`, under a lease | the node |

use ipnet::IpNet;
use warren_overlay::record::NodeName;

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Cluster,
    Node(String),
    Allocation(IpNet),
    Released(IpNet, NodeName),
}

impl Keys {
    /// Of the cluster with this name.
    pub fn new(cluster: &str) -> Self {
        Self { prefix: format!("/warren/{cluster}/v1/") }
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The cluster.
    pub fn cluster(&self) -> String {
        format!("{}cluster", self.prefix)
    }

    /// A node's record.
    pub fn node(&self, node: &NodeName) -> String {
        format!("{}nodes/{node}", self.prefix)
    }

    /// What all allocations begin with.
    pub fn allocations(&self) -> String {
        format!("{}alloc/", self.prefix)
    }

    /// An allocation.
    pub fn allocation(&self, cidr: IpNet) -> String {
        format!("{}alloc/{}-{}", self.prefix, cidr.network(), cidr.prefix_len())
    }

    /// Guards the set of allocations.
    pub fn order(&self) -> String {
        format!("{}alloc-order", self.prefix)
    }

    /// The tombstone of an allocation.
    pub fn released(&self, cidr: IpNet, node: &NodeName) -> String {
        format!("{}released/{}-{}@{node}", self.prefix, cidr.network(), cidr.prefix_len())
    }

    /// What a key stands for; `None` for what is not ours to read.
    pub(super) fn parse(&self, key: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        match key.split_once('/') {
            None if key == "cluster" => Some(Key::Cluster),
            Some(("nodes", name)) => Some(Key::Node(name.to_owned())),
            Some(("alloc", cidr)) => parse_cidr(cidr).map(Key::Allocation),
            Some(("released", rest)) => {
                let (cidr, node) = rest.split_once('@')?;
                Some(Key::Released(parse_cidr(cidr)?, node.parse().ok()?))
            }
            _ => None,
        }
    }
}

fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.rsplit_once('-')?;
    let cidr = IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()?;
    (cidr.addr() == cidr.network()).then_some(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let keys = Keys::new("prod");
        let node: NodeName = "a.b-1".parse().unwrap();
        for cidr in ["10.1.0.0/16", "fd00:1::/64"] {
            let cidr: IpNet = cidr.parse().unwrap();
            assert_eq!(keys.parse(keys.allocation(cidr).as_bytes()), Some(Key::Allocation(cidr)));
            let released = keys.released(cidr, &node);
            assert_eq!(keys.parse(released.as_bytes()), Some(Key::Released(cidr, node.clone())));
        }
        assert_eq!(keys.parse(keys.cluster().as_bytes()), Some(Key::Cluster));
        assert_eq!(keys.parse(keys.node(&node).as_bytes()), Some(Key::Node("a.b-1".into())));
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        let keys = Keys::new("prod");
        for key in ["/warren/prod/v1/x", "/warren/prod/v2/cluster", "/warren/prod/v1/alloc/10.1.0.1-16", "nodes/a"] {
            assert_eq!(keys.parse(key.as_bytes()), None, "{key}");
        }
    }
}
