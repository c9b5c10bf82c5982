//! What the host should be, spelled out: addresses, routes and rules. Pure.
//!
//! ```text
//! 90  iif lo udp sport PORT                        goto 98       mode `nodes`: our own datagrams never enter the tunnel
//! 90  all                                          lookup local  what is this host's own, where a CNI moved that behind us
//! 91  fwmark MARK/MARK                             lookup T+2    what came in by the device is answered by it
//! 92  to LOCAL             main without its default              the CNI's own routes
//! 93  to LOCAL                                     unreachable   a Pod that is gone
//! 94  all                                          lookup T      remote CIDRs; in `strict` the rest of the network is a dead end
//! 95  from LOCAL                                   lookup T+1    Pod to a peer's node address
//! 96  tcp, udp with an exempt port                 goto 98       mode `nodes`
//! 97  all                                          lookup T+1    mode `nodes`
//! 98  all                                          nop           everybody else's rules go on from here
//! ```
//!
//! Every packet of a Pod is held against them twice, the second time for the way back (fib_validate_source,
//! net/ipv4/fib_frontend.c). One rule with a port makes the kernel dissect each of them beforehand: mode `pods` has none.
//! There peers are sought outside of the overlay alone, and what the one port sends into the device all the same (a peer
//! was heard from inside) the guard refuses; lanes that leave by ports of their own are not told apart. The
//! local table is asked once: who moves its rule while no agent runs has addresses among the Pods out of reach until one does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use warren_overlay::mesh::Enforcement;

use super::Desired;
use super::route::{Kind, Route};
use super::rule::{Action, Match, Rule};
use crate::config::Mode;

/// The kernel's own main table (RT_TABLE_MAIN, include/uapi/linux/rtnetlink.h).
const MAIN: u32 = 254;
/// The kernel's own table of this host's addresses (RT_TABLE_LOCAL). Its rule is the first one, but Cilium moves it to 100.
pub(super) const LOCAL: u32 = 255;
/// IP protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// How many preferences in a row are ours.
pub(super) const PRIORITIES: u32 = 9;
/// How many tables in a row are ours: remote CIDRs, peers' node addresses, answers.
pub(super) const TABLES: u32 = 3;

/// Addresses on the device, routes and rules, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) routes: BTreeSet<Route>,
    pub(super) rules: BTreeSet<Rule>,
}

/// Spells it out.
pub(super) fn plan(desired: &Desired) -> Plan {
    let mut plan = Plan {
        addresses: desired.node_addresses.union(&desired.overlay_addresses).copied().collect(),
        routes: routes(desired),
        rules: BTreeSet::new(),
    };
    for v6 in [false, true].into_iter().filter(|v6| carries(desired, *v6)) {
        plan.rules.extend(rules(desired, v6));
        plan.routes.extend(answers(desired, v6));
    }
    plan
}

/// True when the overlay has anything of this family.
fn carries(desired: &Desired, v6: bool) -> bool {
    let addresses = desired.overlay_addresses.iter().chain(desired.peer_addresses.keys());
    overlay_prefixes(desired).iter().any(|net| net.addr().is_ipv6() == v6)
        || addresses.into_iter().any(|address| address.is_ipv6() == v6)
}

/// Every prefix that must never be seen in clear.
pub(super) fn overlay_prefixes(desired: &Desired) -> BTreeSet<IpNet> {
    let known = desired.networks.iter().chain(&desired.local_cidrs).chain(desired.remote_cidrs.keys());
    known.copied().chain(desired.overlay_addresses.iter().map(|address| IpNet::from(*address))).collect()
}

/// A peer's address inside the cluster network is no underlay address: it belongs to a host without Pods.
pub(super) fn in_overlay(desired: &Desired, address: &IpAddr) -> bool {
    desired.networks.iter().any(|net| net.contains(address))
}

/// The nodes' own addresses on the underlay, as prefixes: this node's, its peers', and those of a proven peer that says no
/// longer that they are its own.
pub(super) fn node_addresses(desired: &Desired) -> BTreeSet<IpNet> {
    let peers = desired.peer_addresses.keys().chain(&desired.proven_nodes);
    let peers = peers.filter(|address| !in_overlay(desired, address));
    peers.chain(&desired.node_addresses).map(|address| IpNet::from(*address)).collect()
}

/// May packets for these never be in clear, also when the device is gone?
fn sealed(desired: &Desired, net: &IpNet) -> bool {
    let proven = desired.proven_cidrs.iter().copied().chain(desired.proven_nodes.iter().copied().map(IpNet::from));
    desired.enforcement == Enforcement::Strict || proven.into_iter().any(|proven| proven.contains(net))
}

