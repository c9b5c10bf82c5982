//! What nodes claim besides prefixes: public keys and addresses. These need no allocation, so three rules stand against a
//! broken node: what an administrator granted by name is nobody else's, what this host itself depends on (its gateways,
//! its registry) must be granted, and who had something stays its owner for as long as it is there, whatever the store
//! says about the order: a lost lease makes a record young.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use warren_crypto::PublicKey;

use super::{Cluster, Ownership};
use crate::packet;
use crate::record::{NodeName, Record};

/// What stands in the data, as far as claims go.
#[derive(Default)]
pub(super) struct Claims {
    /// Addresses that an administrator gave to a node.
    granted: BTreeMap<IpAddr, NodeName>,
    /// The valid records.
    records: BTreeMap<NodeName, Record>,
}

/// An allocation of a single address outside of the cluster network grants a node address.
pub(super) fn granted_address(cidr: IpNet, cluster: &Cluster) -> Option<IpAddr> {
    let single = cidr.prefix_len() == cidr.max_prefix_len() && !packet::reserved(cidr.addr());
    let outside = !cluster.networks.is_empty() && !cluster.networks.iter().any(|network| network.contains(&cidr));
    (single && outside).then(|| cidr.addr())
}

impl Claims {
    /// First come, first served; true when the address is the node's now.
    pub(super) fn grant(&mut self, address: IpAddr, node: &NodeName) -> bool {
        self.granted.entry(address).or_insert_with(|| node.clone()) == node
    }

    /// Who was given the address.
    pub(super) fn grantee(&self, address: IpAddr) -> Option<&NodeName> {
        self.granted.get(&address)
    }

    pub(super) fn learn(&mut self, record: Record) {
        self.records.insert(record.name.clone(), record);
    }

    pub(super) fn is_registered(&self, node: &NodeName) -> bool {
        self.records.contains_key(node)
    }

    /// Another node that has this key and still says so, or cannot speak for itself.
    pub(super) fn owner_of_key<'m>(
        &self,
        key: &PublicKey,
        node: &NodeName,
        memory: &'m Ownership,
    ) -> Option<&'m NodeName> {
        let owner = memory.keys.get(key).filter(|owner| *owner != node)?;
        self.stands(owner, |record| record.public_key == *key).then_some(owner)
    }

    /// The same for an address.
    pub(super) fn owner_of_address<'m>(
        &self,
        address: IpAddr,
        node: &NodeName,
        memory: &'m Ownership,
    ) -> Option<&'m NodeName> {
        let owner = memory.addresses.get(&address).filter(|owner| *owner != node)?;
        self.stands(owner, |record| record.addresses.contains(&address)).then_some(owner)
    }

    /// Whoever has no record is remembered only while its tunnel lives.
    fn stands(&self, owner: &NodeName, claims: impl Fn(&Record) -> bool) -> bool {
        self.records.get(owner).is_none_or(claims)
    }

    /// What to remember of claims that nobody made this time, since their owner has no record.
    pub(super) fn keep_absent(&self, memory: &Ownership, ownership: &mut Ownership) {
        let absent = |owner: &NodeName| !self.records.contains_key(owner);
        for (key, owner) in memory.keys.iter().filter(|(_, owner)| absent(owner)) {
            ownership.keys.entry(*key).or_insert_with(|| owner.clone());
        }
        for (address, owner) in memory.addresses.iter().filter(|(_, owner)| absent(owner)) {
            ownership.addresses.entry(*address).or_insert_with(|| owner.clone());
        }
    }
}
