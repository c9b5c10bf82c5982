//! The rules: who may be a peer, and which prefixes are its own.
//!
//! Everything is taken in an order that stands in the data (static peers as written, then create revisions), so the
//! result does not depend on the order in which things were learnt. Whoever comes later than the owner is refused,
//! by reason; nothing that is refused changes anything for anybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use warren_crypto::PublicKey;

use super::claims::{Claims, granted_address};
use super::ranges::Ranges;
use super::{Allocation, Cluster, Entry, Mesh, Origin, Own, Ownership, PeerSpec, Refusal, Snapshot, StaticPeer};
use crate::packet;
use crate::record::{NodeName, Record};

/// Computes what this node should have. `snapshot` is `None` without a store, `memory` is what was remembered of
/// ownership, `fallback` holds where the store says nothing of the cluster.
pub fn compute(
    own: &Own,
    snapshot: Option<&Snapshot>,
    statics: &[StaticPeer],
    memory: &Ownership,
    fallback: &Cluster,
) -> Mesh {
    let cluster = snapshot.and_then(|snapshot| snapshot.cluster.as_ref()).unwrap_or(fallback);
    let mut builder = Builder::new(own, cluster, memory);
    if snapshot.is_none() {
        builder.take_own();
    }
    for peer in statics {
        builder.take_static(peer);
    }
    if let Some(snapshot) = snapshot {
        builder.remember(snapshot);
        builder.take_allocations(&snapshot.allocations);
        builder.take_own_allocations();
        builder.take_entries(&snapshot.entries);
        builder.remember_claims();
    }
    builder.finish()
}

struct Builder<'d> {
    own: &'d Own,
    cluster: &'d Cluster,
    memory: &'d Ownership,
    claims: Claims,
    ranges: Ranges,
    remembered: Ranges,
    keys: BTreeMap<PublicKey, NodeName>,
    addresses: BTreeMap<IpAddr, NodeName>,
    granted: BTreeMap<NodeName, BTreeSet<IpNet>>,
    mesh: Mesh,
}

impl<'d> Builder<'d> {
    fn new(own: &'d Own, cluster: &'d Cluster, memory: &'d Ownership) -> Self {
        Self {
            own,
            cluster,
            memory,
            claims: Claims::default(),
            ranges: Ranges::default(),
            remembered: Ranges::default(),
            keys: BTreeMap::from([(own.public_key, own.name.clone())]),
            addresses: own.addresses.iter().map(|address| (*address, own.name.clone())).collect(),
            granted: BTreeMap::new(),
            mesh: Mesh::default(),
        }
    }

    fn refuse(&mut self, subject: &str, cidr: Option<IpNet>, reason: &str, detail: String) {
        let subject = subject.chars().take(128).flat_map(char::escape_default).collect();
        self.mesh.refusals.push(Refusal { subject, cidr, reason: reason.to_owned(), detail });
    }

    /// Without a store the configuration is the truth.
    fn take_own(&mut self) {
        for cidr in self.own.cidrs.iter().copied() {
            match self.check_range(cidr, &self.own.name) {
                Ok(()) => _ = self.mesh.own_cidrs.insert(cidr),
                Err((reason, detail)) => self.refuse(self.own.name.as_str(), Some(cidr), reason, detail),
            }
        }
    }

    /// With a store, what is allocated to us; of that, what the configuration lists, or all.
    fn take_own_allocations(&mut self) {
        let granted = self.granted.get(&self.own.name).cloned().unwrap_or_default();
        if self.own.cidrs.is_empty() {
            self.mesh.own_cidrs = granted;
            return;
        }
        for cidr in self.own.cidrs.iter().copied() {
            if self.ranges.holder(cidr) == Some(&self.own.name) {
                self.mesh.own_cidrs.insert(cidr);
            } else {
                let detail = format!(
                    "{cidr} is not allocated to {}: run `warren cluster add-node {} --cidr {cidr}`",
                    self.own.name, self.own.name
                );
                self.refuse(self.own.name.as_str(), Some(cidr), "not_allocated", detail);
            }
        }
    }