fn routes(desired: &Desired) -> BTreeSet<Route> {
    let (table, nodes) = (desired.table, desired.table + 1);
    let mut routes = BTreeSet::new();
    if desired.enforcement == Enforcement::Strict {
        routes.extend(desired.networks.iter().map(|net| Route::dead_end(table, *net)));
    }
    // Also of a proven peer that is gone.
    routes.extend(desired.proven_cidrs.iter().map(|net| Route::dead_end(table, *net)));
    let peers = desired.peer_addresses.iter().filter(|(address, _)| !desired.node_addresses.contains(address));
    let peers = peers
        .map(|(address, mtu)| (if in_overlay(desired, address) { table } else { nodes }, IpNet::from(*address), *mtu));
    let remote = desired.remote_cidrs.iter().map(|(net, mtu)| (table, *net, *mtu));
    for (table, to, mtu) in remote.chain(peers) {
        let kind = Kind::Tunnel { source: source(desired, to.addr().is_ipv6()), mtu: Some(mtu) };
        routes.insert(Route { kind, table, to });
        if sealed(desired, &to) {
            routes.insert(Route::dead_end(table, to));
        }
    }
    routes
}

/// The address that this host itself uses towards the overlay.
fn source(desired: &Desired, v6: bool) -> Option<IpAddr> {
    let candidates = desired.overlay_addresses.iter().chain(&desired.node_addresses);
    candidates.copied().find(|address| address.is_ipv6() == v6)
}

/// The table of those who are answered by the device, whatever their address.
fn answers(desired: &Desired, v6: bool) -> [Route; 2] {
    let table = desired.table + 2;
    let any: IpAddr = if v6 { [0; 16].into() } else { [0; 4].into() };
    let to = IpNet::new_assert(any, 0);
    let tunnel = Kind::Tunnel { source: None, mtu: Some(desired.mtu) };
    [Route { kind: tunnel, table, to }, Route::dead_end(table, to)]
}

fn rules(desired: &Desired, v6: bool) -> Vec<Rule> {
    let base = desired.rule_priority;
    let end = base + PRIORITIES - 1;
    let rule = |offset, matches, action| Rule { priority: base + offset, v6, matches, action };
    let answers = Match { mark: Some(desired.mark), ..Match::default() };
    let mut rules = vec![
        rule(0, Match::default(), Action::Lookup(LOCAL)),
        rule(1, answers, Action::Lookup(desired.table + 2)),
        rule(4, Match::default(), Action::Lookup(desired.table)),
        rule(8, Match::default(), Action::Nop),
    ];
    for net in desired.local_cidrs.iter().filter(|net| net.addr().is_ipv6() == v6) {
        let to = Match { to: Some(*net), ..Match::default() };
        rules.push(rule(2, to.clone(), Action::LookupWithoutDefault(MAIN)));
        rules.push(rule(3, to, Action::Unreachable));
    }
    for from in own_sources(desired).filter(|net| net.addr().is_ipv6() == v6) {
        let from = Match { from: Some(from), ..Match::default() };
        rules.push(rule(5, from, Action::Lookup(desired.table + 1)));
    }
    if desired.mode == Mode::Nodes {
        let own_port = Some((desired.port, desired.port));
        let datagrams = Match { own: true, protocol: Some(UDP), sport: own_port, ..Match::default() };
        rules.push(rule(0, datagrams, Action::Goto(end)));
        let exempt = exemptions(desired).into_iter().map(|matches| rule(6, matches, Action::Goto(end)));
        rules.extend(exempt);
        rules.push(rule(7, Match::default(), Action::Lookup(desired.table + 1)));
    }
    rules
}

/// What is of the overlay on this host: Pods, and the host's own overlay addresses.
fn own_sources(desired: &Desired) -> impl Iterator<Item = IpNet> {
    let addresses = desired.overlay_addresses.iter().map(|address| IpNet::from(*address));
    desired.local_cidrs.iter().copied().chain(addresses)
}

/// Symmetric: the client's side sees the port as destination, the server's side as source.
fn exemptions(desired: &Desired) -> Vec<Match> {
    let mut matches = Vec::new();
    for range in &desired.exempt_ports {
        let ports = Some((*range.start(), *range.end()));
        for protocol in [Some(TCP), Some(UDP)] {
            matches.push(Match { protocol, dport: ports, ..Match::default() });
            matches.push(Match { protocol, sport: ports, ..Match::default() });
        }
    }
    matches
}
