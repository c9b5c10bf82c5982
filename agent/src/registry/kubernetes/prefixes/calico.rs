//! What Calico's IPAM says of this node (crd.projectcalico.org/v1): the blocks that it has an affinity to. Pure. Single addresses
//! of other nodes' blocks that were lent to this one it does not see: the host does.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use warren_overlay::record::NodeName;

use super::super::object::Object;

/// The largest blocks that Calico gives out (IPPool `blockSize`), by prefix length: one object does not take away all there is.
const LARGEST: (u8, u8) = (20, 116);

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
            None if is_named_after(object, node) => said.problems.push(damaged(object)),
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
        let is_whole = |block: &IpNet| block.addr() == block.network();
        let is_small = |block: &IpNet| block.prefix_len() >= if block.addr().is_ipv6() { LARGEST.1 } else { LARGEST.0 };
        self.cidr.parse().ok().filter(|block| is_whole(block) && is_small(block))
    }
}

/// Whether this, which cannot be read, is named after this node and a block; or says that it is this node's. Names of nodes have
/// hyphens too: `a-b-10-1-0-0-26` is no block of `a`.
fn is_named_after(object: &Object, node: &NodeName) -> bool {
    let said = object.spec::<Value>().and_then(|spec| Some(spec.get("node")?.as_str()? == node.as_str()));
    let named =
        || object.name.strip_prefix(node.as_str()).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_block);
    said.unwrap_or_else(named)
}

/// As Calico writes a block into a name.
fn is_block(text: &str) -> bool {
    let Some((address, length)) = text.rsplit_once('-') else { return false };
    ['.', ':']
        .iter()
        .any(|mark| format!("{}/{length}", address.replace('-', &mark.to_string())).parse::<IpNet>().is_ok())
}

fn damaged(object: &Object) -> String {
    format!("the BlockAffinity {:?} of Calico is damaged and ignored: is its cidr the prefix of a block?", object.name)
}

#[cfg(test)]
mod tests;
