//! Is an address in one of these prefixes? As a decision tree over its 32-bit words. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::cbpf::{AT_LEAST, Assembler, EQUAL, LOAD_WORD, Label};

/// Single values that are asked for one after the other before the tree splits.
const CHAIN: usize = 8;

/// Prefixes of one family that do not overlap, in order: bits from the left, and length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefixes(Vec<(u128, u8)>);

impl Prefixes {
    pub(super) fn of(nets: &BTreeSet<IpNet>, v6: bool) -> Self {
        let mut prefixes: Vec<_> =
            aggregate(nets, v6).iter().map(|net| (bits(net.network()), net.prefix_len())).collect();
        prefixes.sort_unstable();
        Self(prefixes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks for the address at X + `at`.
    pub(super) fn ask(&self, program: &mut Assembler, at: u32, yes: Label, no: Label) -> Label {
        level(program, &self.0, at, 0, yes, no)
    }
}

/// The same addresses in as few prefixes of one family as possible.
pub(super) fn aggregate(nets: &BTreeSet<IpNet>, v6: bool) -> Vec<IpNet> {
    if v6 {
        let nets: Vec<_> =
            nets.iter().filter_map(|net| if let IpNet::V6(net) = net { Some(*net) } else { None }).collect();
        return Ipv6Net::aggregate(&nets).into_iter().map(IpNet::from).collect();
    }
    let nets: Vec<_> = nets.iter().filter_map(|net| if let IpNet::V4(net) = net { Some(*net) } else { None }).collect();
    Ipv4Net::aggregate(&nets).into_iter().map(IpNet::from).collect()
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// One word of the address; prefixes that are longer go on with the next one.
fn level(program: &mut Assembler, prefixes: &[(u128, u8)], at: u32, index: u32, yes: Label, no: Label) -> Label {
    if prefixes.is_empty() {
        return no;
    }
    let word = |bits: u128| (bits >> (96 - 32 * index)) as u32;
    let longer = |length: u8| u32::from(length) > 32 * (index + 1);
    let mut steps = vec![(0, no)];
    for same in prefixes.chunk_by(|one, other| word(one.0) == word(other.0) && longer(one.1) && longer(other.1)) {
        let Some(&(bits, length)) = same.first() else { continue };
        if longer(length) {
            let next = level(program, same, at, index + 1, yes, no);
            step(&mut steps, word(bits), word(bits), next, no);
        } else {
            let host = u32::MAX.checked_shr(u32::from(length) - 32 * index).unwrap_or(0);
            step(&mut steps, word(bits), word(bits) | host, yes, no);
        }
    }
    let start = tree(program, &steps, no);
    program.then(LOAD_WORD, at + 4 * index, start)
}

/// From `first` to `last` something else than before and after.
fn step(steps: &mut Vec<(u32, Label)>, first: u32, last: u32, label: Label, no: Label) {
    if steps.last().is_some_and(|(from, _)| *from == first) {
        steps.pop();
    }
    steps.push((first, label));
    steps.extend(last.checked_add(1).map(|after| (after, no)));
}

/// Goes where the step leads in which A lies.
fn tree(program: &mut Assembler, steps: &[(u32, Label)], no: Label) -> Label {
    if let [(_, label)] = steps {
        return *label;
    }
    if is_chain(steps, no) {
        let points = steps.iter().rev().filter(|(_, label)| *label != no);
        return points.fold(no, |next, (value, label)| program.branch(EQUAL, *value, *label, next));
    }
    let middle = steps.len() / 2;
    // Split in a gap, so that the halves may become chains.
    let middle = if steps[middle].1 != no && middle + 1 < steps.len() { middle + 1 } else { middle };
    let (below, above) = steps.split_at(middle);
    let above = tree(program, above, no);
    let below = tree(program, below, no);
    program.branch(AT_LEAST, steps[middle].0, above, below)
}

/// A few single values with gaps around each.
fn is_chain(steps: &[(u32, Label)], no: Label) -> bool {
    let gap = |step: Option<&(u32, Label)>| step.is_some_and(|(_, label)| *label == no);
    let single = |pair: &[(u32, Label)]| pair[0].1 == no || pair[1].0 - pair[0].0 == 1;
    steps.len() <= 2 * CHAIN + 1 && gap(steps.first()) && gap(steps.last()) && steps.windows(2).all(single)
}
