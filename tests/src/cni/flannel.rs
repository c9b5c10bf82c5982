//! What flanneld leaves on a node, and the bridge that its CNI plugin has made (flannel's `pkg/backend/vxlan`,
//! `pkg/backend/hostgw`, `pkg/trafficmngr/iptables`; its CNI plugin delegates to `bridge` with `host-local`).

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;

use super::plugin::{Conflist, portmap};
use super::rules::{bridge, iptables};
use crate::Node;
use crate::lab::networks;

/// What it subtracts for a VXLAN's headers, also over IPv6, where they have 20 bytes more: there it relies on fragments.
const OVERHEAD: u16 = 50;

/// How flannel connects nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `vxlan`, VNI 1, port 8472.
    Vxlan,
    /// `host-gw`.
    HostGw,
}

/// Brings a node into the network, whose other nodes have these prefixes and addresses.
#[track_caller]
pub fn install(backend: Backend, own: &Node, others: &[&Node]) {
    match backend {
        Backend::Vxlan => vxlan(own, others),
        Backend::HostGw => host_gw(own, others),
    }
    for cidr in own.cidrs() {
        masquerade(own, cidr);
    }
    subnet_env(backend, own);
}

/// The MTU that Pods get.
pub fn mtu(backend: Backend, node: &Node) -> u16 {
    node.plan().mtu - if backend == Backend::Vxlan { OVERHEAD } else { 0 }
}

/// What flannel's plugin hands on to `bridge`, out of `subnet.env`.
pub fn conflist(backend: Backend, node: &Node) -> Conflist {
    let networks = networks(node.plan().overlay);
    let ranges: Vec<_> = node.cidrs().iter().map(|cidr| json!([{ "subnet": cidr.to_string() }])).collect();
    let routes: Vec<_> = networks.iter().map(|network| json!({ "dst": network.to_string() })).collect();
    let delegate = json!({
        "type": "bridge", "bridge": "cni0", "mtu": mtu(backend, node), "ipMasq": false, "isGateway": true,
        "isDefaultGateway": true, "hairpinMode": true,
        "ipam": { "type": "host-local", "dataDir": node.folder().join("ipam"), "ranges": ranges, "routes": routes },
    });
    Conflist::new("cbr0", [delegate, portmap()])
}

/// The address that the node has on its tunnel's device: the first of its subnet.
pub fn tunnel_address(cidr: IpNet) -> IpAddr {
    cidr.network()
}

fn subnet_env(backend: Backend, own: &Node) {
    let mut text = String::new();
    for (cidr, network) in own.cidrs().into_iter().zip(networks(own.plan().overlay)) {
        let name = if cidr.addr().is_ipv4() { "" } else { "IPV6_" };
        let _ = writeln!(text, "FLANNEL_{name}NETWORK={network}");
        let _ = writeln!(text, "FLANNEL_{name}SUBNET={}/{}", crate::node::gateway(cidr), cidr.prefix_len());
    }
    let _ = writeln!(text, "FLANNEL_MTU={}\nFLANNEL_IPMASQ=true", mtu(backend, own));
    std::fs::write(own.folder().join("subnet.env"), text).expect("the node's folder is ours");
}

/// For each version of IP a device with a `/32` of its own, and for each other node a neighbour, where its device is, and
/// a route.
fn vxlan(own: &Node, others: &[&Node]) {
    for (address, cidr) in own.addresses().into_iter().zip(own.cidrs()) {
        let v6 = cidr.addr().is_ipv6();
        let device = if v6 { "flannel-v6.1" } else { "flannel.1" };
        let mut links = format!(
            "link add {device} address {} mtu {} type vxlan id 1 dev eth0 local {address} dstport 8472 nolearning\n",
            mac(own, v6),
            mtu(Backend::Vxlan, own)
        );
        let _ = writeln!(links, "addr add {} dev {device}", IpNet::from(tunnel_address(cidr)));
        let _ = writeln!(links, "link set {device} up");
        let mut places = String::new();
        for other in others {
            let pairs = other.addresses().into_iter().zip(other.cidrs());
            for (there, cidr) in pairs.filter(|(_, cidr)| cidr.addr().is_ipv6() == v6) {
                let (gateway, mac) = (tunnel_address(cidr), mac(other, v6));
                let _ = writeln!(links, "neigh replace {gateway} lladdr {mac} dev {device} nud permanent");
                let _ = writeln!(links, "route replace {cidr} via {gateway} dev {device} onlink");
                let _ = writeln!(places, "fdb replace {mac} dev {device} dst {there} self permanent");
            }
        }
        own.namespace().ip_batch(&links);
        bridge(own, &places);
    }
}

fn mac(node: &Node, v6: bool) -> String {
    format!("0e:77:00:00:0{}:{:02x}", u8::from(v6), node.number)
}

fn host_gw(own: &Node, others: &[&Node]) {
    let mut routes = String::new();
    for other in others {
        for (there, cidr) in other.addresses().into_iter().zip(other.cidrs()) {
            let _ = writeln!(routes, "route replace {cidr} via {there} dev eth0");
        }
    }
    own.namespace().ip_batch(&routes);
}

/// `--ip-masq`, and the rules that let Pods' packets through.
fn masquerade(own: &Node, pods: IpNet) {
    let v6 = pods.addr().is_ipv6();
    let all = networks(own.plan().overlay).into_iter().find(|network| network.contains(&pods)).expect("it is of it");
    let multicast = if v6 { "ff00::/8" } else { "224.0.0.0/4" };
    let why = "-m comment --comment \"flanneld masq\"";
    iptables(
        own,
        v6,
        &format!(
            "*nat\n:FLANNEL-POSTRTG - [0:0]\n\
             -A POSTROUTING {why} -j FLANNEL-POSTRTG\n\
             -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {why} -j RETURN\n\
             -A FLANNEL-POSTRTG -s {pods} -d {all} {why} -j RETURN\n\
             -A FLANNEL-POSTRTG -s {all} -d {pods} {why} -j RETURN\n\
             -A FLANNEL-POSTRTG ! -s {all} -d {pods} {why} -j RETURN\n\
             -A FLANNEL-POSTRTG -s {all} ! -d {multicast} {why} -j MASQUERADE --random-fully\n\
             -A FLANNEL-POSTRTG ! -s {all} -d {all} {why} -j MASQUERADE --random-fully\n\
             COMMIT\n*filter\n:FLANNEL-FWD - [0:0]\n\
             -A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n\
             -A FLANNEL-FWD -s {all} -m comment --comment \"flanneld forward\" -j ACCEPT\n\
             -A FLANNEL-FWD -d {all} -m comment --comment \"flanneld forward\" -j ACCEPT\nCOMMIT\n"
        ),
    );
}
