//! The program runs in a small machine of its own and is held to a decision that is spelled out once more, slowly.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;

use super::super::cbpf::{JUMP, LOAD_WORD, LONGEST, RETURN};
use super::super::wanted::Wanted;
use super::*;

/// What the kernel does with a packet. A load beyond the packet's end is a verdict of its own: 0.
fn run(program: &[Instruction], packet: &[u8]) -> u32 {
    let kind = packet.get(12..14).map_or(0, |kind| u32::from(kind[0]) << 8 | u32::from(kind[1]));
    run_as(program, packet, kind)
}

/// The same with a packet that the kernel holds for another kind than an Ethernet header says.
fn run_as(program: &[Instruction], packet: &[u8], kind: u32) -> u32 {
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
    loop {
        let Instruction(code, yes, no, k) = program[at];
        let load = |bytes: usize| {
            let from = x.wrapping_add(k) as usize;
            let found = packet.get(from..from + bytes)?;
            Some(found.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        let loaded = match code {
            LOAD_WORD => load(4),
            LOAD_HALF => load(2),
            LOAD_BYTE => load(1),
            LOAD_KIND => Some(kind),
            _ => Some(a),
        };
        let Some(loaded) = loaded else { return 0 };
        a = match code {
            LOAD_LENGTH => packet.len() as u32,
            X_TO_A => x,
            ADD => a.wrapping_add(k),
            ADD_X => a.wrapping_add(x),
            SUBTRACT_X => a.wrapping_sub(x),
            AND => a & k,
            SHIFT_LEFT => a << k,
            _ => loaded,
        };
        let holds = match code {
            RETURN => return k,
            EQUAL => Some(a == k),
            AT_LEAST => Some(a >= k),
            ANY_BIT => Some(a & k != 0),
            AT_LEAST_X => Some(a >= x),
            _ => None,
        };
        x = match code {
            SET_X => k,
            A_TO_X => a,
            _ => x,
        };
        let jump = holds.map_or(0, |holds| if holds { yes } else { no });
        at += 1 + usize::from(jump) + if code == JUMP { k as usize } else { 0 };
    }
}

/// The IP header and what follows, and its version.
fn payload(packet: &[u8], link: Link) -> Option<(bool, &[u8])> {
    if link == Link::Bare {
        return match packet.first()? >> 4 {
            4 => Some((false, packet)),
            6 => Some((true, packet)),
            _ => None,
        };
    }
    for begin in [14, 18, 22] {
        match packet.get(begin - 2..begin)? {
            [0x08, 0x00] => return Some((false, &packet[begin..])),
            [0x86, 0xdd] => return Some((true, &packet[begin..])),
            [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00] => {}
            _ => return None,
        }
    }
    None
}

fn address(v6: bool, header: &[u8], at: [usize; 2]) -> Option<IpAddr> {
    if v6 {
        let bytes: [u8; 16] = header.get(at[1]..at[1] + 16)?.try_into().ok()?;
        return Some(bytes.into());
    }
    let bytes: [u8; 4] = header.get(at[0]..at[0] + 4)?.try_into().ok()?;
    Some(bytes.into())
}

/// Our own datagrams, exempt ports, neighbour discovery.
fn is_exempt(desired: &Desired, v6: bool, header: &[u8]) -> bool {
    let first_fragment = (header[0] >> 4) == 4 && header[0] & 0xf >= 5 && header[6] & 0x1f == 0 && header[7] == 0;
    if !v6 && !first_fragment {
        return false;
    }
    let (protocol, begin) = if v6 { (header[6], 40) } else { (header[9], usize::from(header[0] & 0xf) * 4) };
    let Some(transport) = header.get(begin..) else { return false };
    if v6 && protocol == 58 {
        return transport.first().is_some_and(|kind| (133..=136).contains(kind));
    }
    let Some(&[a, b, c, d]) = transport.get(..4) else { return false };
    let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let port = desired.exempt_ports.iter().any(|range| range.contains(&source) || range.contains(&destination));
    matches!(protocol, 6 | 17) && (port || protocol == 17 && source == desired.port)
}

/// Naively: is it dropped?
fn is_dropped(desired: &Desired, packet: &[u8], link: Link) -> bool {
    let Some((v6, header)) = payload(packet, link) else { return false };
    let source = address(v6, header, [12, 8]);
    let destination = address(v6, header, [16, 24]);
    let either = |nets: &BTreeSet<IpNet>| {
        [source, destination].iter().flatten().any(|address| nets.iter().any(|net| net.contains(address)))
    };
    if either(&desired.proven_cidrs) && desired.enforcement == Enforcement::Permissive {
        return true;
    }
    if either(&overlay_prefixes(desired)) {
        return desired.enforcement == Enforcement::Strict;
    }
    let (Some(source), Some(destination)) = (source, destination) else { return false };
    let is_node = |address: &IpAddr| node_addresses(desired).contains(&IpNet::from(*address));
    if desired.mode != Mode::Nodes || !is_node(&source) || !is_node(&destination) {
        return false;
    }
    let proven = [source, destination].iter().any(|address| desired.proven_nodes.contains(address));
    let held = desired.enforcement == Enforcement::Strict || proven;
    held && !is_exempt(desired, v6, header)
}

fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u16>(), 9_u8..=32).prop_map(|(bits, length)| {
        IpNet::new([10, (bits >> 8) as u8 & 3, bits as u8 & 0x8f, 1].into(), length).unwrap().trunc()
    });
    let v6 = (any::<u16>(), 20_u8..=128).prop_map(|(bits, length)| {
        let [a, b] = bits.to_be_bytes();
        let address = [0xfd, a & 3, 0, b & 3, 0, 0, a & 1, 0, 0, 0, 0, b & 1, 0, 0, 0, 1];
        IpNet::new(address.into(), length).unwrap().trunc()
    });
    prop_oneof![v4, v6]
}

