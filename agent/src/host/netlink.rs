//! Reading from and writing to the kernel's routing by rtnetlink. Only what we need, with errors that say what was tried.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::{Handle, IpVersion, LinkMessageBuilder, LinkUnspec};

use super::HostError;
use super::route::Route;
use super::rule::Rule;
use super::vxlan::Vxlan;

// errno-base.h: what the kernel answers for what is not there.
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;

/// A network device.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) loopback: bool,
    /// Part of a bridge, bond or VRF.
    pub(super) controlled: bool,
    /// `tun`, `veth`, `bridge`, ...; empty for hardware.
    pub(super) kind: String,
    /// Where it takes datagrams, if it is a VXLAN.
    pub(super) vxlan: Option<Vxlan>,
}

/// An address on a device.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) device: u32,
    pub(super) net: IpNet,
    /// Neither temporary nor deprecated nor contested.
    pub(super) lasting: bool,
    message: AddressMessage,
}

/// The kernel's routing, by netlink.
#[derive(Clone, Debug)]
pub(super) struct Netlink(pub(super) Handle);

impl Netlink {
    /// Opens a socket; the connection runs as a task on this runtime.
    pub(super) fn open() -> Result<Self, HostError> {
        let opened = rtnetlink::new_connection_with_strict_check();
        let (connection, handle, _) = opened.map_err(|error| HostError::Open { what: "a netlink socket", error })?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    pub(super) async fn link(&self, name: &str) -> Result<Option<Link>, HostError> {
        let found = self.0.link().get().match_name(name).execute().try_next().await;
        Ok(absent_is_none(found, "read the device")?.flatten().map(|message| Link::from(&message)))
    }

    pub(super) async fn links(&self) -> Result<Vec<Link>, HostError> {
        let links: Vec<_> = self.0.link().get().execute().try_collect().await.map_err(refused("list the devices"))?;
        Ok(links.iter().map(Link::from).collect())
    }

    /// Up, with this MTU and, if said, room for so many packets that wait for a worker.
    pub(super) async fn set_link(&self, link: &Link, mtu: u16, queue: Option<u32>) -> Result<(), HostError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().index(link.index).mtu(mtu.into()).up();
        let message = queue.into_iter().fold(message, LinkMessageBuilder::txqueuelen).build();
        self.0.link().set(message).execute().await.map_err(refused("bring the device up"))
    }

    pub(super) async fn delete_link(&self, link: &Link) -> Result<(), HostError> {
        // Its agent may be ending just now, and the device with it.
        let deleted = self.0.link().del(link.index).execute().await;
        tolerate(deleted, &[ENODEV]).map_err(refused("delete the device"))
    }

    /// Every address of the host, or of one device.
    pub(super) async fn addresses(&self, device: Option<u32>) -> Result<Vec<Address>, HostError> {
        let mut request = self.0.address().get();
        if let Some(index) = device {
            request.message_mut().header.index = index;
        }
        let messages: Vec<_> = request.execute().try_collect().await.map_err(refused("list the addresses"))?;
        Ok(messages.into_iter().filter_map(Address::parse).collect())
    }

    /// As a host address without a prefix route; for IPv6 without waiting for duplicates, which cannot be on a TUN.
    pub(super) async fn add_address(&self, device: u32, address: IpAddr) -> Result<(), HostError> {
        let net = IpNet::from(address);
        let mut request = self.0.address().add(device, address, net.prefix_len());
        let flags = AddressFlags::Noprefixroute | AddressFlags::Nodad;
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        let added = request.execute().await;
        tolerate(added, &[EEXIST]).map_err(refused(format!("add the address {net}")))
    }

    pub(super) async fn delete_address(&self, address: Address) -> Result<(), HostError> {
        let doing = format!("delete the address {}", address.net);
        let deleted = self.0.address().del(address.message).execute().await;
        tolerate(deleted, &[EADDRNOTAVAIL]).map_err(refused(doing))
    }

