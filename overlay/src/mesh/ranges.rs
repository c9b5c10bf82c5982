//! Who holds which addresses: disjoint ranges in order, so that an overlap of any length is one look at the neighbours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::record::NodeName;

/// Family and first address.
type Start = (bool, u128);

/// Disjoint ranges, each with its owner.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    held: BTreeMap<Start, (u128, NodeName)>,
}

impl Ranges {
    /// Gives the prefix to `node`, unless another one holds any part of it.
    pub(super) fn claim(&mut self, prefix: IpNet, node: &NodeName) -> Result<(), NodeName> {
        if let Some(other) = self.other_holder(prefix, node) {
            return Err(other.clone());
        }
        if self.holder(prefix).is_some() {
            return Ok(());
        }
        let (start, end) = bounds(prefix);
        let inside: Vec<_> = self.held.range(start..=(start.0, end)).map(|(at, _)| *at).collect();
        for at in inside {
            self.held.remove(&at);
        }
        self.held.insert(start, (end, node.clone()));
        Ok(())
    }

    /// Somebody but `node` who holds any part of the prefix.
    pub(super) fn other_holder(&self, prefix: IpNet, node: &NodeName) -> Option<&NodeName> {
        let (start, end) = bounds(prefix);
        let inside = self.held.range(start..=(start.0, end)).map(|(_, (_, owner))| owner);
        let around = self.at_or_before(start).filter(|(_, last, _)| *last >= start.1).map(|(_, _, owner)| owner);
        inside.chain(around).find(|owner| *owner != node)
    }

    /// Who holds all of the prefix.
    pub(super) fn holder(&self, prefix: IpNet) -> Option<&NodeName> {
        let (start, end) = bounds(prefix);
        self.at_or_before(start).filter(|(_, last, _)| *last >= end).map(|(_, _, owner)| owner)
    }

    /// Who holds the address.
    pub(super) fn holder_of(&self, address: IpAddr) -> Option<&NodeName> {
        self.holder(IpNet::from(address))
    }

    fn at_or_before(&self, start: Start) -> Option<(Start, u128, &NodeName)> {
        let (at, (last, owner)) = self.held.range((start.0, 0)..=start).next_back()?;
        Some((*at, *last, owner))
    }
}

fn bounds(prefix: IpNet) -> (Start, u128) {
    let bits = |address| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    ((prefix.addr().is_ipv6(), bits(prefix.network())), bits(prefix.broadcast()))
}