    fn take_static(&mut self, peer: &StaticPeer) {
        let subject = peer.name.as_str();
        if peer.name == self.own.name || self.mesh.peers.contains_key(&peer.name) {
            return self.refuse(subject, None, "duplicate_name", format!("two static peers are called {}", peer.name));
        }
        if let Some(other) = self.keys.get(&peer.public_key) {
            let detail = format!("{} has the same public key", other.clone());
            return self.refuse(subject, None, "duplicate_key", detail);
        }
        self.keys.insert(peer.public_key, peer.name.clone());
        let cidrs = self.take_ranges(&peer.name, &peer.cidrs);
        let addresses = self.take_addresses(&peer.name, &peer.addresses);
        let spec = PeerSpec {
            name: peer.name.clone(),
            origin: Origin::Static,
            public_key: peer.public_key,
            endpoints: peer.endpoint.into_iter().collect(),
            addresses,
            cidrs,
            mtu: peer.mtu,
            preshared_key: peer.preshared_key.clone(),
            persistent_keepalive: peer.persistent_keepalive,
            features: peer.features.clone(),
        };
        self.mesh.peers.insert(peer.name.clone(), spec);
    }

    /// What was owned stays owned until it is released by name: it counts as an allocation, older than all of the
    /// store's, so that a wiped store takes no prefix from a node that lives.
    fn remember(&mut self, snapshot: &Snapshot) {
        let released: BTreeSet<_> = snapshot.released.iter().map(|gone| (gone.cidr, &gone.node)).collect();
        for (cidr, node) in self.memory.owners.iter().filter(|(cidr, node)| !released.contains(&(**cidr, node))) {
            // Memory is our own and holds no overlaps; if it was tampered with, the first one stays.
            if self.remembered.claim(*cidr, node).is_err() {
                continue;
            }
            self.mesh.ownership.owners.insert(*cidr, node.clone());
            if let Some(address) = granted_address(*cidr, self.cluster) {
                self.claims.grant(address, node);
                continue;
            }
            // Where the configuration now says otherwise, it wins; an allocation of the same prefix reports it.
            if self.check_range(*cidr, node).is_ok() {
                self.granted.entry(node.clone()).or_default().insert(*cidr);
            }
        }
    }

    fn take_allocations(&mut self, allocations: &[Allocation]) {
        let mut ordered: Vec<_> = allocations.iter().collect();
        ordered.sort_by_key(|allocation| (allocation.create_revision, allocation.cidr, allocation.node.clone()));
        for Allocation { cidr, node, .. } in ordered {
            let address = granted_address(*cidr, self.cluster);
            match self.check_remembered(*cidr, node).and_then(|()| self.check_allocation(*cidr, address, node)) {
                Ok(()) => {
                    if address.is_none() {
                        self.granted.entry(node.clone()).or_default().insert(*cidr);
                    }
                    self.mesh.ownership.owners.insert(*cidr, node.clone());
                }
                Err((reason, detail)) => self.refuse(node.as_str(), Some(*cidr), reason, detail),
            }
        }
    }

    fn check_remembered(&self, cidr: IpNet, node: &NodeName) -> Result<(), (&'static str, String)> {
        let Some(owner) = self.remembered.other_holder(cidr, node) else { return Ok(()) };
        let detail = format!(
            "{cidr} belonged to {owner} and was never released: if {owner} is gone for good, \
             run `warren cluster release {owner}`"
        );
        Err(("remembered_owner", detail))
    }

    fn check_allocation(
        &mut self,
        cidr: IpNet,
        address: Option<IpAddr>,
        node: &NodeName,
    ) -> Result<(), (&'static str, String)> {
        match address {
            Some(address) if self.claims.grant(address, node) => Ok(()),
            Some(address) => Err(("overlap", format!("{address} is already granted to another node"))),
            None => self.check_range(cidr, node),
        }
    }

    /// Gives the prefix to the node, if it may have it at all.
    fn check_range(&mut self, cidr: IpNet, node: &NodeName) -> Result<(), (&'static str, String)> {
        if !self.cluster.networks.is_empty() && !self.cluster.networks.iter().any(|network| network.contains(&cidr)) {
            return Err(("outside_network", format!("{cidr} is not inside the cluster network")));
        }
        self.check_free(cidr, node)
    }