    /// The routes of one table, both families.
    pub(super) async fn routes(&self, table: u32) -> Result<Vec<RouteMessage>, HostError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.attributes.push(RouteAttribute::Table(table));
            let found = self.0.route().get(message).execute().try_collect::<Vec<_>>().await;
            routes.extend(absent_is_none(found, "list the routes")?.unwrap_or_default());
        }
        Ok(routes)
    }

    pub(super) async fn put_route(&self, route: &Route, device: u32) -> Result<(), HostError> {
        let put = self.0.route().add(route.message(device)).replace().execute().await;
        put.map_err(refused(format!("write the route to {} in table {}", route.to, route.table)))
    }

    pub(super) async fn delete_route(&self, message: RouteMessage) -> Result<(), HostError> {
        let deleted = self.0.route().del(message).execute().await;
        tolerate(deleted, &[ESRCH, ENODEV]).map_err(refused("delete a route"))
    }

    /// Every rule of the host, both families.
    pub(super) async fn rules(&self) -> Result<Vec<RuleMessage>, HostError> {
        let mut rules = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let found = self.0.rule().get(version).execute().try_collect::<Vec<_>>().await;
            rules.extend(absent_is_none(found, "list the rules")?.unwrap_or_default());
        }
        Ok(rules)
    }

    pub(super) async fn add_rule(&self, rule: &Rule) -> Result<(), HostError> {
        let mut request = self.0.rule().add();
        *request.message_mut() = rule.message();
        let added = request.execute().await;
        tolerate(added, &[EEXIST]).map_err(refused(format!("add the rule at preference {}", rule.priority)))
    }

    pub(super) async fn delete_rule(&self, message: RuleMessage) -> Result<(), HostError> {
        let deleted = self.0.rule().del(message).execute().await;
        tolerate(deleted, &[ENOENT]).map_err(refused("delete a rule"))
    }

    /// The route that the kernel would take (RTM_GETROUTE); `None` when it would refuse.
    pub(super) async fn lookup(&self, query: RouteMessage) -> Result<Option<RouteMessage>, HostError> {
        match self.0.route().get(query).execute().try_next().await {
            Ok(answer) => Ok(answer),
            Err(rtnetlink::Error::NetlinkError(_)) => Ok(None),
            Err(error) => Err(refused("look up a route")(error)),
        }
    }
}

fn refused(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> HostError {
    let doing = doing.into();
    move |error| HostError::Netlink { doing, detail: detail(&error) }
}

fn detail(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}

fn code(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs(),
        _ => 0,
    }
}

fn tolerate(result: Result<(), rtnetlink::Error>, codes: &[i32]) -> Result<(), rtnetlink::Error> {
    result.or_else(|error| if codes.contains(&code(&error)) { Ok(()) } else { Err(error) })
}

fn absent_is_none<T>(result: Result<T, rtnetlink::Error>, doing: &str) -> Result<Option<T>, HostError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if [ENOENT, ESRCH, ENODEV, EAFNOSUPPORT].contains(&code(&error)) => Ok(None),
        Err(error) => Err(refused(doing)(error)),
    }
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            controlled: false,
            kind: String::new(),
            vxlan: Vxlan::of(message),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.controlled = *index != 0,
                LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind).unwrap_or_default(),
                _ => {}
            }
        }
        link
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

impl Address {
    /// The kernel itself puts IPv6 link-local addresses on a device.
    pub(super) fn is_link_local(&self) -> bool {
        matches!(self.net.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
    }

    fn parse(message: AddressMessage) -> Option<Self> {
        let of = |local: bool| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
        };
        let net = IpNet::new(of(true).or_else(|| of(false))?, message.header.prefix_len).ok()?;
        let flags = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        let passing = AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
        let temporary = net.addr().is_ipv6() && flags.is_some_and(|flags| flags.contains(AddressFlags::Secondary));
        let lasting = !temporary && !flags.is_some_and(|flags| flags.intersects(passing));
        Some(Self { device: message.header.index, net, lasting, message })
    }
}
