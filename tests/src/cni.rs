//! CNIs beneath which the lab runs Warren: the real plugins of Debian where there are some, else fixtures that put on
//! every node what the CNI puts there: devices, addresses, routes, rules with their preferences, marks, sets and chains.
//!
//! What each writes is taken from its own source, which the module names. The lab never runs the CNI's own agent.

pub mod calico;
pub mod cell;
pub mod cilium;
pub mod dns;
pub mod flannel;
pub mod flow;
pub mod kindnet;
pub mod kube_proxy;
pub mod plugin;
pub mod rules;
pub mod table;

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;

use crate::node::gateway;
use crate::{Family, Node, Pod, Settings};
use calico::{Encapsulation, Tunnel};
use cell::Mode;
use cilium::Routing;
use plugin::{Attached, Conflist, HostPort, default_routes, host_local, portmap};

/// One of them, as it is commonly configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cni {
    /// The plugins `bridge`, `host-local` and `portmap`, the real ones; the fabric routes.
    Bridge,
    /// The plugins `ptp`, `host-local` and `portmap`, the real ones; the fabric routes.
    Ptp,
    /// Flannel with its backend `vxlan`.
    FlannelVxlan,
    /// Flannel with its backend `host-gw`.
    FlannelHostGw,
    /// kindnet.
    Kindnet,
    /// Calico with `ipipMode: Always`.
    CalicoIpip,
    /// Calico with `vxlanMode: CrossSubnet`.
    CalicoCrossSubnet,
    /// Calico with BGP and nothing else.
    CalicoBgp,
    /// Cilium with `routingMode: native`, routed by the kernel.
    CiliumNative,
    /// Cilium with `routingMode: tunnel`.
    CiliumTunnel,
}

