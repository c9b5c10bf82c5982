//! A policy-routing rule of ours, and how the kernel spells it.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use rtnetlink::packet_route::{AddressFamily, IpProtocol};

use super::plan::LOCAL;

/// Marks rules and routes as written by us (`rtm_protocol`, include/uapi/linux/rtnetlink.h leaves numbers from 4 to users).
pub(super) const PROTOCOL: u8 = 87;

/// One rule. The order of the fields is the order of writing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) priority: u32,
    pub(super) v6: bool,
    pub(super) matches: Match,
    pub(super) action: Action,
}

/// What a rule looks at; nothing set matches everything of its family.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Match {
    pub(super) from: Option<IpNet>,
    pub(super) to: Option<IpNet>,
    /// Only packets that this host itself sends (`iif lo`).
    pub(super) own: bool,
    /// Packets with all of these bits.
    pub(super) mark: Option<u32>,
    /// IP protocol number.
    pub(super) protocol: Option<u8>,
    pub(super) sport: Option<(u16, u16)>,
    pub(super) dport: Option<(u16, u16)>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// Looks into a table.
    Lookup(u32),
    /// Looks into a table and passes over its default routes.
    LookupWithoutDefault(u32),
    /// Ends here, with an ICMP error.
    Unreachable,
    /// Goes on at another preference.
    Goto(u32),
    /// Nothing: where a [`Action::Goto`] lands.
    Nop,
}

impl Rule {
    pub(super) fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
        message.attributes.push(RuleAttribute::Priority(self.priority));
        self.matches.write(&mut message);
        self.action.write(&mut message);
        message
    }

    /// True when this asks the local table alone, and every packet did so by one of these before: the kernel's own rule
    /// stands at 0 unless somebody moved it.
    pub(super) fn is_asked_before(&self, others: &[RuleMessage]) -> bool {
        let others = others.iter().filter(|message| is_for_all(message)).filter_map(Self::parse);
        let same = |other: &Self| (other.v6, other.action) == (self.v6, self.action);
        self.action == Action::Lookup(LOCAL) && others.filter(same).any(|other| other.priority < self.priority)
    }

    /// `None` for what is none of ours, whoever wrote it.
    pub(super) fn parse(message: &RuleMessage) -> Option<Self> {
        let priority = message.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
        Some(Self {
            // The kernel does not say 0 (fib_nl_fill_rule, net/core/fib_rules.c).
            priority: priority.unwrap_or_default(),
            v6: message.header.family == AddressFamily::Inet6,
            matches: Match::read(message)?,
            action: Action::read(message)?,
        })
    }
}

/// True when it has no condition, not even one that we do not know.
fn is_for_all(message: &RuleMessage) -> bool {
    use RuleAttribute::{Priority, Protocol, SuppressPrefixLen, Table};
    let header = &message.header;
    let plain = |attribute: &RuleAttribute| match attribute {
        SuppressPrefixLen(length) => *length == u32::MAX,
        attribute => matches!(attribute, Priority(_) | Protocol(_) | Table(_)),
    };
    (header.src_len, header.dst_len, header.tos) == (0, 0, 0)
        && !header.flags.contains(RuleFlags::Invert)
        && message.attributes.iter().all(plain)
}

/// True when the rule carries our protocol number.
pub(super) fn is_ours(message: &RuleMessage) -> bool {
    message.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
}

impl Match {
    fn write(&self, message: &mut RuleMessage) {
        if let Some(from) = self.from {
            message.header.src_len = from.prefix_len();
            message.attributes.push(RuleAttribute::Source(from.network()));
        }
        if let Some(to) = self.to {
            message.header.dst_len = to.prefix_len();
            message.attributes.push(RuleAttribute::Destination(to.network()));
        }
        if self.own {
            message.attributes.push(RuleAttribute::Iifname("lo".into()));
        }
        if let Some(mark) = self.mark {
            message.attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mark)]);
        }
        if let Some(protocol) = self.protocol {
            message.attributes.push(RuleAttribute::IpProtocol(IpProtocol::from(i32::from(protocol))));
        }
        let range = |(start, end)| RulePortRange { start, end };
        message.attributes.extend(self.sport.map(|ports| RuleAttribute::SourcePortRange(range(ports))));
        message.attributes.extend(self.dport.map(|ports| RuleAttribute::DestinationPortRange(range(ports))));
    }

    fn read(message: &RuleMessage) -> Option<Self> {
        let mut matches = Self::default();
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Source(address) => matches.from = prefix(*address, message.header.src_len),
                RuleAttribute::Destination(address) => matches.to = prefix(*address, message.header.dst_len),
                RuleAttribute::Iifname(name) if name == "lo" => matches.own = true,
                RuleAttribute::FwMark(mark) => matches.mark = Some(*mark),
                RuleAttribute::IpProtocol(protocol) => matches.protocol = u8::try_from(i32::from(*protocol)).ok(),
                RuleAttribute::SourcePortRange(range) => matches.sport = Some((range.start, range.end)),
                RuleAttribute::DestinationPortRange(range) => matches.dport = Some((range.start, range.end)),
                RuleAttribute::Iifname(_) | RuleAttribute::Oifname(_) | RuleAttribute::UidRange(_) => return None,
                _ => {}
            }
        }
        Some(matches)
    }
}

fn prefix(address: IpAddr, length: u8) -> Option<IpNet> {
    IpNet::new(address, length).ok()
}

impl Action {
    fn write(self, message: &mut RuleMessage) {
        let (action, attributes) = match self {
            Self::Lookup(table) => (RuleAction::ToTable, vec![RuleAttribute::Table(table)]),
            Self::LookupWithoutDefault(table) => {
                (RuleAction::ToTable, vec![RuleAttribute::Table(table), RuleAttribute::SuppressPrefixLen(0)])
            }
            Self::Unreachable => (RuleAction::Unreachable, vec![]),
            Self::Goto(priority) => (RuleAction::Goto, vec![RuleAttribute::Goto(priority)]),
            Self::Nop => (RuleAction::Nop, vec![]),
        };
        message.header.action = action;
        message.attributes.extend(attributes);
    }

    fn read(message: &RuleMessage) -> Option<Self> {
        match message.header.action {
            RuleAction::ToTable => {
                let without_default = message.attributes.contains(&RuleAttribute::SuppressPrefixLen(0));
                let table = table(message);
                Some(if without_default { Self::LookupWithoutDefault(table) } else { Self::Lookup(table) })
            }
            RuleAction::Unreachable => Some(Self::Unreachable),
            RuleAction::Goto => message.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Goto(priority) => Some(Self::Goto(*priority)),
                _ => None,
            }),
            RuleAction::Nop => Some(Self::Nop),
            _ => None,
        }
    }
}

/// The table that a rule looks into; the header has room for eight bits of it only.
pub(super) fn table(message: &RuleMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| u32::from(message.header.table))
}
