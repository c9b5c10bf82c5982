//! From the mesh and the configuration to what the host should be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use warren_overlay::mesh::{Cluster, Mesh, PeerSpec};
use warren_overlay::record::NodeName;

use crate::config::{Config, Mode};
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
    let kubernetes = config.asked_server().and_then(crate::config::Kubernetes::url);
    etcd.chain(kubernetes.map(|url| ("kubernetes.server", url))).filter_map(|(key, url)| Some((key, address_of(url)?)))
}

/// These no peer may claim without a grant: whoever had one could keep this node from all it depends on. An API server that
/// is a node of the mesh needs one, where its address is what `kubernetes.server` names.
pub(super) fn protected(config: &Config) -> impl Iterator<Item = IpAddr> + '_ {
    registry_addresses(config).map(|(_, address)| address)
}

/// In mode `nodes`, the way to a registry that is a node of the mesh would lead through the tunnel that needs it, unless
/// its port is exempt.
pub(super) fn registry_tunnelled(config: &Config, peers: &BTreeMap<NodeName, PeerSpec>) -> Option<String> {
    let server = config.asked_server()?.url().filter(|_| config.overlay.mode == Mode::Nodes)?;
    let (address, port) = (address_of(server)?, port_of(server));
    let peer = peers.iter().find(|(_, peer)| peer.addresses.contains(&address)).map(|(name, _)| name)?;
    let exempt = config.overlay.exempt_ports.iter().any(|range| range.contains(&port));
    (!exempt).then(|| {
        format!(
            "the API server {address} is the node {peer}, and its port {port} is not exempt: the tunnel would carry the \
             registry that it depends on; add {port} to overlay.exempt_ports on every node"
        )
    })
}

/// The port in a URL of TLS.
fn port_of(url: &str) -> u16 {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    port.and_then(|(_, port)| port.parse().ok()).unwrap_or(443)
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

    #[test]
    fn a_url_says_its_port_or_means_that_of_tls() {
        for (url, port) in [
            ("https://192.0.2.1:6443", 6443),
            ("https://[fd00::1]:7443/", 7443),
            ("https://[fd00::1]", 443),
            ("https://192.0.2.1/", 443),
        ] {
            assert_eq!(port_of(url), port, "{url}");
        }
    }

    #[test]
    fn what_this_node_depends_on_nobody_claims_and_no_tunnel_carries() {
        let text = "[node]\nname = \"a\"\n[etcd]\nendpoints = [\"https://etcd.example:2379\"]\n";
        let mut config = crate::config::parse(text, std::path::Path::new("w.toml")).unwrap();
        let server = Some("https://192.0.2.1:8443".to_owned());
        config.kubernetes = Some(crate::config::Kubernetes { server, ..Default::default() });
        assert_eq!(protected(&config).collect::<Vec<_>>(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let peers = [("b".parse().unwrap(), peer("192.0.2.1"))].into();
        assert_eq!(registry_tunnelled(&config, &peers), None, "in mode `pods` it is not carried");
        config.overlay.mode = Mode::Nodes;
        assert!(registry_tunnelled(&config, &peers).unwrap().contains("add 8443"));
        assert_eq!(registry_tunnelled(&config, &BTreeMap::new()), None);
        config.overlay.exempt_ports = vec![8000..=9000];
        assert_eq!(registry_tunnelled(&config, &peers), None);
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn an_api_server_that_is_only_asked_for_prefixes_is_depended_on_as_well() {
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "[node]\nname = \"a\"\ncidrs = \"calico\"\n[etcd]\nendpoints = [\"https://192.0.2.9:2379\"]\n\
             [overlay]\nmode = \"nodes\"\n\
             [kubernetes]\nenabled = false\nserver = \"https://10.1.0.1:8443\"\nkubeconfig = {:?}\n",
            kubeconfig.path()
        );
        let parse = |text: &str| crate::config::parse(text, std::path::Path::new("w.toml")).unwrap();
        let config = parse(&text);
        assert!(registry_inside(&config, &["10.0.0.0/8".parse().unwrap()].into()).unwrap().contains("10.1.0.1"));
        assert!(protected(&config).any(|address| address == "10.1.0.1".parse::<IpAddr>().unwrap()));
        let peers = [("b".parse().unwrap(), peer("10.1.0.1"))].into();
        assert!(registry_tunnelled(&config, &peers).unwrap().contains("add 8443"));
        let config = parse(&text.replace("\"calico\"", "[]"));
        assert!(protected(&config).all(|address| address == "192.0.2.9".parse::<IpAddr>().unwrap()), "it is not asked");
    }

    fn peer(address: &str) -> PeerSpec {
        PeerSpec {
            name: "b".parse().unwrap(),
            origin: warren_overlay::mesh::Origin::Registry,
            public_key: warren_crypto::PublicKey::from_bytes([9; 32]),
            endpoints: Vec::new(),
            addresses: [address.parse().unwrap()].into(),
            cidrs: BTreeSet::new(),
            mtu: None,
            preshared_key: None,
            persistent_keepalive: None,
            features: BTreeSet::new(),
        }
    }
}
