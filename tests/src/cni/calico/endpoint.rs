//! A Pod's link: the CNI plugin's half and Felix' half.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Node;
use crate::lab::nodad;
use crate::namespace::Namespace;

/// The host's end; a hash in reality.
pub(super) const NAME: &str = "cali0a1b2c3d4e5";
/// Every host end has this address, so that Pods can move.
const MAC: &str = "ee:ee:ee:ee:ee:ee";
const GATEWAY: &str = "169.254.1.1";
const GATEWAY_V6: &str = "fe80::ecee:eeff:feee:eeee";

/// Makes the link, and everything that leads to it.
#[track_caller]
pub(super) fn wire(node: &Node, sandbox: &Namespace, addresses: &[IpAddr], mtu: u16) {
    let name = sandbox.name();
    let mut outside = format!(
        "link add {NAME} address {MAC} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}\nlink set {NAME} up\n"
    );
    let mut inside = String::from("link set eth0 up\n");
    for address in addresses {
        let whole = IpNet::from(*address);
        let _ = writeln!(outside, "route add {whole} dev {NAME} scope link");
        let _ = writeln!(inside, "addr add {whole} dev eth0{}", nodad(*address));
        if address.is_ipv4() {
            let _ =
                writeln!(inside, "route add {GATEWAY} dev eth0 scope link\nroute add default via {GATEWAY} dev eth0");
        } else {
            let _ = writeln!(inside, "route add default via {GATEWAY_V6} dev eth0");
        }
    }
    sandbox_first(node, &outside, sandbox, &inside);
    for (key, value) in [
        ("ipv4/conf/{}/rp_filter", "1"),
        ("ipv4/conf/{}/route_localnet", "1"),
        ("ipv4/conf/{}/proxy_arp", "1"),
        ("ipv4/neigh/{}/proxy_delay", "0"),
        ("ipv4/conf/{}/forwarding", "1"),
        ("ipv6/conf/{}/proxy_ndp", "1"),
        ("ipv6/conf/{}/forwarding", "1"),
        ("ipv6/conf/{}/accept_ra", "0"),
    ] {
        node.namespace().sysctl(&format!("net/{}", key.replace("{}", NAME)), value);
    }
}

/// The host's end must be up before the Pod's gateway is a neighbour.
#[track_caller]
fn sandbox_first(node: &Node, outside: &str, sandbox: &Namespace, inside: &str) {
    node.namespace().ip_batch(outside);
    sandbox.ip_batch(inside);
}
