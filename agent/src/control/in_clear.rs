//! Whose packets may be seen in clear during a roll-out: which prefix is counted, and for which node. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use warren_overlay::mesh::{Cluster, Enforcement, PeerSpec, Snapshot};
use warren_overlay::record::NodeName;

/// What [`owners`] starts from.
pub(super) struct Facts<'a> {
    pub(super) own: &'a NodeName,
    pub(super) cluster: &'a Cluster,
    pub(super) snapshot: Option<&'a Snapshot>,
    pub(super) peers: &'a BTreeMap<NodeName, PeerSpec>,
    /// Prefixes that are never in clear again.
    pub(super) proven: &'a BTreeSet<IpNet>,
}

/// The nodes' prefixes that the guard lets pass in clear: in `strict` none. Nodes without an agent have no record, but
/// what was allocated to them has their name. Node addresses are left out: what nodes say to each other is partly
/// exempt, and the tunnel itself.
pub(super) fn owners(facts: &Facts<'_>) -> BTreeMap<IpNet, NodeName> {
    if facts.cluster.enforcement == Enforcement::Strict {
        return BTreeMap::new();
    }
    let networks = &facts.cluster.networks;
    let pods = |cidr: &IpNet| networks.is_empty() || networks.iter().any(|network| network.contains(cidr));
    let allocated = facts.snapshot.iter().flat_map(|snapshot| &snapshot.allocations);
    let allocated = allocated.map(|given| (given.cidr, given.node.clone())).filter(|(cidr, _)| pods(cidr));
    let peers = facts.peers.values().flat_map(|peer| peer.cidrs.iter().map(|cidr| (*cidr, peer.name.clone())));
    let sealed = |cidr: &IpNet| facts.proven.iter().any(|proven| proven.contains(cidr));
    let mut owners: BTreeMap<_, _> = allocated.chain(peers).collect();
    owners.retain(|cidr, owner| owner != facts.own && !sealed(cidr));
    owners
}

#[cfg(test)]
mod tests {
    use warren_overlay::mesh::{Allocation, Origin};

    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn peer(text: &str, cidr: &str) -> (NodeName, PeerSpec) {
        let spec = PeerSpec {
            name: name(text),
            origin: Origin::Registry,
            public_key: warren_crypto::PublicKey::from_bytes([7; 32]),
            endpoints: Vec::new(),
            addresses: ["192.0.2.1".parse().unwrap()].into(),
            cidrs: [cidr.parse().unwrap()].into(),
            mtu: None,
            preshared_key: None,
            persistent_keepalive: None,
            features: BTreeSet::new(),
        };
        (name(text), spec)
    }

    fn counted(enforcement: Enforcement, proven: &[&str]) -> Vec<String> {
        let allocation =
            |cidr: &str, node: &str| Allocation { cidr: cidr.parse().unwrap(), node: name(node), create_revision: 1 };
        let snapshot = Snapshot {
            allocations: vec![
                allocation("10.1.0.0/24", "own"),
                allocation("10.2.0.0/24", "without-agent"),
                allocation("192.0.2.9/32", "without-agent"),
                allocation("10.3.0.0/24", "peer"),
            ],
            ..Snapshot::default()
        };
        let cluster = Cluster { id: String::new(), networks: ["10.0.0.0/8".parse().unwrap()].into(), enforcement };
        let peers = BTreeMap::from([peer("peer", "10.3.0.0/24"), peer("file", "10.4.0.0/24")]);
        let proven = proven.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let facts =
            Facts { own: &name("own"), cluster: &cluster, snapshot: Some(&snapshot), peers: &peers, proven: &proven };
        owners(&facts).into_iter().map(|(cidr, owner)| format!("{cidr} {owner}")).collect()
    }

    #[test]
    fn nodes_with_and_without_an_agent_are_counted_until_they_are_proven() {
        let all = ["10.2.0.0/24 without-agent", "10.3.0.0/24 peer", "10.4.0.0/24 file"];
        assert_eq!(counted(Enforcement::Permissive, &[]), all);
        assert_eq!(counted(Enforcement::Permissive, &["10.3.0.0/16", "10.4.0.0/24"]), all[..1]);
    }

    #[test]
    fn in_strict_nothing_passes_so_nothing_is_counted() {
        assert!(counted(Enforcement::Strict, &[]).is_empty());
    }
}
