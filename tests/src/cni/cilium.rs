//! What cilium-agent leaves on a node that routes by the kernel (`endpointRoutes.enabled` and
//! `bpf.hostLegacyRouting`; `pkg/datapath/linux/{node,route}.go`, `linux_defaults`, `pkg/datapath/iptables`): the pair
//! cilium_host and cilium_net, a link `lxc…` for each Pod, rules around the local table, which moves to preference 100,
//! routes of the protocol `kernel`, marks out of 0xf00, and the chains `CILIUM_…`.
//!
//! The programs that Cilium attaches are not here. Neighbours that they answer for are entered by hand; in tunnel mode the
//! routes carry the outer addresses that the programs would set.

mod chains;

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::lab::nodad;
use crate::node::nth;
use crate::{Node, Pod};

/// Bytes that the agent subtracts for a tunnel.
const OVERHEAD: u16 = 50;
/// The last byte of a node's router address, and of its Pod's.
const ROUTER: u8 = 96;
const FIRST: u8 = 10;
/// The host's end of a Pod's link; a hash in reality.
const LINK: &str = "lxc0a1b2c3d4e5f";
const LINK_MAC: &str = "5e:77:00:00:00:01";
const POD_MAC: &str = "5e:77:00:00:00:02";

/// `routingMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// `native`, with `autoDirectNodeRoutes`.
    Native,
    /// `tunnel`, by VXLAN.
    Tunnel,
}

/// Brings a node into the network.
#[track_caller]
pub fn install(routing: Routing, own: &Node, others: &[&Node]) {
    host(own);
    rules(own);
    match routing {
        Routing::Native => native(own, others),
        Routing::Tunnel => tunnel(own, others),
    }
    chains::install(routing, own, others);
}

/// The node's own address among its Pods'.
pub fn router(cidr: IpNet) -> IpAddr {
    nth(cidr, ROUTER)
}

/// Gives the node a Pod, as Cilium's plugin and agent do.
#[track_caller]
pub fn attach(routing: Routing, node: &Node) -> Pod {
    let sandbox = node.sandbox();
    let (name, mtu) = (sandbox.name(), node.plan().mtu);
    let mut outside = format!(
        "link add {LINK} address {LINK_MAC} mtu {mtu} type veth peer name eth0 address {POD_MAC} mtu {mtu} netns {name}\n\
         link set {LINK} up\n"
    );
    let mut inside = String::from("link set eth0 up\n");
    let addresses: Vec<IpAddr> = node.cidrs().into_iter().map(|cidr| nth(cidr, FIRST)).collect();
    for (cidr, address) in node.cidrs().into_iter().zip(&addresses) {
        let (whole, router) = (IpNet::from(*address), router(cidr));
        let _ = writeln!(outside, "route add {whole} dev {LINK} proto kernel scope link");
        let _ = writeln!(outside, "neigh replace {address} lladdr {POD_MAC} dev {LINK} nud permanent");
        let _ = writeln!(inside, "addr add {whole} dev eth0{}", nodad(*address));
        let _ = writeln!(inside, "neigh replace {router} lladdr {LINK_MAC} dev eth0 nud permanent");
        let _ = writeln!(inside, "route add {} dev eth0 scope link", IpNet::from(router));
        let metric = if routing == Routing::Tunnel { format!(" mtu {}", mtu - OVERHEAD) } else { String::new() };
        let _ = writeln!(inside, "route add default via {router} dev eth0{metric}");
    }
    node.namespace().ip_batch(&outside);
    sandbox.ip_batch(&inside);
    node.namespace().sysctl(&format!("net/ipv4/conf/{LINK}/rp_filter"), "0");
    Pod::attached(sandbox, addresses)
}