impl Cni {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Bridge,
        Self::Ptp,
        Self::FlannelVxlan,
        Self::FlannelHostGw,
        Self::Kindnet,
        Self::CalicoIpip,
        Self::CalicoCrossSubnet,
        Self::CalicoBgp,
        Self::CiliumNative,
        Self::CiliumTunnel,
    ];

    /// For a table's row.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge (real)",
            Self::Ptp => "ptp (real)",
            Self::FlannelVxlan => "Flannel vxlan",
            Self::FlannelHostGw => "Flannel host-gw",
            Self::Kindnet => "kindnet",
            Self::CalicoIpip => "Calico IPIP",
            Self::CalicoCrossSubnet => "Calico VXLAN CrossSubnet",
            Self::CalicoBgp => "Calico BGP",
            Self::CiliumNative => "Cilium native",
            Self::CiliumTunnel => "Cilium tunnel",
        }
    }

    /// Whether it can give Pods addresses of this family.
    pub fn speaks(self, family: Family) -> bool {
        self != Self::CalicoIpip || family == Family::V4
    }

    /// Whether it can be beneath Warren in this mode. Cilium's programs wrap Pods' packets before the kernel routes them.
    pub fn suits(self, mode: Mode) -> bool {
        self != Self::CiliumTunnel || mode == Mode::Nodes
    }

    /// Whether it wraps all of the Pods' packets between nodes: then `nodes` mode needs no prefixes.
    pub fn wraps(self) -> bool {
        matches!(self, Self::FlannelVxlan | Self::CalicoIpip | Self::CiliumTunnel)
    }

    /// Whether it masquerades Pods also towards other nodes' Pods: nobody sees their addresses then, with Warren or without.
    pub fn hides_pods(self) -> bool {
        self == Self::Ptp
    }

    fn calico(self) -> Option<Encapsulation> {
        match self {
            Self::CalicoIpip => Some(Encapsulation::Ipip),
            Self::CalicoCrossSubnet => Some(Encapsulation::CrossSubnet),
            Self::CalicoBgp => Some(Encapsulation::Bgp),
            _ => None,
        }
    }

    fn cilium(self) -> Option<Routing> {
        match self {
            Self::CiliumNative => Some(Routing::Native),
            Self::CiliumTunnel => Some(Routing::Tunnel),
            _ => None,
        }
    }

    /// Puts on every node what the CNI's agent puts there; what has to live as long as that.
    #[track_caller]
    pub fn install(self, nodes: &[Node]) -> Vec<Tunnel> {
        let mut tunnels = Vec::new();
        for own in nodes {
            let others: Vec<&Node> = nodes.iter().filter(|other| other.number != own.number).collect();
            match self {
                Self::FlannelVxlan => flannel::install(flannel::Backend::Vxlan, own, &others),
                Self::FlannelHostGw => flannel::install(flannel::Backend::HostGw, own, &others),
                Self::Kindnet => kindnet::install(own, &others),
                _ => {}
            }
            tunnels.extend(self.calico().and_then(|how| calico::install(how, own, &others)));
            if let Some(routing) = self.cilium() {
                cilium::install(routing, own, &others);
            }
            if let Some(conflist) = self.conflist(own) {
                conflist.write(own);
            }
        }
        tunnels
    }

    /// Gives the node a Pod.
    #[track_caller]
    pub fn attach(self, node: &Node, ports: &[HostPort]) -> Pod {
        let pod = match (self.calico(), self.cilium()) {
            (Some(how), _) => calico::attach(how, node),
            (_, Some(routing)) => cilium::attach(routing, node),
            _ => return self.add(node, ports).pod,
        };
        // Behind Calico's plugin, and behind Cilium's with `cni.chainingMode: portmap`.
        if !ports.is_empty() {
            Conflist::new("hostports", [portmap()]).chain(node, &pod, ports);
        }
        pod
    }

    /// The same, with what a runtime needs to take it away again.
    #[track_caller]
    pub fn add(self, node: &Node, ports: &[HostPort]) -> Attached {
        self.conflist(node).expect("its Pods come from plugins").add(node, ports)
    }

    /// The configuration of its plugins, where these are real ones.
    pub fn conflist(self, node: &Node) -> Option<Conflist> {
        let mtu = node.plan().mtu;
        let ipam = host_local(node, &default_routes(node));
        Some(match self {
            Self::Bridge => {
                let bridge = json!({
                    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                    "mtu": mtu, "ipam": ipam,
                });
                Conflist::new("kubenet", [bridge, portmap()])
            }
            Self::Ptp => {
                let ptp = json!({ "type": "ptp", "ipMasq": true, "mtu": mtu, "ipam": ipam });
                Conflist::new("ptp", [ptp, portmap()])
            }
            Self::FlannelVxlan => flannel::conflist(flannel::Backend::Vxlan, node),
            Self::FlannelHostGw => flannel::conflist(flannel::Backend::HostGw, node),
            Self::Kindnet => kindnet::conflist(node),
            _ => return None,
        })
    }

    /// Prefixes that hold a node's Pods, as its peers are told.
    pub fn prefixes(self, node: &Node) -> Vec<IpNet> {
        if self.calico().is_some() { calico::blocks(node) } else { node.cidrs() }
    }

    /// Has an agent take its own prefixes from where this CNI leaves them on the node; else they are listed.
    pub fn source(self, node: &Node, settings: &mut Settings) {
        let source = match self {
            Self::Bridge | Self::Ptp | Self::Kindnet => "cni",
            Self::FlannelVxlan | Self::FlannelHostGw => "flannel",
            _ => {
                settings.list("node", "cidrs", self.prefixes(node));
                return;
            }
        };
        settings.text("node", "cidrs", source).text("node", "cni_dir", node.folder().join("net.d").display()).text(
            "node",
            "flannel_file",
            node.folder().join("subnet.env").display(),
        );
    }

    /// Addresses that a node's host has among its Pods': by these it may be known, and is reached.
    pub fn host_addresses(self, node: &Node) -> Vec<IpAddr> {
        let gateways = node.cidrs().into_iter().map(gateway);
        match self {
            Self::FlannelVxlan => node.cidrs().into_iter().map(flannel::tunnel_address).chain(gateways).collect(),
            Self::Bridge | Self::Ptp | Self::FlannelHostGw | Self::Kindnet => gateways.collect(),
            Self::CalicoIpip | Self::CalicoCrossSubnet => {
                calico::blocks(node).into_iter().map(calico::tunnel_address).collect()
            }
            Self::CiliumNative | Self::CiliumTunnel => node.cidrs().into_iter().map(cilium::router).collect(),
            _ => Vec::new(),
        }
    }
}
