//! Where the kernel's VXLAN takes datagrams on this host.

use std::collections::BTreeSet;

use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};

use super::netlink::Link;

/// A UDP socket of the kernel's VXLAN, on all addresses of one version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VxlanSocket {
    /// UDP.
    pub port: u16,
    /// IPv6, or IPv4.
    pub v6: bool,
}

/// What a VXLAN device says of its sockets.
#[derive(Clone, Debug)]
pub(super) struct Vxlan {
    sockets: Vec<VxlanSocket>,
    /// The device beneath; 0 for none.
    lower: u32,
}

impl Vxlan {
    /// Nothing where it is none, or came from another network namespace, where its sockets stayed.
    pub(super) fn of(message: &LinkMessage) -> Option<Self> {
        let moved = message.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
        let infos = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })?;
        infos.iter().filter(|_| !moved).find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(attributes)) => Self::parse(attributes),
            _ => None,
        })
    }

    /// Of both versions where packets say where they go, else of that of the device's addresses (`vxlan_sock_add`,
    /// drivers/net/vxlan/vxlan_core.c).
    fn parse(attributes: &[InfoVxlan]) -> Option<Self> {
        let (mut port, mut lower, mut v6, mut both) = (None, 0, false, false);
        for attribute in attributes {
            match attribute {
                InfoVxlan::Port(value) => port = Some(*value),
                InfoVxlan::Link(index) => lower = *index,
                InfoVxlan::Local6(_) | InfoVxlan::Group6(_) => v6 = true,
                InfoVxlan::CollectMetadata(on) => both = *on,
                _ => {}
            }
        }
        let port = port?;
        let versions = if both { vec![false, true] } else { vec![v6] };
        Some(Self { sockets: versions.into_iter().map(|v6| VxlanSocket { port, v6 }).collect(), lower })
    }
}

/// Those of all devices that are up. One beneath which there is part of a VRF has its sockets there alone.
pub(super) fn sockets(links: &[Link]) -> BTreeSet<VxlanSocket> {
    let is_part = |index: u32| links.iter().any(|link| link.index == index && link.controlled);
    let here = links.iter().filter(|link| link.up).filter_map(|link| link.vxlan.as_ref());
    here.filter(|vxlan| !is_part(vxlan.lower)).flat_map(|vxlan| vxlan.sockets.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::InfoKind;

    use super::*;

    #[test]
    fn a_device_that_was_made_elsewhere_left_its_sockets_there() {
        let mut message = LinkMessage::default();
        let data = InfoData::Vxlan(vec![InfoVxlan::Port(8472)]);
        let info = vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(data)];
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let here = Vxlan::of(&message).map(|vxlan| vxlan.sockets);
        assert_eq!(here, Some(vec![VxlanSocket { port: 8472, v6: false }]));
        message.attributes.push(LinkAttribute::LinkNetNsId(3));
        assert!(Vxlan::of(&message).is_none());
    }
}
