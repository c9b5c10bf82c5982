//! Which of this node's addresses its peers accept. In Kubernetes the record has those alone that the Node shows
//! (`status.addresses`): what is left out is the host's own all the same, and every device stays guarded, but no peer takes
//! a packet from there. Reads what stands in the store; publishes nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use warren_overlay::record::Record;

use super::Control;
use crate::config::Mode;

impl Control {
    /// The node's addresses on the underlay, as its peers know them.
    pub(super) fn accepted_addresses(&self) -> BTreeSet<IpAddr> {
        match self.published_addresses() {
            Some(published) => accepted(&self.node_addresses, &published),
            None => self.node_addresses.clone(),
        }
    }

    /// What peers do not know, for want of the Node's word.
    pub(super) fn left_out(&self) -> BTreeSet<IpAddr> {
        let published = self.published_addresses();
        published.map(|published| &self.own().addresses - &published).unwrap_or_default()
    }

    /// What keeps traffic from being carried that should be.
    pub(super) fn left_out_problem(&self) -> Option<String> {
        let nodes = self.config.overlay.mode == Mode::Nodes;
        let mut missed = self.left_out();
        missed.retain(|address| nodes || self.config.overlay.address.contains(address));
        (!missed.is_empty()).then(|| {
            format!(
                "the Node does not show {} (status.addresses), so peers do not know it as this node's: what they send there \
                 is neither carried nor guarded, what is sent from there they refuse; have the kubelet show it (--node-ip), \
                 or list in node.addresses those that are meant",
                listed(&missed)
            )
        })
    }

    /// Those of its own record in the API server, if it is its own; other registries have all.
    fn published_addresses(&self) -> Option<BTreeSet<IpAddr>> {
        self.config.kubernetes.as_ref()?;
        let entries = &self.snapshot.as_ref()?.entries;
        let own = entries.iter().find(|entry| entry.key == self.config.node.name.as_str())?;
        let record = Record::parse(&own.value).ok()?;
        (record.public_key == self.public_key).then_some(record.addresses)
    }
}

/// None of them is better than the others where peers know none.
fn accepted(own: &BTreeSet<IpAddr>, published: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    if own.is_disjoint(published) { own.clone() } else { own & published }
}

/// For people.
pub(super) fn listed(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_speaks_from_the_addresses_that_peers_know() {
        let own = set(&["192.0.2.1", "198.51.100.1"]);
        assert_eq!(accepted(&own, &set(&["198.51.100.1", "203.0.113.1"])), set(&["198.51.100.1"]));
        assert_eq!(accepted(&own, &set(&[])), own);
    }
}