/// The pair that stands for the host in the cluster's network.
fn host(own: &Node) {
    let mut lines = String::from("link add cilium_host type veth peer name cilium_net\n");
    for cidr in own.cidrs() {
        let router = router(cidr);
        let _ = writeln!(lines, "addr add {} dev cilium_host{}", IpNet::from(router), nodad(router));
    }
    lines.push_str("link set cilium_host up arp off\nlink set cilium_net up arp off\n");
    for cidr in own.cidrs() {
        let router = router(cidr);
        let _ = writeln!(lines, "route add {} dev cilium_host proto kernel scope link", IpNet::from(router));
        let via = if router.is_ipv4() { format!(" via {router}") } else { String::new() };
        let _ = writeln!(lines, "route add {cidr}{via} dev cilium_host proto kernel src {router}");
    }
    own.namespace().ip_batch(&lines);
    for device in ["all", "default", "cilium_host", "cilium_net"] {
        own.namespace().sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0");
    }
}

/// To and from its proxy; what is local is looked up behind these.
fn rules(own: &Node) {
    for (v6, cidr) in own.cidrs().into_iter().map(|cidr| (cidr.addr().is_ipv6(), cidr)) {
        let (family, router) = (if v6 { "-6" } else { "-4" }, router(cidr));
        let via = if v6 { String::new() } else { format!(" via {router}") };
        for line in [
            format!("{family} rule add pref 100 lookup local proto kernel"),
            format!("{family} rule del pref 0 lookup local"),
            format!("{family} rule add pref 9 fwmark 0x200/0xf00 lookup 2004 proto kernel"),
            format!("{family} rule add pref 10 fwmark 0xa00/0xf00 lookup 2005 proto kernel"),
            format!("{family} route add local default dev lo table 2004 proto kernel"),
            format!("{family} route add {} dev cilium_host table 2005 proto kernel scope link", IpNet::from(router)),
            format!("{family} route add default{via} dev cilium_host table 2005 proto kernel"),
        ] {
            own.namespace().ip(&line);
        }
    }
}

/// `autoDirectNodeRoutes`.
fn native(own: &Node, others: &[&Node]) {
    let mut lines = String::new();
    for other in others {
        for (there, cidr) in other.addresses().into_iter().zip(other.cidrs()) {
            let _ = writeln!(lines, "route add {cidr} via {there} dev eth0 proto kernel");
        }
    }
    own.namespace().ip_batch(&lines);
}

/// The device of the tunnel has no addresses of nodes: each packet brings them along. It has the router's, since what is
/// masqueraded towards other nodes leaves by it here, and by cilium_host in reality.
fn tunnel(own: &Node, others: &[&Node]) {
    let mtu = own.plan().mtu;
    let mut lines = format!("link add cilium_vxlan address {} mtu {mtu} type vxlan external dstport 8472\n", mac(own));
    for router in own.cidrs().into_iter().map(router) {
        let _ = writeln!(lines, "addr add {} dev cilium_vxlan{}", IpNet::from(router), nodad(router));
    }
    lines.push_str("link set cilium_vxlan up\n");
    let v6 = own.address().is_ipv6();
    // Datagrams without a sum are not taken from IPv6 (RFC 6935), and by default none is made for a single route's.
    let (encap, sum) = if v6 { ("ip6", " csum") } else { ("ip", "") };
    for other in others {
        for cidr in other.cidrs() {
            let next = router(cidr);
            let _ = writeln!(lines, "neigh replace {next} lladdr {} dev cilium_vxlan nud permanent", mac(other));
            let _ = writeln!(
                lines,
                "route add {cidr} encap {encap} id {} dst {}{sum} via {next} dev cilium_vxlan onlink proto kernel mtu {} src {}",
                own.number,
                other.address(),
                mtu - OVERHEAD,
                source(own, cidr)
            );
        }
    }
    own.namespace().ip_batch(&lines);
}

/// The host's own address towards a prefix of the cluster.
fn source(own: &Node, cidr: IpNet) -> IpAddr {
    let same = |own: &IpNet| own.addr().is_ipv4() == cidr.addr().is_ipv4();
    own.cidrs().into_iter().find(same).map(router).expect("nodes speak the same versions of IP")
}

fn mac(node: &Node) -> String {
    format!("c2:77:00:00:00:{:02x}", node.number)
}
