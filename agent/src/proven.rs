//! Pairs that had a tunnel once: what belongs to such a peer is never in clear again, in `permissive` neither, and not
//! after a restart. A node forgets only a peer that was given up: released from the store, taken out of the configuration
//! file, or, in Kubernetes, without its Node and its prefixes for long.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use warren_overlay::mesh::{Origin, PeerSpec};
use warren_overlay::record::NodeName;

/// The peers with whom a tunnel has stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven(BTreeMap<NodeName, Belongings>);

/// What such a peer has, or had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Belongings {
    origin: Origin,
    /// Prefixes of the overlay.
    cidrs: BTreeSet<IpNet>,
    /// Its addresses on the underlay.
    addresses: BTreeSet<IpAddr>,
}

impl Proven {
    /// Tunnels with these stand; true when one of them is new.
    pub fn add(&mut self, alive: &BTreeSet<NodeName>, peers: &BTreeMap<NodeName, PeerSpec>) -> bool {
        let known = self.0.len();
        for peer in alive.iter().filter_map(|name| peers.get(name)) {
            let nothing = || Belongings { origin: peer.origin, cidrs: BTreeSet::new(), addresses: BTreeSet::new() };
            self.0.entry(peer.name.clone()).or_insert_with(nothing);
        }
        self.0.len() > known
    }

    /// Takes up what proven peers have now, and gives up what is `own`, or another peer's by now.
    pub fn follow(&mut self, peers: &BTreeMap<NodeName, PeerSpec>, own: &BTreeSet<IpNet>, networks: &BTreeSet<IpNet>) {
        for (name, peer) in peers {
            let Some(kept) = self.0.get_mut(name) else { continue };
            let (inside, outside): (Vec<IpAddr>, Vec<IpAddr>) =
                peer.addresses.iter().copied().partition(|address| networks.iter().any(|net| net.contains(address)));
            kept.origin = peer.origin;
            kept.cidrs.extend(peer.cidrs.iter().copied().chain(inside.into_iter().map(IpNet::from)));
            kept.addresses.extend(outside);
        }
        let proven: BTreeSet<_> = self.0.keys().cloned().collect();
        for (name, kept) in &mut self.0 {
            let others: Vec<_> = peers.values().filter(|peer| peer.name != *name).collect();
            // Whoever has a part of it judges that part by its own tunnel's standing; the rest stays sealed.
            let passed_on = |cidr: &IpNet| {
                own.iter().chain(others.iter().flat_map(|peer| &peer.cidrs)).any(|other| other.contains(cidr))
            };
            kept.cidrs.retain(|cidr| !passed_on(cidr));
            // Addresses need no allocation: only another proven peer may take one over.
            let heirs: Vec<_> = others.into_iter().filter(|peer| proven.contains(&peer.name)).collect();
            kept.addresses.retain(|address| !heirs.iter().any(|peer| peer.addresses.contains(address)));
        }
    }

    /// Forgets the peers of this origin that `is_gone` names.
    pub fn forget(&mut self, origin: Origin, is_gone: impl Fn(&NodeName) -> bool) {
        self.0.retain(|name, kept| kept.origin != origin || !is_gone(name));
    }

    /// Whether a tunnel with this peer has stood.
    pub fn has(&self, name: &NodeName) -> bool {
        self.0.contains_key(name)
    }

    /// Prefixes of the overlay that must not be in clear.
    pub fn cidrs(&self) -> BTreeSet<IpNet> {
        self.0.values().flat_map(|kept| &kept.cidrs).copied().collect()
    }

    /// Node addresses with which, in mode `nodes`, nothing may be exchanged in clear.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.0.values().flat_map(|kept| &kept.addresses).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, cidr: &str, address: &str) -> (NodeName, PeerSpec) {
        let name: NodeName = name.parse().unwrap();
        let spec = PeerSpec {
            name: name.clone(),
            origin: Origin::Registry,
            public_key: warren_crypto::PublicKey::from_bytes([7; 32]),
            endpoints: Vec::new(),
            addresses: [address.parse().unwrap()].into(),
            cidrs: [cidr.parse().unwrap()].into(),
            mtu: None,
            preshared_key: None,
            persistent_keepalive: None,
            features: BTreeSet::new(),
        };
        (name, spec)
    }

    fn networks() -> BTreeSet<IpNet> {
        ["10.0.0.0/8".parse().unwrap()].into()
    }

    fn proven(peers: &BTreeMap<NodeName, PeerSpec>) -> Proven {
        let mut proven = Proven::default();
        assert!(proven.add(&peers.keys().cloned().collect(), peers));
        proven.follow(peers, &BTreeSet::new(), &networks());
        proven
    }

    #[test]
    fn what_a_proven_peer_had_stays_sealed_when_it_is_gone() {
        let peers = BTreeMap::from([peer("a", "10.1.0.0/24", "192.0.2.1")]);
        let mut proven = proven(&peers);
        proven.follow(&BTreeMap::new(), &BTreeSet::new(), &networks());
        assert_eq!(proven.cidrs(), ["10.1.0.0/24".parse().unwrap()].into());
        assert_eq!(proven.addresses(), ["192.0.2.1".parse().unwrap()].into());
        proven.forget(Origin::Static, |_| true);
        assert!(!proven.cidrs().is_empty(), "the configuration file says nothing about it");
        proven.forget(Origin::Registry, |name| name.as_str() == "a");
        assert_eq!(proven, Proven::default());
    }

    #[test]
    fn what_passed_on_to_another_node_is_judged_by_that_node() {
        let peers = BTreeMap::from([peer("a", "10.1.0.0/24", "192.0.2.1")]);
        let part = BTreeMap::from([peer("b", "10.1.0.0/25", "192.0.2.1")]);
        let mut proven = proven(&peers);
        proven.follow(&part, &BTreeSet::new(), &networks());
        assert_eq!(proven.cidrs(), ["10.1.0.0/24".parse().unwrap()].into(), "the rest of it is nobody else's");
        assert!(!proven.addresses().is_empty(), "anybody can claim an address");
        let heir = BTreeMap::from([peer("b", "10.1.0.0/16", "192.0.2.1")]);
        assert!(proven.add(&heir.keys().cloned().collect(), &heir));
        proven.follow(&heir, &BTreeSet::new(), &networks());
        assert_eq!(proven.cidrs(), ["10.1.0.0/16".parse().unwrap()].into());
        assert_eq!(proven.addresses().len(), 1);
    }

    #[test]
    fn an_address_inside_the_cluster_network_is_sealed_like_a_prefix() {
        let peers = BTreeMap::from([peer("a", "10.1.0.0/24", "10.9.0.1")]);
        let proven = proven(&peers);
        assert!(proven.addresses().is_empty());
        assert!(proven.cidrs().contains(&"10.9.0.1/32".parse().unwrap()));
    }
}