/// Addresses at and beside the borders of a network.
fn borders(net: &IpNet) -> Vec<IpAddr> {
    let beside = |address: IpAddr, up: bool| match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            IpAddr::from(if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) }.to_be_bytes())
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            IpAddr::from(if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) }.to_be_bytes())
        }
    };
    vec![net.network(), net.broadcast(), beside(net.network(), false), beside(net.broadcast(), true)]
}

fn host() -> impl Strategy<Value = IpAddr> {
    net().prop_map(|net| net.addr())
}

prop_compose! {
    fn desired()(
        sets in [btree_set(net(), 0..6), btree_set(net(), 0..6), btree_set(net(), 0..6)],
        hosts in [btree_set(host(), 0..6), btree_set(host(), 0..6), btree_set(host(), 0..6)],
        strict in any::<bool>(),
        nodes in any::<bool>(),
        exempt_ports in vec((0_u16..70, 0_u16..9).prop_map(|(first, more)| first..=first + more), 0..4),
    ) -> Desired {
        let [networks, local_cidrs, proven_cidrs] = sets;
        let [node_addresses, peers, proven_nodes] = hosts;
        Desired {
            device: "warren0".into(),
            mtu: 1420,
            node_addresses,
            overlay_addresses: BTreeSet::new(),
            local_cidrs,
            remote_cidrs: BTreeMap::new(),
            peer_addresses: peers.into_iter().map(|address| (address, 1420)).collect(),
            networks,
            proven_cidrs,
            proven_nodes,
            enforcement: if strict { Enforcement::Strict } else { Enforcement::Permissive },
            mode: if nodes { Mode::Nodes } else { Mode::Pods },
            port: 44,
            underlay_devices: BTreeSet::new(),
            rule_priority: 90,
            table: 51840,
            mark: 0x10,
            exempt_ports,
        }
    }
}

/// Everybody whose packets could matter.
fn concerned(desired: &Desired) -> Vec<IpAddr> {
    let nets = [overlay_prefixes(desired), node_addresses(desired), desired.proven_cidrs.clone()];
    let strangers = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x20; 16])];
    nets.iter().flatten().flat_map(borders).chain(strangers).chain(desired.proven_nodes.iter().copied()).collect()
}

/// Whatever is not an address.
#[derive(Clone, Debug)]
struct Rest {
    tags: Vec<[u8; 4]>,
    first: u8,
    fragment: u16,
    protocol: u8,
    ports: [u16; 2],
    cut: Option<Index>,
    lie: bool,
}

