//! The network of a node that has no CNI: `ptp` with addresses from the node's own prefixes. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::chain;

/// Its name, by which it is known to be ours.
pub(super) const NAME: &str = "warren";
/// What it is made of, apart from the gate.
pub(super) const PLUGINS: [&str; 4] = ["ptp", "host-local", "portmap", "firewall"];

/// What the network follows from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// This node's prefixes.
    pub cidrs: BTreeSet<IpNet>,
    /// The cluster's: what is not in there is masqueraded.
    pub networks: BTreeSet<IpNet>,
    /// Of the Pods' interfaces, in bytes.
    pub mtu: u16,
}

/// The configuration; or which prefix is too small, and what to do.
pub(super) fn configuration(network: &Network, gate: bool) -> Result<String, String> {
    let mut ranges = Vec::new();
    for v6 in [false, true] {
        let of_family = network.cidrs.iter().filter(|cidr| cidr.addr().is_ipv6() == v6);
        let set = of_family.map(|cidr| range(cidr, &network.networks)).collect::<Result<Vec<_>, _>>()?;
        if !set.is_empty() {
            ranges.push(set);
        }
    }
    let way = |v6: bool| json!({ "dst": if v6 { "::/0" } else { "0.0.0.0/0" } });
    let has = |v6: bool| network.cidrs.iter().any(|cidr| cidr.addr().is_ipv6() == v6);
    let routes: Vec<Value> = [false, true].into_iter().filter(|v6| has(*v6)).map(way).collect();
    let list = json!({
        "cniVersion": "1.0.0",
        "name": NAME,
        "plugins": [
            {
                "type": "ptp",
                "mtu": network.mtu,
                "ipMasq": true,
                "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
            { "type": "firewall" },
        ],
    });
    let text = format!("{list:#}\n");
    if gate { chain::with_gate(&text) } else { Ok(text) }
}

/// Addresses out of the node's prefix, on the subnet of the whole cluster: `ptp` masquerades what leaves the subnet, and
/// what other nodes' Pods get shall have its true source.
fn range(cidr: &IpNet, networks: &BTreeSet<IpNet>) -> Result<Value, String> {
    let room = cidr.max_prefix_len() - cidr.prefix_len();
    if room < 2 {
        return Err(format!("{cidr} is too small for a gateway and Pods: node.cidrs needs a larger one"));
    }
    let whole = networks.iter().filter(|network| network.contains(cidr)).min_by_key(|network| network.prefix_len());
    let last = match cidr.broadcast() {
        IpAddr::V4(last) => IpAddr::from((last.to_bits() - 1).to_be_bytes()),
        last => last,
    };
    Ok(json!({
        "subnet": whole.unwrap_or(cidr),
        "gateway": nth(cidr, 1),
        "rangeStart": nth(cidr, 2),
        "rangeEnd": last,
    }))
}

fn nth(cidr: &IpNet, n: u8) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(network) => (network.to_bits() + u32::from(n)).to_be_bytes().into(),
        IpAddr::V6(network) => (network.to_bits() + u128::from(n)).to_be_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn pods_get_addresses_of_the_nodes_own_prefixes_and_only_what_leaves_the_cluster_is_masqueraded() {
        let cidrs = nets(&["10.42.1.0/24", "10.42.9.0/30", "fd42:0:0:1::/64"]);
        let network = Network { cidrs, networks: nets(&["10.0.0.0/8", "10.42.0.0/16", "fd42::/48"]), mtu: 1420 };
        let read: Value = serde_json::from_str(&configuration(&network, false).unwrap()).unwrap();
        let ranges = json!([
            [
                { "subnet": "10.0.0.0/8", "gateway": "10.42.1.1", "rangeStart": "10.42.1.2", "rangeEnd": "10.42.1.254" },
                { "subnet": "10.0.0.0/8", "gateway": "10.42.9.1", "rangeStart": "10.42.9.2", "rangeEnd": "10.42.9.2" },
            ],
            [{
                "subnet": "fd42::/48", "gateway": "fd42:0:0:1::1", "rangeStart": "fd42:0:0:1::2",
                "rangeEnd": "fd42::1:ffff:ffff:ffff:ffff",
            }],
        ]);
        assert_eq!(read["plugins"][0]["ipam"]["ranges"], ranges);
        assert_eq!(read["plugins"][0]["mtu"], 1420);
        let alone = Network { networks: BTreeSet::new(), ..network.clone() };
        let read: Value = serde_json::from_str(&configuration(&alone, false).unwrap()).unwrap();
        assert_eq!(read["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.42.1.0/24");
    }

    #[test]
    fn it_is_ours_by_name_and_has_the_gate_where_that_is_wanted() {
        let network = Network { cidrs: nets(&["10.42.1.0/24"]), ..Network::default() };
        for gate in [false, true] {
            let text = configuration(&network, gate).unwrap();
            assert_eq!((chain::name(&text).as_deref(), chain::has_gate(&text)), (Some(NAME), gate));
        }
        let small = Network { cidrs: nets(&["10.42.1.0/31"]), ..Network::default() };
        assert!(configuration(&small, false).unwrap_err().contains("10.42.1.0/31"));
    }
}