    /// As [`Self::check_range`], inside the cluster network or not: a static peer may be a router to somewhere else.
    fn check_free(&mut self, cidr: IpNet, node: &NodeName) -> Result<(), (&'static str, String)> {
        if is_reserved(cidr) {
            return Err(("reserved_range", format!("{cidr} holds addresses that no Pod can have")));
        }
        let mut inside = self.addresses.range(cidr.network()..=cidr.broadcast());
        if let Some((address, owner)) = inside.find(|(_, owner)| *owner != node) {
            return Err(("node_address", format!("{cidr} holds {address}, an address of node {owner}")));
        }
        self.ranges.claim(cidr, node).map_err(|owner| ("overlap", format!("{cidr} overlaps what {owner} owns")))
    }

    fn take_ranges(&mut self, node: &NodeName, cidrs: &BTreeSet<IpNet>) -> BTreeSet<IpNet> {
        let mut taken = BTreeSet::new();
        for cidr in cidrs {
            match self.check_free(*cidr, node) {
                Ok(()) => _ = taken.insert(*cidr),
                Err((reason, detail)) => self.refuse(node.as_str(), Some(*cidr), reason, detail),
            }
        }
        taken
    }

    fn take_addresses(&mut self, node: &NodeName, addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let mut taken = BTreeSet::new();
        for address in addresses {
            match self.check_address(*address, node) {
                Ok(()) => {
                    self.addresses.insert(*address, node.clone());
                    taken.insert(*address);
                }
                Err((reason, detail)) => self.refuse(node.as_str(), Some(IpNet::from(*address)), reason, detail),
            }
        }
        taken
    }

    fn check_address(&self, address: IpAddr, node: &NodeName) -> Result<(), (&'static str, String)> {
        if packet::reserved(address) {
            return Err(("reserved_range", format!("{address} is no address of a node")));
        }
        self.check_grant(address, node)?;
        let memory = self.claims.owner_of_address(address, node, self.memory);
        // The configuration file wins over what was learnt from a store.
        let remembered = memory.filter(|_| !self.is_static(node));
        if let Some(owner) = self.addresses.get(&address).filter(|owner| *owner != node).or(remembered) {
            return Err(("duplicate_address", format!("{address} is an address of {owner}")));
        }
        match self.ranges.holder_of(address).filter(|owner| *owner != node) {
            Some(owner) => Err(("node_address", format!("{address} is inside a prefix of {owner}"))),
            None => Ok(()),
        }
    }

