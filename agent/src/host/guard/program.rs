//! What the guard decides at the last hook of traffic control, as a program of classic BPF. Pure.
//!
//! The same as the rules of nftables, for packets that pass these by, with two differences: it also looks behind VLAN
//! tags inside the frame, and a packet between nodes with IPv6 extension headers is exempt for no port.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use warren_overlay::mesh::Enforcement;

use super::super::plan::{node_addresses, overlay_prefixes};
use super::cbpf::{
    A_TO_X, ADD, ADD_X, AND, ANY_BIT, AT_LEAST, AT_LEAST_X, Assembler, EQUAL, Instruction, KIND, LOAD_BYTE, LOAD_HALF,
    LOAD_KIND, LOAD_LENGTH, Label, SET_X, SHIFT_LEFT, SUBTRACT_X, X_TO_A,
};
use super::membership::Prefixes;
use crate::config::Mode;
use crate::host::Desired;

/// Verdicts of `cls_bpf` (include/uapi/linux/pkt_cls.h): whoever comes next decides, and: dropped.
pub(super) const PASS: u32 = u32::MAX;
pub(super) const DROP: u32 = 2;

// Ethernet's types of payload (include/uapi/linux/if_ether.h).
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const VLANS: [u32; 3] = [0x8100, 0x88a8, 0x9100];
/// Where the payload begins behind two, one or no tag inside the frame.
const PAYLOADS: [u32; 3] = [22, 18, 14];
// IP protocol numbers.
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;

/// What is in front of the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// An Ethernet header.
    Ethernet,
    /// Nothing.
    Bare,
}

impl Link {
    /// By the device's type (`ARPHRD_*`, include/uapi/linux/if_arp.h); `None` when packets there look otherwise.
    pub(super) fn of(device_type: u16) -> Option<Self> {
        match device_type {
            // Ethernet, loopback.
            1 | 772 => Some(Self::Ethernet),
            // PPP, raw IP, IPv4 and IPv6 tunnels, SIT, none.
            512 | 519 | 768 | 769 | 776 | 0xfffe => Some(Self::Bare),
            _ => None,
        }
    }
}

/// The program; or how many instructions it would need, when the kernel takes fewer.
pub(super) fn program(desired: &Desired, link: Link) -> Result<Vec<Instruction>, usize> {
    let mut program = Assembler::default();
    let pass = program.end(PASS);
    let drop = program.end(DROP);
    let [v4, v6] = [false, true].map(|v6| Packet { desired, v6, pass, drop }.judged(&mut program));
    match link {
        Link::Ethernet => {
            let framed = ethernet(&mut program, v4, v6, pass);
            headerless(&mut program, [(v4, IPV4, 0x40), (v6, IPV6, 0x60)], framed, pass)
        }
        Link::Bare => bare(&mut program, v4, v6, pass),
    };
    program.finish()
}

/// Finds the IP header behind at most two tags.
fn ethernet(program: &mut Assembler, v4: Label, v6: Label, pass: Label) -> Label {
    PAYLOADS.iter().fold(pass, |tagged, payload| {
        let [v4, v6] = [v4, v6].map(|next| program.then(SET_X, *payload, next));
        let tag = VLANS.iter().fold(pass, |no, vlan| program.branch(EQUAL, *vlan, tagged, no));
        let no = program.branch(EQUAL, IPV6, v6, tag);
        let ip = program.branch(EQUAL, IPV4, v4, no);
        let load = program.then(LOAD_HALF, payload - 2, ip);
        let long_enough = program.then(SET_X, 0, load);
        let compare = program.branch(AT_LEAST, *payload, long_enough, pass);
        program.then(LOAD_LENGTH, 0, compare)
    })
}

/// Is the Ethernet header missing? So the kernel sends what waited for a neighbour on this device although its route is by
/// one without link-layer addresses (`bpf_redirect_neigh` without a next hop, IPv6). Then the packet begins like IP, and
/// the Ethernet type that the kernel holds it for is not where the header would have it.
fn headerless(program: &mut Assembler, versions: [(Label, u32, u32); 2], framed: Label, pass: Label) -> Label {
    let version = |no, (judged, kind, version): (Label, u32, u32)| {
        let missing = program.branch(EQUAL, kind, framed, judged);
        let load = program.then(LOAD_HALF, 12, missing);
        let begins = program.branch(EQUAL, version, load, framed);
        let mask = program.then(AND, 0xf0, begins);
        let load = program.then(LOAD_BYTE, 0, mask);
        program.branch(EQUAL, kind, load, no)
    };
    let kind = versions.into_iter().fold(framed, version);
    let load = program.then(LOAD_KIND, KIND, kind);
    let start = program.then(SET_X, 0, load);
    let long_enough = program.branch(AT_LEAST, 14, start, pass);
    program.then(LOAD_LENGTH, 0, long_enough)
}

fn bare(program: &mut Assembler, v4: Label, v6: Label, pass: Label) -> Label {
    let no = program.branch(EQUAL, 0x60, v6, pass);
    let version = program.branch(EQUAL, 0x40, v4, no);
    let mask = program.then(AND, 0xf0, version);
    let load = program.then(LOAD_BYTE, 0, mask);
    let start = room(program, 1, load, pass);
    program.then(SET_X, 0, start)
}

/// Are there `bytes` from X on? A load beyond the packet's end would let it pass at once.
fn room(program: &mut Assembler, bytes: u32, enough: Label, lacking: Label) -> Label {
    let compare = program.branch(AT_LEAST, bytes, enough, lacking);
    let rest = program.then(SUBTRACT_X, 0, compare);
    let beyond = program.branch(AT_LEAST_X, 0, rest, lacking);
    program.then(LOAD_LENGTH, 0, beyond)
}

