//! What Calico's IPAM says of this node (crd.projectcalico.org/v1): the blocks that it has an affinity to, and single addresses
//! of other nodes' blocks that were lent to it. Pure.
//!
//! A lent address stays no prefix of this node: it lies inside of what another node owns, and overlaps are refused to whoever
//! comes second. So it is named instead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use warren_overlay::record::NodeName;

use super::super::object::Object;

/// So many lent addresses are named.
const NAMED: usize = 4;

#[derive(Deserialize)]
struct Affinity {
    state: String,
    node: String,
    cidr: String,
    /// `host` or, for addresses of load balancers, `virtual`; older versions say nothing.
    #[serde(default, rename = "type")]
    kind: String,
    /// A boolean in words.
    #[serde(default)]
    deleted: String,
}

/// The blocks of this node, and what is wrong with others of its affinities.
pub(super) fn blocks<'o>(
    affinities: impl Iterator<Item = &'o Object>,
    node: &NodeName,
) -> (BTreeSet<IpNet>, Vec<String>) {
    let (mut blocks, mut problems) = (BTreeSet::new(), Vec::new());
    for object in affinities {
        match object.spec::<Affinity>() {
            Some(affinity) if affinity.node != node.as_str() || !affinity.stands() => {}
            Some(affinity) => match affinity.cidr.parse::<IpNet>() {
                Ok(block) if block.addr() == block.network() => _ = blocks.insert(block),
                _ => problems.push(damaged(object)),
            },
            // It is named after its node and its block.
            None if object.name.starts_with(&format!("{node}-")) => problems.push(damaged(object)),
            None => {}
        }
    }
    (blocks, problems)
}

impl Affinity {
    /// Calico gives out addresses of it here: neither about to be taken nor about to be given back.
    fn stands(&self) -> bool {
        self.state == "confirmed" && matches!(self.kind.as_str(), "" | "host") && self.deleted != "true"
    }
}

fn damaged(object: &Object) -> String {
    format!("the BlockAffinity {:?} of Calico is damaged and ignored: is its cidr a prefix?", object.name)
}

#[derive(Deserialize)]
struct Block {
    cidr: IpNet,
    affinity: Option<String>,
    #[serde(default)]
    allocations: Vec<Option<usize>>,
    #[serde(default)]
    attributes: Vec<Attributes>,
}

#[derive(Deserialize)]
struct Attributes {
    /// Of whoever uses the address: its node among other things.
    #[serde(default)]
    secondary: Option<BTreeMap<String, String>>,
}

/// Addresses of an IPAMBlock that is not this node's which are in use on this node.
pub(super) fn lent(block: &Value, node: &NodeName) -> Vec<IpAddr> {
    let Some(Ok(block)) = block.get("spec").map(Block::deserialize) else { return Vec::new() };
    if block.affinity.as_deref() == Some(&format!("host:{node}")) {
        return Vec::new();
    }
    let is_here = |allocation: &Option<usize>| {
        let user = allocation.and_then(|at| block.attributes.get(at)).and_then(|of| of.secondary.as_ref());
        user.and_then(|user| user.get("node")).is_some_and(|user| user == node.as_str())
    };
    let ordinals = block.allocations.iter().enumerate().filter(|(_, allocation)| is_here(allocation));
    ordinals.filter_map(|(ordinal, _)| address(block.cidr, ordinal)).collect()
}

/// The address of a block with this number.
fn address(block: IpNet, ordinal: usize) -> Option<IpAddr> {
    let address = match block.network() {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().checked_add(u32::try_from(ordinal).ok()?)?).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().checked_add(ordinal as u128)?).into(),
    };
    block.contains(&address).then_some(address)
}

/// What is lent, and what to do; nothing where nothing is.
pub(super) fn explain(lent: &BTreeSet<IpAddr>) -> Option<String> {
    let named: Vec<_> = lent.iter().take(NAMED).map(ToString::to_string).collect();
    let more = lent.len().checked_sub(NAMED + 1).map(|more| format!(" and {} more", more + 1)).unwrap_or_default();
    (!lent.is_empty()).then(|| {
        format!(
            "Calico lent this node addresses out of other nodes' blocks ({}{more}), and no tunnel carries what these Pods send: \
             forbid that (`calicoctl ipam configure --strictaffinity=true`), give the IP pool more blocks, and make the Pods \
             anew; or use overlay.mode = \"nodes\" with node.cidrs = []",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;
