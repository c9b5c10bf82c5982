//! Which addresses are in use on this host: those of its devices, and those of Pods that a CNI put behind a device each, with a
//! route of its own. Reads only.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::HostError;
use super::netlink::Netlink;
use super::route::{gateways, ip};

// rtnetlink.h: RT_TABLE_MAIN.
const MAIN: u32 = 254;

/// All of them but those on the device `own`.
pub(super) async fn used(netlink: &Netlink, own: &str) -> Result<BTreeSet<IpAddr>, HostError> {
    let own = netlink.link(own).await?.map(|link| link.index);
    let addresses = netlink.addresses(None).await?;
    let local = addresses.iter().filter(|address| Some(address.device) != own && !address.is_link_local());
    let mut used: BTreeSet<_> = local.map(|address| address.net.addr()).collect();
    used.extend(netlink.routes(MAIN).await?.iter().filter_map(pod));
    Ok(used)
}

/// The address behind a device of this host. What has a gateway is behind another node.
fn pod(route: &RouteMessage) -> Option<IpAddr> {
    let whole = if route.header.address_family == AddressFamily::Inet6 { 128 } else { 32 };
    let is_here = route.header.kind == RouteType::Unicast && gateways(route).is_empty();
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    to.filter(|_| is_here && route.header.destination_prefix_length == whole)
}
