//! Allocations: durable claims, made by transaction so that two racing nodes never get overlapping CIDRs, whatever their
//! lengths. Whoever allocates compares and rewrites one guard key over the whole set.

use std::collections::BTreeSet;

use etcd_client::{Client, Compare, CompareOp, Error, GetOptions, Txn, TxnOp};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use warren_overlay::mesh::Cluster;
use warren_overlay::record::NodeName;

use super::keys::{Key, Keys};
use super::store::Owner;

/// Races are lost to somebody who won; more losses in a row than this are something else.
const ATTEMPTS: usize = 64;
/// Candidates tried in one network; a /8 has 65,536 of length 24.
const CANDIDATES: usize = 1 << 20;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// This prefix.
    This(IpNet),
    /// Any free one of this length out of the cluster's networks.
    Any {
        /// IPv6.
        v6: bool,
        /// Prefix length.
        length: u8,
    },
}

/// Why nothing was allocated.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The store said no.
    #[error("{0}")]
    Store(#[from] Error),
    /// Somebody owns it, or a part of it, or more than it.
    #[error("{wanted} overlaps {taken}, which belongs to {owner}")]
    Taken {
        /// What was wanted.
        wanted: IpNet,
        /// What is in the way.
        taken: IpNet,
        /// Whose that is.
        owner: NodeName,
    },
    /// Not in any network of the cluster.
    #[error("{0} is not inside the cluster network")]
    Outside(IpNet),
    /// No room.
    #[error("the cluster network has no free /{0} left: release nodes that are gone, or add a network")]
    Exhausted(u8),
    /// Others were faster every time.
    #[error("too many nodes allocate at once; try again")]
    Contended,
}

/// Allocates what is wanted to `node`; what it already has is given again.
///
/// # Errors
/// See [`AllocateError`].
pub async fn allocate(
    client: &mut Client,
    keys: &Keys,
    node: &NodeName,
    want: &Want,
    networks: &BTreeSet<IpNet>,
) -> Result<IpNet, AllocateError> {
    for _ in 0..ATTEMPTS {
        let order = client.get(keys.order(), None).await?.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision);
        let taken = allocations(client, keys).await?;
        let cidr = choose(want, node, &taken, networks)?;
        if taken.iter().any(|(given, owner)| *given == cidr && owner == node) {
            return Ok(cidr);
        }
        let owner = serde_json::to_vec(&Owner { node: node.clone() }).unwrap_or_default();
        let txn = Txn::new()
            .when([
                Compare::mod_revision(keys.order(), CompareOp::Equal, order),
                Compare::version(keys.allocation(cidr), CompareOp::Equal, 0),
            ])
            .and_then([
                TxnOp::put(keys.allocation(cidr), owner, None),
                TxnOp::put(keys.order(), "", None),
                TxnOp::delete(keys.released(cidr, node), None),
            ]);
        if client.txn(txn).await?.succeeded() {
            return Ok(cidr);
        }
    }
    Err(AllocateError::Contended)
}

/// Takes back everything that `node` has, leaves tombstones, and removes its record.
///
/// # Errors
/// What the store says.
pub async fn release(client: &mut Client, keys: &Keys, node: &NodeName) -> Result<Vec<IpNet>, AllocateError> {
    let own: Vec<_> =
        allocations(client, keys).await?.into_iter().filter(|(_, owner)| owner == node).map(|(cidr, _)| cidr).collect();
    let mut steps = vec![TxnOp::put(keys.order(), "", None), TxnOp::delete(keys.node(node), None)];
    for cidr in &own {
        steps.push(TxnOp::delete(keys.allocation(*cidr), None));
        steps.push(TxnOp::put(keys.released(*cidr, node), "", None));
    }
    client.txn(Txn::new().and_then(steps)).await?;
    Ok(own)
}

/// Writes the cluster if there is none; whether it was written.
pub(crate) async fn put_cluster(client: &mut Client, keys: &Keys, cluster: &Cluster) -> Result<bool, Error> {
    let text = serde_json::to_vec(cluster).unwrap_or_default();
    let txn = Txn::new().when([Compare::version(keys.cluster(), CompareOp::Equal, 0)]).and_then([TxnOp::put(
        keys.cluster(),
        text,
        None,
    )]);
    Ok(client.txn(txn).await?.succeeded())
}