prop_compose! {
    fn rest()(
        tags in vec(select(&[[0x81, 0, 0, 5], [0x88, 0xa8, 0, 6], [0x91, 0, 0, 7]]), 0..4),
        first in prop_oneof![4 => Just(0x45), 2 => 0x46..0x50_u8, 1 => any::<u8>()],
        fragment in prop_oneof![4 => Just(0_u16), 1 => Just(0x2000), 1 => Just(0x4000), 1 => any::<u16>()],
        protocol in prop_oneof![6 => select(&[6_u8, 17, 58]), 1 => any::<u8>()],
        ports in (0_u16..80, prop_oneof![0_u16..80, 0x8400_u16..0x8900]),
        swap in any::<bool>(),
        cut in proptest::option::of(any::<Index>()),
        lie in proptest::bool::weighted(0.05),
    ) -> Rest {
        let ports = if swap { [ports.1, ports.0] } else { ports.into() };
        Rest { tags, first, fragment, protocol, ports, cut, lie }
    }
}

fn packet(from: IpAddr, to: IpAddr, rest: &Rest, link: Link) -> Vec<u8> {
    let mut packet = Vec::new();
    let v6 = from.is_ipv6() != rest.lie;
    if link == Link::Ethernet {
        packet.extend([2; 12]);
        packet.extend(rest.tags.iter().flatten());
        packet.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    }
    let ip = packet.len();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([rest.first, 0, 0, 0, 0, 0]);
            packet.extend(rest.fragment.to_be_bytes());
            packet.extend([64, rest.protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.resize(ip + usize::from(rest.first & 0xf).max(5) * 4, 0);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0, 0, 0, rest.protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => return packet,
    }
    packet.extend(rest.ports.iter().flat_map(|port| port.to_be_bytes()));
    packet.extend([0; 8]);
    packet.truncate(rest.cut.map_or(packet.len(), |cut| cut.index(packet.len())));
    packet
}

fn agrees(desired: &Desired, program: &[Instruction], packet: &[u8], link: Link) {
    let verdict = run(program, packet);
    let wanted = if is_dropped(desired, packet, link) { DROP } else { PASS };
    assert_eq!(verdict, wanted, "{packet:02x?} on {link:?} with {desired:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_program_decides_as_the_rules_say_whatever_the_packet(
        desired in desired(),
        packets in vec((any::<Index>(), any::<Index>(), rest()), 1..40),
        noise in vec(any::<u8>(), 0..60),
        ethernet in any::<bool>(),
    ) {
        let link = if ethernet { Link::Ethernet } else { Link::Bare };
        let program = program(&desired, link).unwrap();
        let addresses = concerned(&desired);
        for (from, to, rest) in packets {
            let from = *from.get(&addresses);
            let same: Vec<_> = addresses.iter().filter(|to| to.is_ipv4() == from.is_ipv4()).collect();
            agrees(&desired, &program, &packet(from, **to.get(&same), &rest, link), link);
        }
        agrees(&desired, &program, &noise, link);
    }

    #[test]
    fn a_packet_that_goes_without_its_ethernet_header_is_decided_on_alike(
        desired in desired(),
        packets in vec((any::<Index>(), any::<Index>(), rest()), 1..40),
    ) {
        let program = program(&desired, Link::Ethernet).unwrap();
        let addresses = concerned(&desired);
        for (from, to, rest) in packets {
            let from = *from.get(&addresses);
            let same: Vec<_> = addresses.iter().filter(|to| to.is_ipv4() == from.is_ipv4()).collect();
            let packet = packet(from, **to.get(&same), &rest, Link::Bare);
            let Some((v6, _)) = payload(&packet, Link::Bare) else { continue };
            let wanted = if is_dropped(&desired, &packet, Link::Bare) { DROP } else { PASS };
            prop_assert_eq!(run_as(&program, &packet, if v6 { IPV6 } else { IPV4 }), wanted, "{:02x?}", packet);
        }
    }
}

/// So many of everything that conditional jumps do not reach.
fn crowded() -> Desired {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut desired = desired().new_tree(&mut runner).unwrap().current();
    let scattered = |seed: u32, n: u32| (0..n).map(move |i| (i + 1).wrapping_mul(seed));
    let v4 = |bits: u32| IpAddr::from(bits.to_be_bytes());
    let v6 = |bits: u32| IpAddr::from((u128::from(bits) << 70 | u128::from(bits)).to_be_bytes());
    desired.mode = Mode::Nodes;
    desired.node_addresses = scattered(0x9e37_79b1, 70).flat_map(|bits| [v4(bits), v6(bits)]).collect();
    let cidrs = scattered(0x85eb_ca6b, 60);
    let cidrs =
        cidrs.flat_map(|bits| [IpNet::new(v4(bits), 27).unwrap().trunc(), IpNet::new(v6(bits), 77).unwrap().trunc()]);
    desired.networks = cidrs.collect();
    desired
}

#[test]
fn a_crowded_cluster_is_decided_on_alike_although_jumps_are_short() {
    for enforcement in [Enforcement::Strict, Enforcement::Permissive] {
        let mut desired = crowded();
        desired.enforcement = enforcement;
        desired.proven_nodes = desired.node_addresses.iter().copied().step_by(2).collect();
        desired.proven_cidrs = desired.networks.iter().copied().step_by(2).collect();
        let program = program(&desired, Link::Ethernet).unwrap();
        assert!(program.len() > 4 * 255, "{}", program.len());
        let plain = Rest { tags: vec![], first: 0x45, fragment: 0, protocol: 17, ports: [9, 9], cut: None, lie: false };
        let addresses = concerned(&desired);
        for (from, to) in
            addresses.iter().zip(addresses.iter().cycle().skip(3)).filter(|(a, b)| a.is_ipv4() == b.is_ipv4())
        {
            agrees(&desired, &program, &packet(*from, *to, &plain, Link::Ethernet), Link::Ethernet);
        }
    }
}

#[test]
fn what_does_not_fit_the_kernel_is_left_out_by_name_and_the_rest_stays() {
    let mut desired = crowded();
    assert!(desired.networks.len() > 100);
    let wanted = Wanted::of(&desired, Vec::new());
    assert_eq!(wanted.gap, None);
    desired.enforcement = Enforcement::Strict;
    desired.node_addresses = (1..4000_u32).map(|i| IpAddr::from(i.wrapping_mul(0x9e37_79b1).to_be_bytes())).collect();
    let wanted = Wanted::of(&desired, Vec::new());
    let gap = wanted.gap.as_deref().unwrap();
    assert!(gap.contains("traffic between nodes") && gap.contains("4000"), "{gap}");
    let program = wanted.program(1).unwrap();
    assert!(!program.is_empty() && program.len() <= LONGEST);
    let plain = Rest { tags: vec![], first: 0x45, fragment: 0, protocol: 17, ports: [9, 9], cut: None, lie: false };
    let pod = desired.networks.iter().find(|net| net.addr().is_ipv4()).unwrap().addr();
    let out = packet(pod, IpAddr::from([192, 0, 2, 1]), &plain, Link::Ethernet);
    assert_eq!(run(program, &out), DROP, "the overlay is guarded all the same");
    desired.local_cidrs = desired.node_addresses.iter().map(|address| IpNet::from(*address)).collect();
    let gap = Wanted::of(&desired, Vec::new()).gap.unwrap();
    assert!(gap.contains("outside of the cluster network"), "{gap}");
    desired.networks = desired.local_cidrs.clone();
    let wanted = Wanted::of(&desired, Vec::new());
    assert!(wanted.gap.unwrap().contains("does not see anything"));
}

#[test]
fn the_usual_program_is_short() {
    let mut desired = crowded();
    desired.mode = Mode::Pods;
    desired.enforcement = Enforcement::Strict;
    desired.networks = ["10.42.0.0/16", "fd42::/48"].map(|net| net.parse().unwrap()).into();
    (desired.local_cidrs, desired.proven_cidrs) = Default::default();
    let program = program(&desired, Link::Ethernet).unwrap();
    assert!(program.len() < 100, "{}", program.len());
}

#[test]
fn a_device_whose_packets_begin_with_something_else_has_no_program() {
    assert_eq!(Link::of(1), Some(Link::Ethernet));
    assert_eq!(Link::of(0xfffe), Some(Link::Bare));
    assert_eq!(Link::of(32), None, "InfiniBand");
}
