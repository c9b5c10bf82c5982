//! What the underlay is: its devices, this node's addresses on them, and how large a packet to a peer may be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteMetric};

use super::netlink::{Address, Link, Netlink};
use super::vxlan::{self, VxlanSocket};
use super::{HostError, route};

/// The kernel's own main table.
const MAIN: u32 = 254;
/// Devices that carry somebody's overlay, tunnel or containers. They count only when the default route leads there.
const INNER_KINDS: [&str; 14] = [
    "tun",
    "bridge",
    "wireguard",
    "vxlan",
    "geneve",
    "ipip",
    "sit",
    "gre",
    "ip6tnl",
    "dummy",
    "ifb",
    "macvlan",
    "ipvlan",
    "nlmon",
];

/// What the underlay is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// By name.
    pub devices: BTreeMap<String, UnderlayDevice>,
    /// Where default routes lead.
    pub gateways: BTreeSet<IpAddr>,
    /// Where VXLAN devices of this host take datagrams.
    pub vxlan: BTreeSet<VxlanSocket>,
}

/// One device that leads to other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderlayDevice {
    /// Bytes.
    pub mtu: u16,
    /// This node's addresses there: global, lasting ones.
    pub addresses: BTreeSet<IpAddr>,
}

impl Underlay {
    /// This node's addresses on all of its underlay devices.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.devices.values().flat_map(|device| device.addresses.iter().copied()).collect()
    }
}

/// The named devices, or those with a default route or a global address, containers' and tunnels' devices aside.
pub(super) async fn discover(netlink: &Netlink, names: Option<&BTreeSet<String>>) -> Result<Underlay, HostError> {
    let links = netlink.links().await?;
    if let Some(missing) = names.into_iter().flatten().find(|name| !links.iter().any(|link| link.name == **name)) {
        let known: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
        let known = known.join(", ");
        return Err(HostError::Refused(format!("underlay.devices: there is no device {missing}; there are {known}")));
    }
    let addresses = netlink.addresses(None).await?;
    let defaults = default_routes(netlink).await?;
    let gateways = defaults.iter().flat_map(route::gateways).collect();
    let defaults: BTreeSet<_> = defaults.iter().flat_map(devices).collect();
    let wanted = |link: &&Link| match names {
        Some(names) => names.contains(&link.name),
        None => is_underlay(link, &addresses, &defaults),
    };
    let devices = links.iter().filter(wanted).map(|link| {
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        (link.name.clone(), UnderlayDevice { mtu, addresses: own(link, &addresses) })
    });
    Ok(Underlay { devices: devices.collect(), gateways, vxlan: vxlan::sockets(&links) })
}

async fn default_routes(netlink: &Netlink) -> Result<Vec<RouteMessage>, HostError> {
    let routes = netlink.routes(MAIN).await?;
    Ok(routes.into_iter().filter(|route| route.header.destination_prefix_length == 0).collect())
}

fn devices(route: &RouteMessage) -> Vec<u32> {
    let of = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(of).collect()
}

fn is_underlay(link: &Link, addresses: &[Address], defaults: &BTreeSet<u32>) -> bool {
    if link.loopback || link.controlled || link.kind == "tun" {
        return false;
    }
    if defaults.contains(&link.index) {
        return true;
    }
    // The host's end of a container's veth has no address, or one of host length.
    let veth = link.kind == "veth";
    let global = |address: &&Address| {
        address.device == link.index && is_global(address.net.addr()) && !(veth && is_host(address))
    };
    link.up && !INNER_KINDS.contains(&link.kind.as_str()) && addresses.iter().any(|address| global(&address))
}

/// Addresses of host length beside others are virtual ones, which move between nodes.
fn own(link: &Link, addresses: &[Address]) -> BTreeSet<IpAddr> {
    let usable = |address: &&Address| address.device == link.index && address.lasting && is_global(address.net.addr());
    let usable: Vec<_> = addresses.iter().filter(usable).collect();
    let stays = |address: &&&Address| {
        let v6 = address.net.addr().is_ipv6();
        !is_host(address) || usable.iter().all(|other| other.net.addr().is_ipv6() != v6 || is_host(other))
    };
    usable.iter().filter(stays).map(|address| address.net.addr()).collect()
}

fn is_host(address: &Address) -> bool {
    address.net.prefix_len() == address.net.max_prefix_len()
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !(address.is_loopback() || address.is_link_local() || address.is_unspecified()),
        IpAddr::V6(address) => !(address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified()),
    }
}

/// The MTU of the route to an underlay address: what is configured, never what an ICMP message claimed.
pub(super) async fn path_mtu(netlink: &Netlink, to: IpAddr, port: Option<u16>) -> Result<u16, HostError> {
    let mut query = route::query(to);
    // Our own datagrams pass by our own rules.
    query.attributes.extend([RouteAttribute::IpProto(17)]);
    query.attributes.extend(port.map(RouteAttribute::Sport));
    query.header.flags = RouteFlags::FibMatch;
    let Some(found) = netlink.lookup(query).await? else {
        return Err(HostError::Refused(format!("there is no route to {to}")));
    };
    let metric = found.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) => u16::try_from(*mtu).ok(),
            _ => None,
        }),
        _ => None,
    });
    let links = netlink.links().await?;
    let used = devices(&found);
    let narrowest = links.iter().filter(|link| used.contains(&link.index)).map(|link| link.mtu).min().unwrap_or(1500);
    let narrowest = u16::try_from(narrowest).unwrap_or(u16::MAX);
    Ok(metric.map_or(narrowest, |metric| metric.min(narrowest)))
}
