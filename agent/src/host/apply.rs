//! Link, addresses, routes and rules: what is, what should be, and the writes between the two.

use std::collections::BTreeSet;

use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};

use super::netlink::{Link, Netlink};
use super::plan::{self, Plan, TABLES};
use super::route::{Kind, Route};
use super::rule::{self, Action, PROTOCOL, Rule};
use super::{Desired, HostError};

/// Packets that may wait in each queue of the device, as on Ethernet. A TUN has 500 (TUN_READQ_SIZE, drivers/net/tun.c): in
/// the milliseconds that another thread has the core, a flood of small packets fills them, and 2–6 % are lost. Twice the
/// room loses none.
const QUEUE: u32 = 1000;

/// Makes the kernel's routing as `desired` says; gives the number of writes.
///
/// Without the device everything else is still written: rules and dead ends keep the overlay off the underlay.
pub(super) async fn routing(netlink: &Netlink, desired: &Desired) -> Result<u32, HostError> {
    let plan = plan::plan(desired);
    let device = netlink.link(&desired.device).await?;
    let mut writes = 0;
    if let Some(link) = &device {
        writes += bring_up(netlink, link, desired).await?;
        writes += addresses(netlink, link, &plan).await?;
    }
    writes += routes(netlink, device.as_ref(), desired, &plan).await?;
    writes += rules(netlink, &plan).await?;
    match device {
        Some(_) => Ok(writes),
        None => Err(HostError::Device(format!(
            "the device {} does not exist; rules and dead ends are in place, so nothing leaks, and nothing passes",
            desired.device
        ))),
    }
}

async fn bring_up(netlink: &Netlink, link: &Link, desired: &Desired) -> Result<u32, HostError> {
    if link.kind != "tun" {
        let (name, kind) = (&desired.device, &link.kind);
        return Err(HostError::Device(format!("{name} is no TUN but {kind:?}, somebody else's: set overlay.device")));
    }
    if link.up && link.mtu == u32::from(desired.mtu) {
        return Ok(0);
    }
    netlink.set_link(link, desired.mtu, (!link.up).then_some(QUEUE)).await?;
    Ok(1)
}

async fn addresses(netlink: &Netlink, link: &Link, plan: &Plan) -> Result<u32, HostError> {
    let present = netlink.addresses(Some(link.index)).await?;
    let present: Vec<_> = present.into_iter().filter(|address| address.device == link.index).collect();
    let mut writes = 0;
    for wanted in &plan.addresses {
        if !present
            .iter()
            .any(|address| address.net.addr() == *wanted && address.net.prefix_len() == address.net.max_prefix_len())
        {
            netlink.add_address(link.index, *wanted).await?;
            writes += 1;
        }
    }
    for address in present {
        if !plan.addresses.contains(&address.net.addr()) && !address.is_link_local() {
            netlink.delete_address(address).await?;
            writes += 1;
        }
    }
    Ok(writes)
}

async fn routes(netlink: &Netlink, device: Option<&Link>, desired: &Desired, plan: &Plan) -> Result<u32, HostError> {
    let index = device.map(|link| link.index);
    let mut present = BTreeSet::new();
    let mut stale: Vec<(Option<Route>, RouteMessage)> = Vec::new();
    for table in desired.table..desired.table + TABLES {
        for message in netlink.routes(table).await? {
            match Route::parse(&message, index).filter(|route| plan.routes.contains(route)) {
                Some(route) => drop(present.insert(route)),
                None => stale.push((Route::parse(&message, index), message)),
            }
        }
    }
    let possible = |route: &&Route| index.is_some() || route.kind == Kind::DeadEnd;
    let mut writes = 0;
    for route in plan.routes.difference(&present).filter(possible) {
        netlink.put_route(route, index.unwrap_or_default()).await?;
        stale.retain(|(old, _)| !old.as_ref().is_some_and(|old| old.replaces(route)));
        writes += 1;
    }
    for (_, message) in stale.into_iter().filter(|(_, message)| is_ours(message)) {
        netlink.delete_route(message).await?;
        writes += 1;
    }
    Ok(writes)
}

/// True when the route carries our protocol number.
pub(super) fn is_ours(message: &RouteMessage) -> bool {
    message.header.protocol == RouteProtocol::Other(PROTOCOL)
}

async fn rules(netlink: &Netlink, plan: &Plan) -> Result<u32, HostError> {
    let mut present = BTreeSet::new();
    let mut stale = Vec::new();
    let (ours, others): (Vec<_>, Vec<_>) = netlink.rules().await?.into_iter().partition(rule::is_ours);
    let wanted: BTreeSet<_> = plan.rules.iter().filter(|rule| !rule.is_asked_before(&others)).collect();
    for message in ours {
        match Rule::parse(&message).filter(|rule| wanted.contains(rule)) {
            Some(rule) => drop(present.insert(rule)),
            None => stale.push(message),
        }
    }
    let mut missing: Vec<_> = wanted.into_iter().filter(|rule| !present.contains(rule)).collect();
    // A jump to a preference where nothing is yet would be passed over.
    missing.sort_by_key(|rule| rule.action != Action::Nop);
    let writes = missing.len() + stale.len();
    for rule in missing {
        netlink.add_rule(rule).await?;
    }
    for message in stale {
        netlink.delete_rule(message).await?;
    }
    Ok(writes as u32)
}
