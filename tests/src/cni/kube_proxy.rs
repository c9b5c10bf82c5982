//! The rules that kube-proxy writes on a node, in the form of its `nftables`, `iptables` and `ipvs` modes, with and without
//! `--masquerade-all`. Shapes, marks, hooks and priorities are those that its own tests hold it to (Kubernetes'
//! `pkg/proxy/{nftables,iptables}/proxier_test.go`); only the hashes in the chains' names are made up.
//!
//! Of `ipvs` mode all is here but IPVS: the kernels that the lab runs on have none.

pub mod iptables;
pub mod ipvs;
pub mod nftables;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::Node;
use crate::command;

/// In which form the rules are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `--proxy-mode=nftables`.
    Nftables,
    /// `--proxy-mode=iptables`, by the binaries of today, which write to nf_tables.
    Iptables,
    /// `--proxy-mode=iptables`, by `iptables-legacy`.
    IptablesLegacy,
    /// `--proxy-mode=ipvs`, but for IPVS itself.
    Ipvs,
}

/// How kube-proxy was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubeProxy {
    /// Its mode.
    pub form: Form,
    /// `--masquerade-all`: also what Pods send to a cluster address.
    pub masquerade_all: bool,
}

/// A service's port with all its addresses and endpoints of one version of IP; both protocols.
#[derive(Clone, Debug)]
pub struct Service {
    /// `namespace/name`.
    pub name: &'static str,
    /// Its cluster address and port.
    pub cluster: SocketAddr,
    /// Its port on every node.
    pub node_port: Option<u16>,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// Its Pods, each with the number of the node that it is on.
    pub endpoints: Vec<(u8, SocketAddr)>,
}

impl KubeProxy {
    /// Writes the rules for these services on a node.
    #[track_caller]
    pub fn install(self, node: &Node, cluster: &[IpNet], services: &[Service]) {
        for v6 in [false, true] {
            let of = |address: IpAddr| address.is_ipv6() == v6;
            let services: Vec<&Service> = services.iter().filter(|service| of(service.cluster.ip())).collect();
            let Some(cluster) = cluster.iter().find(|net| of(net.addr())) else { continue };
            let place = Place { node, cluster: *cluster, masquerade_all: self.masquerade_all, v6 };
            match self.form {
                Form::Nftables => node.namespace().nft(&nftables::rules(&place, &services)),
                Form::Iptables => restore(&place, "nft", &iptables::rules(&place, &services)),
                Form::IptablesLegacy => restore(&place, "legacy", &iptables::rules(&place, &services)),
                Form::Ipvs => ipvs::install(&place, &services),
            }
        }
    }

    /// For a table's row.
    pub fn name(self) -> &'static str {
        match (self.form, self.masquerade_all) {
            (Form::Nftables, false) => "nftables",
            (Form::Nftables, true) => "nftables, masquerade-all",
            (Form::Iptables, false) => "iptables",
            (Form::Iptables, true) => "iptables, masquerade-all",
            (Form::IptablesLegacy, false) => "iptables-legacy",
            (Form::IptablesLegacy, true) => "iptables-legacy, masquerade-all",
            (Form::Ipvs, false) => "ipvs, but for IPVS",
            (Form::Ipvs, true) => "ipvs, masquerade-all",
        }
    }
}

/// Where rules of one version of IP are written.
#[derive(Debug)]
pub struct Place<'a> {
    /// The node.
    pub node: &'a Node,
    /// `--cluster-cidr`.
    pub cluster: IpNet,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// IPv6.
    pub v6: bool,
}

impl Place<'_> {
    /// The node's own addresses of this version.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.node.addresses().into_iter().filter(|address| address.is_ipv6() == self.v6).collect()
    }

    /// The endpoints that traffic from outside is given to.
    pub fn external_endpoints<'s>(&self, service: &'s Service) -> Vec<&'s SocketAddr> {
        let here = |number: u8| !service.local || number == self.node.number;
        service.endpoints.iter().filter(|(number, _)| here(*number)).map(|(_, address)| address).collect()
    }
}

#[track_caller]
fn restore(place: &Place<'_>, kind: &str, rules: &str) {
    let program = format!("{}-{kind}-restore", if place.v6 { "ip6tables" } else { "iptables" });
    let argv = place.node.namespace().argv(&[&program, "--noflush"]);
    command::checked(&argv, command::feed(&argv, rules));
}
