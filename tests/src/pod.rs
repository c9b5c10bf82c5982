//! A Pod: a namespace behind a node, wired as a CNI would.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::Node;
use crate::lab::{Wiring, nodad};
use crate::namespace::Namespace;
use crate::node::{gateway, nth};

/// A Pod of the lab.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
    addresses: Vec<IpAddr>,
}

/// The namespace of a node's Pod, with nothing in it.
pub(crate) fn sandbox(node: &Node, number: u8) -> Namespace {
    Namespace::create(&format!("{}-pod{number}", node.namespace().name()))
}

impl Pod {
    pub(crate) fn new(node: &Node, number: u8) -> Self {
        let namespace = sandbox(node, number);
        let addresses = node.cidrs().into_iter().map(|cidr| nth(cidr, 9 + number)).collect();
        let pod = Self { namespace, addresses };
        pod.wire(node, &format!("pod{number}"));
        pod
    }

    /// One that somebody else wired: a CNI's plugin.
    pub fn attached(namespace: Namespace, addresses: Vec<IpAddr>) -> Self {
        Self { namespace, addresses }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    fn wire(&self, node: &Node, port: &str) {
        let name = self.namespace.name();
        let mut outside = format!("link add {port} type veth peer name eth0 netns {name}\n");
        let mut inside = String::from("link set eth0 up\n");
        let bridge = node.plan().wiring == Wiring::Bridge;
        if bridge {
            let _ = writeln!(outside, "link set {port} master cni0");
        }
        let _ = writeln!(outside, "link set {port} up");
        for (cidr, address) in node.cidrs().into_iter().zip(&self.addresses) {
            let (gateway, whole) = (gateway(cidr), if address.is_ipv4() { 32 } else { 128 });
            let length = if bridge { cidr.prefix_len() } else { whole };
            let _ = writeln!(inside, "addr add {address}/{length} dev eth0{}", nodad(*address));
            if !bridge {
                let _ = writeln!(outside, "addr add {gateway}/{whole} dev {port}{}", nodad(gateway));
                let _ = writeln!(outside, "route add {address}/{whole} dev {port}");
                let _ = writeln!(inside, "route add {gateway} dev eth0");
            }
            let _ = writeln!(inside, "route add default via {gateway}");
        }
        node.namespace().ip_batch(&outside);
        self.namespace.ip_batch(&inside);
    }
}