    /// What an administrator says of the address.
    fn check_grant(&self, address: IpAddr, node: &NodeName) -> Result<(), (&'static str, String)> {
        match self.claims.grantee(address) {
            Some(grantee) if grantee != node => {
                Err(("granted_elsewhere", format!("{address} was granted to {grantee}, not to {node}")))
            }
            None if self.own.protected.contains(&address) && !self.is_static(node) => Err((
                "needs_grant",
                format!(
                    "{address} is this host's gateway or registry: if it really is an address of {node}, \
                     run `warren cluster add-node {node} --address {address}`, or make a WarrenBlock of it"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn is_static(&self, node: &NodeName) -> bool {
        !self.claims.is_registered(node)
    }

    fn take_entries(&mut self, entries: &[Entry]) {
        let mut ordered: Vec<_> = entries.iter().collect();
        ordered.sort_by(|a, b| (a.create_revision, &a.key).cmp(&(b.create_revision, &b.key)));
        let mut records = Vec::with_capacity(ordered.len());
        for entry in ordered {
            match Record::parse(&entry.value) {
                Ok(record) if record.name.as_str() == entry.key => {
                    self.claims.learn(record.clone());
                    records.push((entry, record));
                }
                Ok(record) => {
                    let detail = format!("the record names {}, its key another node", record.name);
                    self.refuse(&entry.key, None, "name_mismatch", detail);
                }
                Err(error) => self.refuse(&entry.key, None, error.name(), error.to_string()),
            }
        }
        for (entry, record) in records {
            self.take_record(entry, record);
        }
    }

    /// Who has which key and address, for the time when the store says otherwise.
    fn remember_claims(&mut self) {
        let ownership = &mut self.mesh.ownership;
        for peer in self.mesh.peers.values().filter(|peer| peer.origin == Origin::Registry) {
            ownership.keys.insert(peer.public_key, peer.name.clone());
            ownership.addresses.extend(peer.addresses.iter().map(|address| (*address, peer.name.clone())));
        }
        self.claims.keep_absent(self.memory, ownership);
    }

    fn take_record(&mut self, entry: &Entry, record: Record) {
        if record.name == self.own.name {
            if record.public_key != self.own.public_key {
                let detail =
                    format!("another host publishes itself as {}: give one of the two another name", record.name);
                self.refuse(&entry.key, None, "duplicate_name", detail);
            }
            return;
        }
        if self.mesh.peers.contains_key(&record.name) {
            let detail = "the configuration file has a static peer of this name, which wins".to_owned();
            return self.refuse(&entry.key, None, "duplicate_name", detail);
        }
        let remembered = self.claims.owner_of_key(&record.public_key, &record.name, self.memory);
        if let Some(owner) = self.keys.get(&record.public_key).or(remembered) {
            let reason = if *owner == self.own.name { "own_key" } else { "duplicate_key" };
            let detail = format!("{owner} has the same public key: make a new one on {}", record.name);
            return self.refuse(&entry.key, None, reason, detail);
        }
        self.keys.insert(record.public_key, record.name.clone());
        self.add_record(record);
    }

    fn add_record(&mut self, record: Record) {
        let mut cidrs = BTreeSet::new();
        for cidr in &record.cidrs {
            if self.ranges.holder(*cidr) == Some(&record.name) && !self.is_static_range(*cidr) {
                cidrs.insert(*cidr);
            } else {
                let reason = if is_reserved(*cidr) { "reserved_range" } else { "not_allocated" };
                let detail = format!("{cidr} is not allocated to {}", record.name);
                self.refuse(record.name.as_str(), Some(*cidr), reason, detail);
            }
        }
        let addresses = self.take_addresses(&record.name, &record.addresses);
        let spec = PeerSpec {
            name: record.name.clone(),
            origin: Origin::Registry,
            public_key: record.public_key,
            endpoints: record.endpoints,
            addresses,
            cidrs,
            mtu: Some(record.mtu),
            preshared_key: None,
            persistent_keepalive: None,
            features: record.features,
        };
        self.mesh.peers.insert(record.name, spec);
    }

    /// Whether a packet to this address would be the tunnel's own cargo.
    fn in_overlay(&self, address: IpAddr) -> bool {
        self.ranges.holder_of(address).is_some()
            || self.cluster.networks.iter().any(|network| network.contains(&address))
    }

    /// A prefix that an allocation and a static peer of another name both have never gets here; this is the same name.
    fn is_static_range(&self, cidr: IpNet) -> bool {
        let statics = self.mesh.peers.values().filter(|peer| peer.origin == Origin::Static);
        statics.flat_map(|peer| &peer.cidrs).any(|taken| taken.contains(&cidr) || cidr.contains(taken))
    }

    /// Once all ranges are known: by the routes such a datagram would come back into the tunnel.
    fn refuse_inner_endpoints(&mut self) {
        let mut peers = std::mem::take(&mut self.mesh.peers);
        for (name, peer) in &mut peers {
            let (inside, outside) = peer.endpoints.iter().partition(|endpoint| self.in_overlay(endpoint.ip()));
            peer.endpoints = outside;
            let inside: Vec<SocketAddr> = inside;
            for endpoint in inside {
                let detail = format!("the endpoint {endpoint} is inside the overlay: the tunnel would carry itself");
                self.refuse(name.as_str(), Some(IpNet::from(endpoint.ip())), "endpoint_in_overlay", detail);
            }
        }
        self.mesh.peers = peers;
    }

    fn finish(mut self) -> Mesh {
        self.refuse_inner_endpoints();
        self.mesh.refusals.sort_by(|a, b| (&a.subject, a.cidr, &a.reason).cmp(&(&b.subject, b.cidr, &b.reason)));
        self.mesh.refusals.dedup();
        self.mesh
    }
}

/// 0/0, loopback, link-local, multicast and what contains them.
fn is_reserved(cidr: IpNet) -> bool {
    let ranges = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/96",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
    ];
    cidr.prefix_len() == 0
        || ranges
            .iter()
            .filter_map(|range| range.parse::<IpNet>().ok())
            .any(|range| range.contains(&cidr) || cidr.contains(&range))
}
