//! What kindnetd leaves on a node (kind's `images/kindnetd/cmd/kindnetd/{cni,routes,masq}.go`): a route to each other
//! node's Pods, the conflist of `ptp` and `portmap`, and a chain that masquerades what leaves the cluster.

use std::fmt::Write as _;

use serde_json::json;

use super::plugin::{Conflist, default_routes, host_local, portmap};
use super::rules::iptables;
use crate::Node;
use crate::lab::networks;

/// Brings a node into the network.
#[track_caller]
pub fn install(own: &Node, others: &[&Node]) {
    let mut routes = String::new();
    for other in others {
        for (there, cidr) in other.addresses().into_iter().zip(other.cidrs()) {
            let _ = writeln!(routes, "route add {cidr} via {there}");
        }
    }
    own.namespace().ip_batch(&routes);
    for network in networks(own.plan().overlay) {
        let what = "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain";
        iptables(
            own,
            network.addr().is_ipv6(),
            &format!(
                "*nat\n:KIND-MASQ-AGENT - [0:0]\n\
                 -A POSTROUTING -m comment --comment \"{what}\" -m addrtype ! --dst-type LOCAL -j KIND-MASQ-AGENT\n\
                 -A KIND-MASQ-AGENT -m comment --comment \"kind-masq-agent: local traffic is not subject to MASQUERADE\" -d {network} -j RETURN\n\
                 -A KIND-MASQ-AGENT -m comment --comment \"kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)\" -j MASQUERADE\n\
                 COMMIT\n"
            ),
        );
    }
}

/// What it writes to `10-kindnet.conflist`.
pub fn conflist(node: &Node) -> Conflist {
    let ipam = host_local(node, &default_routes(node));
    let ptp = json!({ "type": "ptp", "ipMasq": false, "ipam": ipam, "mtu": node.plan().mtu });
    Conflist::new("kindnet", [ptp, portmap()])
}
