//! A route of ours, and how the kernel spells it.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};

use super::rule::PROTOCOL;

/// Metric of routes into the device.
pub(super) const TUNNEL_METRIC: u32 = 1024;
/// Metric of the routes that stay when the device goes, and then end the way.
pub(super) const DEAD_END_METRIC: u32 = 65_535;

/// One route. The order of the fields is the order of writing: dead ends come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) kind: Kind,
    pub(super) table: u32,
    pub(super) to: IpNet,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Nowhere, with an ICMP error.
    DeadEnd,
    /// Into the device.
    Tunnel {
        /// The source that this host itself uses.
        source: Option<IpAddr>,
        /// MTU of the path, bytes.
        mtu: Option<u16>,
    },
}

impl Route {
    pub(super) fn dead_end(table: u32, to: IpNet) -> Self {
        Self { kind: Kind::DeadEnd, table, to }
    }

    /// True when the two cannot stand side by side: one replaces the other.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.table == other.table && self.to == other.to && self.metric() == other.metric()
    }

    fn metric(&self) -> u32 {
        match self.kind {
            Kind::DeadEnd => DEAD_END_METRIC,
            Kind::Tunnel { .. } => TUNNEL_METRIC,
        }
    }

    pub(super) fn message(&self, device: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.to);
        message.header.protocol = RouteProtocol::Other(PROTOCOL);
        message.header.destination_prefix_length = self.to.prefix_len();
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        attributes.push(RouteAttribute::Priority(self.metric()));
        attributes.push(RouteAttribute::Destination(self.to.network().into()));
        message.header.kind = match self.kind {
            Kind::DeadEnd => RouteType::Unreachable,
            Kind::Tunnel { source, mtu } => {
                attributes.push(RouteAttribute::Oif(device));
                attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
                attributes.extend(mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu.into())])));
                message.header.scope =
                    if self.to.network().is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
                RouteType::Unicast
            }
        };
        message
    }

    /// `None` for what cannot be ours.
    pub(super) fn parse(message: &RouteMessage, device: Option<u32>) -> Option<Self> {
        let mut priority = 0;
        let (mut to, mut source, mut mtu, mut oif) = (None, None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Priority(value) => priority = *value,
                RouteAttribute::Destination(address) => to = ip(address),
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::Oif(index) => oif = Some(*index),
                RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(path_mtu),
                RouteAttribute::Gateway(_) | RouteAttribute::MultiPath(_) => return None,
                _ => {}
            }
        }
        let kind = match (message.header.kind, priority) {
            (RouteType::Unreachable, DEAD_END_METRIC) => Kind::DeadEnd,
            (RouteType::Unicast, TUNNEL_METRIC) if oif == device => Kind::Tunnel { source, mtu },
            _ => return None,
        };
        let any = if message.header.address_family == AddressFamily::Inet6 { [0; 16].into() } else { [0; 4].into() };
        let to = IpNet::new(to.unwrap_or(any), message.header.destination_prefix_length).ok()?;
        Some(Self { kind, table: table(message), to })
    }
}

fn family(net: IpNet) -> AddressFamily {
    if net.network().is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn path_mtu(metric: &RouteMetric) -> Option<u16> {
    match metric {
        RouteMetric::Mtu(mtu) => u16::try_from(*mtu).ok(),
        _ => None,
    }
}

/// The address in an attribute.
pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The next hops of a route.
pub(super) fn gateways(message: &RouteMessage) -> Vec<IpAddr> {
    let next_hops = |attributes: &[RouteAttribute]| -> Vec<IpAddr> {
        let gateway = |attribute: &RouteAttribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            _ => None,
        };
        attributes.iter().filter_map(gateway).collect()
    };
    let several = message.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let hops = several.flatten().flat_map(|hop| next_hops(&hop.attributes));
    next_hops(&message.attributes).into_iter().chain(hops).collect()
}

/// The table that a route is in.
pub(super) fn table(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| u32::from(message.header.table))
}

/// The question which way a packet to `to` would go.
pub(super) fn query(to: IpAddr) -> RouteMessage {
    let net = IpNet::from(to);
    let mut message = RouteMessage::default();
    message.header.address_family = family(net);
    message.header.destination_prefix_length = net.prefix_len();
    message.attributes.push(RouteAttribute::Destination(to.into()));
    message
}

/// The same for a packet from `source` that comes in by the device `input`.
pub(super) fn query_forwarded(to: IpAddr, source: IpAddr, input: u32) -> RouteMessage {
    let mut message = query(to);
    message.header.source_prefix_length = IpNet::from(source).prefix_len();
    message.attributes.extend([RouteAttribute::Source(source.into()), RouteAttribute::Iif(input)]);
    message
}