/// A packet of one version of IP whose header begins at X.
struct Packet<'a> {
    desired: &'a Desired,
    v6: bool,
    pass: Label,
    drop: Label,
}

#[derive(Clone, Copy)]
enum Field {
    Source,
    Destination,
}

impl Packet<'_> {
    /// In `permissive` only pairs that had a tunnel are held to it.
    fn judged(&self, program: &mut Assembler) -> Label {
        let nodes = self.desired.mode == Mode::Nodes;
        let rest = if nodes { self.between_nodes(program) } else { self.pass };
        let overlay = &overlay_prefixes(self.desired);
        if self.desired.enforcement == Enforcement::Strict {
            return self.either(program, overlay, self.drop, rest);
        }
        let unproven = if nodes { self.either(program, overlay, self.pass, rest) } else { rest };
        self.either(program, &self.desired.proven_cidrs, self.drop, unproven)
    }

    /// Is the source or the destination one of these?
    fn either(&self, program: &mut Assembler, nets: &BTreeSet<IpNet>, yes: Label, no: Label) -> Label {
        let next = self.field(program, nets, Field::Destination, yes, no);
        self.field(program, nets, Field::Source, yes, next)
    }

    fn field(&self, program: &mut Assembler, nets: &BTreeSet<IpNet>, field: Field, yes: Label, no: Label) -> Label {
        let prefixes = Prefixes::of(nets, self.v6);
        if prefixes.is_empty() {
            return no;
        }
        let (at, end) = match (self.v6, field) {
            (false, Field::Source) => (12, 16),
            (false, Field::Destination) => (16, 20),
            (true, Field::Source) => (8, 24),
            (true, Field::Destination) => (24, 40),
        };
        let asked = prefixes.ask(program, at, yes, no);
        room(program, end, asked, no)
    }

    fn between_nodes(&self, program: &mut Assembler) -> Label {
        let nodes = &node_addresses(self.desired);
        let exempt = self.exempt(program);
        let refused = match self.desired.enforcement {
            Enforcement::Strict => exempt,
            Enforcement::Permissive => {
                let proven = self.desired.proven_nodes.iter().map(|address| IpNet::from(*address)).collect();
                self.either(program, &proven, exempt, self.pass)
            }
        };
        let pair = self.field(program, nodes, Field::Destination, refused, self.pass);
        self.field(program, nodes, Field::Source, pair, self.pass)
    }

    /// Our own datagrams, exempt ports, neighbour discovery; everything else is dropped.
    fn exempt(&self, program: &mut Assembler) -> Label {
        let tcp = self.ports(program, None);
        let udp = self.ports(program, Some(self.desired.port));
        if self.v6 {
            let discovery = self.discovery(program);
            let no = program.branch(EQUAL, ICMPV6, discovery, self.drop);
            let no = program.branch(EQUAL, TCP, tcp, no);
            let protocol = program.branch(EQUAL, UDP, udp, no);
            return program.then(LOAD_BYTE, 6, protocol);
        }
        let no = program.branch(EQUAL, TCP, tcp, self.drop);
        let protocol = program.branch(EQUAL, UDP, udp, no);
        let first = program.then(LOAD_BYTE, 9, protocol);
        // Only the first fragment has ports.
        let fragment = program.branch(ANY_BIT, 0x1fff, self.drop, first);
        let load = program.then(LOAD_HALF, 6, fragment);
        // Version 4 and a header of at least five words.
        let too_long = program.branch(AT_LEAST, 0x50, self.drop, load);
        let header = program.branch(AT_LEAST, 0x45, too_long, self.drop);
        program.then(LOAD_BYTE, 0, header)
    }

    fn ports(&self, program: &mut Assembler, own: Option<u16>) -> Label {
        let exempt = self.desired.exempt_ports.iter();
        let destination = exempt.clone().fold(self.drop, |no, range| self.in_range(program, range, no));
        let destination = program.then(LOAD_HALF, 2, destination);
        let source = exempt.fold(destination, |no, range| self.in_range(program, range, no));
        let source = own.map_or(source, |port| program.branch(EQUAL, port.into(), self.pass, source));
        let source = program.then(LOAD_HALF, 0, source);
        self.transport(program, 4, source)
    }

    fn in_range(&self, program: &mut Assembler, range: &RangeInclusive<u16>, no: Label) -> Label {
        let within = program.branch(AT_LEAST, u32::from(*range.end()) + 1, no, self.pass);
        program.branch(AT_LEAST, (*range.start()).into(), within, no)
    }

    /// Without neighbour discovery the underlay itself is dead (RFC 4861): types 133 to 136.
    fn discovery(&self, program: &mut Assembler) -> Label {
        let last = program.branch(AT_LEAST, 137, self.drop, self.pass);
        let first = program.branch(AT_LEAST, 133, last, self.drop);
        let load = program.then(LOAD_BYTE, 0, first);
        self.transport(program, 1, load)
    }

    /// Moves X to the transport header, of which `bytes` must be there.
    fn transport(&self, program: &mut Assembler, bytes: u32, next: Label) -> Label {
        let there = room(program, bytes, next, self.drop);
        let moved = program.then(A_TO_X, 0, there);
        if self.v6 {
            let add = program.then(ADD, 40, moved);
            return program.then(X_TO_A, 0, add);
        }
        let add = program.then(ADD_X, 0, moved);
        let words = program.then(SHIFT_LEFT, 2, add);
        let length = program.then(AND, 0x0f, words);
        program.then(LOAD_BYTE, 0, length)
    }
}

#[cfg(test)]
mod tests;
