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

/// What the affinities say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The blocks of this node.
    pub(super) blocks: BTreeSet<IpNet>,
    /// What it had that is another node's by now, or about to be given back.
    pub(super) lost: BTreeSet<IpNet>,
    /// What is wrong with others of its affinities.
    pub(super) problems: Vec<String>,
}

/// Of all nodes' affinities what concerns this one, which `had` blocks before.
pub(super) fn said<'o>(affinities: impl Iterator<Item = &'o Object>, node: &NodeName, had: &BTreeSet<IpNet>) -> Said {
    let mut said = Said::default();
    for object in affinities {
        match object.spec::<Affinity>() {
            Some(affinity) if affinity.node == node.as_str() => match affinity.block() {
                Some(block) if affinity.stands() => _ = said.blocks.insert(block),
                Some(block) if affinity.goes() => said.lost.extend(had.get(&block)),
                None if affinity.stands() => said.problems.push(damaged(object)),
                _ => {}
            },
            Some(affinity) => {
                let taken = affinity.block().filter(|_| affinity.stands());
                let overlaps = |had: &&IpNet| taken.is_some_and(|taken| taken.contains(*had) || had.contains(&taken));
                said.lost.extend(had.iter().filter(overlaps));
            }
            // It is named after its node and its block.
            None if object.name.starts_with(&format!("{node}-")) => said.problems.push(damaged(object)),
            None => {}
        }
    }
    said.lost.retain(|lost| !said.blocks.contains(lost));
    said
}

/// The block of this node that this affinity, as it is or was at last, says to be about to be given back.
pub(super) fn given_back(affinity: &Value, node: &NodeName) -> Option<IpNet> {
    let affinity = Affinity::deserialize(affinity.get("spec")?).ok()?;
    affinity.block().filter(|_| affinity.node == node.as_str() && affinity.goes())
}

impl Affinity {
    /// Calico gives out addresses of it here: neither about to be taken nor about to be given back.
    fn stands(&self) -> bool {
        self.state == "confirmed" && self.is_of_host() && self.deleted != "true"
    }

    fn goes(&self) -> bool {
        self.is_of_host() && (self.state == "pendingDeletion" || self.deleted == "true")
    }

    fn is_of_host(&self) -> bool {
        matches!(self.kind.as_str(), "" | "host")
    }

    fn block(&self) -> Option<IpNet> {
        self.cidr.parse().ok().filter(|block: &IpNet| block.addr() == block.network())
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
