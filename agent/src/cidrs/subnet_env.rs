//! Flannel's `subnet.env`: the node's own subnets among its lines. Pure.

use std::collections::BTreeSet;

use ipnet::IpNet;

/// The keys of the node's own subnets; the value is the subnet's first address with the subnet's length.
const KEYS: [&str; 2] = ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"];

/// The node's subnets.
pub(super) fn prefixes(text: &str) -> Result<BTreeSet<IpNet>, String> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    let own = lines.filter(|(key, value)| KEYS.contains(key) && !value.is_empty());
    let parse = |(key, value): (&str, &str)| match value.parse::<IpNet>() {
        Ok(net) => Ok(net.trunc()),
        Err(_) => Err(format!("{key}={value:?} is no prefix")),
    };
    let cidrs = own.map(parse).collect::<Result<BTreeSet<_>, _>>()?;
    if cidrs.is_empty() {
        return Err(format!("names no subnet of this node ({})", KEYS.join(", ")));
    }
    Ok(cidrs)
}