/// Every allocation that can be read; one that cannot is nobody's, but still in nobody's way only where it is.
async fn allocations(client: &mut Client, keys: &Keys) -> Result<Vec<(IpNet, NodeName)>, Error> {
    let found = client.get(keys.allocations(), Some(GetOptions::new().with_prefix())).await?;
    let parse = |value: &etcd_client::KeyValue| match (keys.parse(value.key()), serde_json::from_slice(value.value())) {
        (Some(Key::Allocation(cidr)), Ok(Owner { node })) => Some((cidr, node)),
        _ => None,
    };
    Ok(found.kvs().iter().filter_map(parse).collect())
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn choose(
    want: &Want,
    node: &NodeName,
    taken: &[(IpNet, NodeName)],
    networks: &BTreeSet<IpNet>,
) -> Result<IpNet, AllocateError> {
    match *want {
        Want::This(wanted) => {
            if !networks.is_empty() && !networks.iter().any(|network| network.contains(&wanted)) {
                return Err(AllocateError::Outside(wanted));
            }
            match taken.iter().find(|(given, owner)| overlap(given, &wanted) && owner != node) {
                Some((taken, owner)) => Err(AllocateError::Taken { wanted, taken: *taken, owner: owner.clone() }),
                None => Ok(wanted),
            }
        }
        Want::Any { v6, length } => {
            let own = taken.iter().find(|(given, owner)| owner == node && given.addr().is_ipv6() == v6);
            if let Some((given, _)) = own {
                return Ok(*given);
            }
            let mut candidates = networks
                .iter()
                .filter(|network| network.addr().is_ipv6() == v6)
                .flat_map(|network| subnets(*network, length).take(CANDIDATES));
            let free = candidates.find(|candidate| !taken.iter().any(|(given, _)| overlap(given, candidate)));
            free.ok_or(AllocateError::Exhausted(length))
        }
    }
}

fn subnets(network: IpNet, length: u8) -> Box<dyn Iterator<Item = IpNet>> {
    match network {
        IpNet::V4(net) => Box::new(Ipv4Net::subnets(&net, length).into_iter().flatten().map(IpNet::V4)),
        IpNet::V6(net) => Box::new(Ipv6Net::subnets(&net, length).into_iter().flatten().map(IpNet::V6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_free_prefix_is_chosen_and_overlaps_of_any_length_are_refused() {
        let (me, other): (NodeName, NodeName) = ("me".parse().unwrap(), "other".parse().unwrap());
        let networks = [net("10.0.0.0/14"), net("fd00::/48")].into();
        let taken = vec![(net("10.0.0.0/16"), other.clone()), (net("10.1.0.0/24"), other)];
        let any = Want::Any { v6: false, length: 24 };
        assert_eq!(choose(&any, &me, &taken, &networks).unwrap(), net("10.1.1.0/24"));
        for wanted in ["10.0.7.0/24", "10.0.0.0/15", "10.1.0.128/25"] {
            let refused = choose(&Want::This(net(wanted)), &me, &taken, &networks);
            assert!(matches!(refused, Err(AllocateError::Taken { .. })), "{wanted}");
        }
        let outside = choose(&Want::This(net("10.9.0.0/24")), &me, &taken, &networks);
        assert!(matches!(outside, Err(AllocateError::Outside(_))));
        let full = choose(&Want::Any { v6: false, length: 14 }, &me, &taken, &networks);
        assert!(matches!(full, Err(AllocateError::Exhausted(14))));
    }

    #[test]
    fn what_a_node_has_it_is_given_again() {
        let me: NodeName = "me".parse().unwrap();
        let taken = vec![(net("10.1.0.0/24"), me.clone())];
        let any = Want::Any { v6: false, length: 24 };
        assert_eq!(choose(&any, &me, &taken, &[net("10.0.0.0/8")].into()).unwrap(), net("10.1.0.0/24"));
    }
}
