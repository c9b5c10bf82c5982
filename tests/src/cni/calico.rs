//! What Felix, BIRD and Calico's CNI plugin leave on a node: chains as `felix/rules/{static,endpoints,nat}.go` render them,
//! sets by their names there, routes of the protocols that BIRD and Felix mark theirs with.
//! Marks are those of the default mask 0xffff0000: accept 0x10000, pass 0x20000, scratch 0x40000 and 0x80000.
//!
//! A node has one block of 64 addresses out of each pool. Pod addresses are host routes to `cali…`; the Pod's gateway is
//! 169.254.1.1 or the link-local address that belongs to ee:ee:ee:ee:ee:ee.

mod chains;
mod endpoint;
mod ipip;
mod routes;

use std::net::IpAddr;

use ipnet::IpNet;

pub use ipip::Tunnel;

use crate::node::nth;
use crate::{Node, Pod};

/// Overheads that Felix subtracts.
const IPIP: u16 = 20;
const VXLAN: u16 = 50;
const VXLAN_V6: u16 = 70;
/// The address of a block that its node's tunnel has, the first that a Pod gets, and one that another node's Pod gets.
const TUNNEL: u8 = 1;
const FIRST: u8 = 10;
const BORROWED: u8 = 50;

/// How Calico connects nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// `ipipMode: Always`; IPv4 alone has it.
    Ipip,
    /// `vxlanMode: CrossSubnet`: the third node is behind a router.
    CrossSubnet,
    /// None: BGP routes to blocks.
    Bgp,
}

/// Brings a node into the network; what has to live as long as it does.
#[track_caller]
pub fn install(how: Encapsulation, own: &Node, others: &[&Node]) -> Option<Tunnel> {
    chains::install(how, own, others);
    let tunnel = (how == Encapsulation::Ipip).then(|| Tunnel::start(own, others));
    if how == Encapsulation::CrossSubnet {
        routes::vxlan_devices(own, others);
    }
    routes::install(how, own, others);
    tunnel
}

/// Gives the node a Pod, as the CNI plugin and Felix do.
#[track_caller]
pub fn attach(how: Encapsulation, node: &Node) -> Pod {
    attach_at(how, node, blocks(node).into_iter().map(|block| nth(block, FIRST)).collect())
}

/// Gives the node a Pod with an address out of another node's block, to which every node then has a route of its own.
#[track_caller]
pub fn borrow(how: Encapsulation, node: &Node, lender: &Node, others: &[&Node]) -> Pod {
    let addresses: Vec<IpAddr> = blocks(lender).into_iter().map(|block| nth(block, BORROWED)).collect();
    for (address, via) in addresses.iter().zip(node.addresses()) {
        let line = format!("route add {} via {via} dev eth0 proto {}", IpNet::from(*address), routes::BIRD);
        others.iter().for_each(|other| drop(other.namespace().ip(&line)));
    }
    attach_at(how, node, addresses)
}

#[track_caller]
fn attach_at(how: Encapsulation, node: &Node, addresses: Vec<IpAddr>) -> Pod {
    let sandbox = node.sandbox();
    endpoint::wire(node, &sandbox, &addresses, mtu(how, node));
    chains::endpoint(node, endpoint::NAME);
    Pod::attached(sandbox, addresses)
}

/// The node's blocks: out of what the lab calls its prefixes.
pub fn blocks(node: &Node) -> Vec<IpNet> {
    let block = |cidr: IpNet| IpNet::new_assert(cidr.network(), if cidr.addr().is_ipv4() { 26 } else { 122 });
    node.cidrs().into_iter().map(block).collect()
}

/// The address of a block that the node's tunnel device has.
pub fn tunnel_address(block: IpNet) -> IpAddr {
    nth(block, TUNNEL)
}

/// Of Pods.
fn mtu(how: Encapsulation, node: &Node) -> u16 {
    let overhead = match how {
        Encapsulation::Ipip => IPIP,
        Encapsulation::CrossSubnet if node.plan().overlay.v6() => VXLAN_V6,
        Encapsulation::CrossSubnet => VXLAN,
        Encapsulation::Bgp => 0,
    };
    node.plan().mtu - overhead
}

/// Whether a router is between two nodes.
fn routed(one: &Node, other: &Node) -> bool {
    (one.number == 3) != (other.number == 3)
}
