//! From the mesh and the configuration to what the host should be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use warren_overlay::mesh::{Cluster, Mesh, PeerSpec};
use warren_overlay::record::NodeName;

use crate::config::Config;
use crate::host::Desired;
use crate::proven::Proven;

/// IP, UDP and WireGuard headers around an inner packet, in bytes.
pub(super) const fn overhead(v6: bool) -> u16 {
    if v6 { 80 } else { 60 }
}

/// What [`desired`] starts from.
pub(super) struct Facts<'a> {
    pub(super) config: &'a Config,
    pub(super) cluster: &'a Cluster,
    pub(super) mesh: &'a Mesh,
    pub(super) peers: &'a BTreeMap<NodeName, PeerSpec>,
    pub(super) proven: &'a Proven,
    pub(super) node_addresses: &'a BTreeSet<IpAddr>,
    pub(super) underlay_devices: &'a BTreeSet<String>,
    pub(super) mtu: u16,
}

/// A registry's address inside the cluster network: the way to the store would lead through the tunnel that needs the store.
pub(super) fn registry_inside(config: &Config, networks: &BTreeSet<IpNet>) -> Option<String> {
    let inside = registry_addresses(config).filter_map(|(key, address)| {
        let network = networks.iter().find(|network| network.contains(&address))?;
        Some(format!(
            "{key}: {address} is inside the cluster network {network}: the tunnel would carry the registry that it \
             depends on; name an address of it outside of that network"
        ))
    });
    inside.min()
}

/// Where the registry is, as far as it is given by address, and which key says so.
fn registry_addresses(config: &Config) -> impl Iterator<Item = (&'static str, IpAddr)> + '_ {
    let etcd = config.etcd.iter().flat_map(|etcd| &etcd.endpoints).map(|url| ("etcd.endpoints", url));
    let kubernetes = config.kubernetes.iter().filter_map(|kubernetes| kubernetes.server.as_ref());
    etcd.chain(kubernetes.map(|url| ("kubernetes.server", url))).filter_map(|(key, url)| Some((key, address_of(url)?)))
}

/// Which of these no peer may claim without a grant. An API server is often a node of the mesh itself, so its address is
/// not among them: policies of the cluster say which addresses a node may have.
pub(super) fn protected(config: &Config) -> impl Iterator<Item = IpAddr> + '_ {
    registry_addresses(config).filter(|(key, _)| *key == "etcd.endpoints").map(|(_, address)| address)
}

/// The address in a URL; `None` for names, which are not looked up here.
fn address_of(url: &str) -> Option<IpAddr> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.parse().ok()
}

/// What the host should be.
pub(super) fn desired(facts: &Facts<'_>) -> Desired {
    let overlay = &facts.config.overlay;
    let mtu_of = |peer: &PeerSpec| peer.mtu.unwrap_or(facts.mtu).min(facts.mtu);
    let cidrs = |peers: &BTreeMap<NodeName, PeerSpec>| -> BTreeMap<IpNet, u16> {
        peers.values().flat_map(|peer| peer.cidrs.iter().map(move |cidr| (*cidr, mtu_of(peer)))).collect()
    };
    let peer_addresses =
        facts.peers.values().flat_map(|peer| peer.addresses.iter().map(move |address| (*address, mtu_of(peer))));
    Desired {
        device: overlay.device.clone(),
        mtu: facts.mtu,
        node_addresses: facts.node_addresses.clone(),
        overlay_addresses: overlay.address.clone(),
        local_cidrs: facts.mesh.own_cidrs.clone(),
        remote_cidrs: cidrs(facts.peers),
        peer_addresses: peer_addresses.collect(),
        networks: networks(facts),
        proven_cidrs: facts.proven.cidrs(),
        proven_nodes: facts.proven.addresses(),
        enforcement: facts.cluster.enforcement,
        mode: overlay.mode,
        port: facts.config.underlay.port,
        underlay_devices: facts.underlay_devices.clone(),
        rule_priority: overlay.rule_priority,
        table: overlay.table,
        mark: overlay.mark,
        exempt_ports: overlay.exempt_ports.clone(),
    }
}

/// The cluster network; where nobody says what it is, everything known to be in it.
fn networks(facts: &Facts<'_>) -> BTreeSet<IpNet> {
    let known = facts.peers.values().flat_map(|peer| peer.cidrs.iter()).chain(facts.mesh.own_cidrs.iter());
    facts.cluster.networks.iter().chain(known).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_an_address_says_which() {
        for (url, address) in [
            ("http://192.0.2.1:2379", Some("192.0.2.1")),
            ("https://[fd00::1]:2379/", Some("fd00::1")),
            ("https://etcd.example:2379", None),
        ] {
            assert_eq!(address_of(url), address.map(|address| address.parse().unwrap()), "{url}");
        }
    }
}
