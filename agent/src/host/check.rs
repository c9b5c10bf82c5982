//! Whether the kernel really does what our rules and routes ask for: others have rules too.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};

use super::netlink::Netlink;
use super::plan::{PRIORITIES, in_overlay};
use super::{Desired, HostError, route, rule};

/// Asks the kernel; one sentence for each thing that is not as it should be.
pub(super) async fn check(netlink: &Netlink, desired: &Desired) -> Result<Vec<String>, HostError> {
    let Some(device) = netlink.link(&desired.device).await? else {
        return Ok(vec![format!("the device {} does not exist", desired.device)]);
    };
    let mut problems = rules(&netlink.rules().await?, desired);
    let peers = desired.peer_addresses.keys().filter(|address| !in_overlay(desired, address));
    let peers: Vec<_> = peers.copied().collect();
    for cidr in desired.remote_cidrs.keys() {
        let to = sample(*cidr);
        problems.extend(won(netlink, route::query(to), device.index, &format!("this host to {cidr}")).await?);
    }
    for local in &desired.local_cidrs {
        let source = sample(*local);
        let Some(input) = pods(netlink, source, device.index).await? else { continue };
        let cidrs = desired.remote_cidrs.keys().map(|cidr| (sample(*cidr), cidr.to_string()));
        let nodes = peers.iter().map(|address| (*address, address.to_string()));
        for (to, name) in cidrs.chain(nodes).filter(|(to, _)| to.is_ipv6() == source.is_ipv6()) {
            let query = route::query_forwarded(to, source, input);
            problems.extend(won(netlink, query, device.index, &format!("Pods of {local} to {name}")).await?);
        }
    }
    Ok(problems)
}

/// The device behind which this node's Pods are; `None` while there are none.
async fn pods(netlink: &Netlink, pod: IpAddr, own: u32) -> Result<Option<u32>, HostError> {
    let found = netlink.lookup(route::query(pod)).await?;
    Ok(found.as_ref().and_then(device).filter(|index| *index != own && *index != 1))
}

async fn won(netlink: &Netlink, query: RouteMessage, ours: u32, way: &str) -> Result<Option<String>, HostError> {
    Ok(match netlink.lookup(query).await?.as_ref().map(|found| (device(found), found)) {
        Some((Some(index), _)) if index == ours => None,
        Some((other, _)) => {
            let name = name(netlink, other).await?;
            Some(format!("{way} would go by {name} instead of the tunnel: look at `ip rule` for a rule before ours"))
        }
        None => Some(format!("{way} has no way at all: look at `ip rule` for a rule before ours")),
    })
}

async fn name(netlink: &Netlink, index: Option<u32>) -> Result<String, HostError> {
    let links = netlink.links().await?;
    let link = links.into_iter().find(|link| Some(link.index) == index);
    Ok(link.map_or_else(|| "another device".to_owned(), |link| link.name))
}

fn device(found: &RouteMessage) -> Option<u32> {
    found.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// For people: which way the kernel would send a packet of this host to `to`.
pub(super) async fn describe(netlink: &Netlink, to: IpAddr) -> Result<String, HostError> {
    let mut query = route::query(to);
    query.header.flags = RouteFlags::LookupTable;
    let Some(found) = netlink.lookup(query).await? else { return Ok(format!("{to} is unreachable")) };
    let name = name(netlink, device(&found)).await?;
    Ok(format!("{to} dev {name} table {}", route::table(&found)))
}

/// An address of the prefix that hardly is a gateway's.
fn sample(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) if net.prefix_len() <= 29 => IpAddr::V4((u32::from(net.broadcast()) - 2).into()),
        IpNet::V6(net) if net.prefix_len() <= 125 => IpAddr::V6((u128::from(net.broadcast()) - 2).into()),
        net => net.network(),
    }
}

/// Others' rules that are in our place or use our mark bit.
fn rules(rules: &[RuleMessage], desired: &Desired) -> Vec<String> {
    let ours = desired.rule_priority..desired.rule_priority + PRIORITIES;
    let foreign = rules.iter().filter(|message| !rule::is_ours(message));
    let problem = |message: &RuleMessage| {
        let value = |pick: fn(&RuleAttribute) -> Option<u32>| message.attributes.iter().find_map(pick);
        let priority =
            value(|attribute| if let RuleAttribute::Priority(value) = attribute { Some(*value) } else { None })?;
        let mark = value(|attribute| if let RuleAttribute::FwMark(value) = attribute { Some(*value) } else { None });
        let mask = value(|attribute| if let RuleAttribute::FwMask(value) = attribute { Some(*value) } else { None });
        if ours.contains(&priority) {
            return Some(format!(
                "somebody else's rule has preference {priority}, one of ours: set overlay.rule_priority"
            ));
        }
        let bits = mark.filter(|mark| *mark != 0).map(|mark| match mask {
            Some(u32::MAX) | None => mark,
            Some(mask) => mask,
        })?;
        let collides = bits & desired.mark != 0;
        collides.then(|| {
            format!("the rule at preference {priority} uses the mark bit {:#x}, ours: set overlay.mark", desired.mark)
        })
    };
    foreign.filter_map(problem).collect()
}
