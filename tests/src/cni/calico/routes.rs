//! Routes to the other nodes' blocks, by BIRD or by Felix, and the devices of VXLAN.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{Encapsulation, VXLAN, VXLAN_V6, blocks, routed, tunnel_address};
use crate::Node;
use crate::cni::rules::bridge;

/// RTPROT_BIRD, and Felix' own.
pub(super) const BIRD: u8 = 12;
const FELIX: u8 = 80;

/// Routes to every other node's blocks, and a dead end for what is free in the own ones.
#[track_caller]
pub(super) fn install(how: Encapsulation, own: &Node, others: &[&Node]) {
    let protocol = if how == Encapsulation::CrossSubnet { FELIX } else { BIRD };
    let mut lines = String::new();
    for block in blocks(own) {
        let _ = writeln!(lines, "route add blackhole {block} proto {protocol}");
    }
    if how == Encapsulation::CrossSubnet {
        for other in others.iter().filter(|other| routed(own, other)) {
            for address in other.addresses() {
                let hub = if address.is_ipv4() { "10.77.0.254" } else { "fd77::fe" };
                let _ = writeln!(lines, "route add {} via {hub} dev eth0", IpNet::from(address));
            }
        }
    }
    for other in others {
        for (address, block) in other.addresses().into_iter().zip(blocks(other)) {
            let way = match how {
                Encapsulation::Ipip => format!("via {address} dev tunl0 onlink"),
                Encapsulation::CrossSubnet if routed(own, other) => {
                    format!("via {} dev {} onlink", tunnel_address(block), device(block.addr().is_ipv6()))
                }
                Encapsulation::CrossSubnet => format!("via {address} dev eth0 onlink"),
                Encapsulation::Bgp => format!("via {address} dev eth0"),
            };
            let _ = writeln!(lines, "route add {block} {way} proto {protocol}");
        }
    }
    own.namespace().ip_batch(&lines);
}

/// A device for each version of IP, and where the others' are.
#[track_caller]
pub(super) fn vxlan_devices(own: &Node, others: &[&Node]) {
    for (address, block) in own.addresses().into_iter().zip(blocks(own)) {
        let v6 = block.addr().is_ipv6();
        let (name, mtu) = (device(v6), own.plan().mtu - if v6 { VXLAN_V6 } else { VXLAN });
        let mut lines = format!(
            "link add {name} address {} mtu {mtu} type vxlan id 4096 dev eth0 local {address} dstport 4789 nolearning\n\
             addr add {} dev {name}\nlink set {name} up\n",
            mac(own, v6),
            IpNet::from(tunnel_address(block)),
        );
        let mut places = String::new();
        for other in others.iter().filter(|other| routed(own, other)) {
            let pairs = other.addresses().into_iter().zip(blocks(other));
            for (there, block) in pairs.filter(|(_, block)| block.addr().is_ipv6() == v6) {
                let (vtep, mac) = (tunnel_address(block), mac(other, v6));
                let _ = writeln!(lines, "neigh replace {vtep} lladdr {mac} dev {name} nud permanent");
                let _ = writeln!(places, "fdb replace {mac} dev {name} dst {there} self permanent");
            }
        }
        own.namespace().ip_batch(&lines);
        bridge(own, &places);
    }
}

fn device(v6: bool) -> &'static str {
    if v6 { "vxlan-v6.calico" } else { "vxlan.calico" }
}

fn mac(node: &Node, v6: bool) -> String {
    format!("66:77:00:00:0{}:{:02x}", u8::from(v6), node.number)
}
