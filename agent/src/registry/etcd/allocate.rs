//! Allocations: durable claims, made by transaction so that two racing nodes never get overlapping CIDRs, whatever their
//! lengths. Whoever allocates compares and rewrites one guard key over the whole set.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{Client, Compare, CompareOp, Error, GetOptions, Txn, TxnOp};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use warren_overlay::mesh::Cluster;
use warren_overlay::record::NodeName;

use super::explain::explain;
use super::keys::{Key, Keys};
use super::store::Owner;
use crate::cidrs;
use crate::config::Cidrs;

/// Races are lost to somebody who won; more losses in a row than this are something else.
const ATTEMPTS: usize = 64;
/// Candidates tried in one network; a /8 has 65,536 of length 24.
const CANDIDATES: usize = 1 << 20;

/// Allocations taken back in one transaction; etcd takes 128 operations.
const RELEASED_AT_ONCE: usize = 50;

/// An allocation as it is in the store; without an owner when its value cannot be read.
pub(in crate::registry) type Given = (IpNet, Option<NodeName>);

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
    #[error("{}", explain(.0))]
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
    /// Somebody owns it, but nobody can say who.
    #[error("{wanted} overlaps {taken}, whose owner cannot be read: repair or delete that allocation in the store")]
    Unreadable {
        /// What was wanted.
        wanted: IpNet,
        /// What is in the way.
        taken: IpNet,
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

/// Allocates what is wanted to `node`; what it already has is given again. What `owners` remembers of others is as
/// good as taken: a store that was wiped gives no living node's prefix to another.
///
/// # Errors
/// See [`AllocateError`].
pub async fn allocate(
    client: &mut Client,
    keys: &Keys,
    node: &NodeName,
    want: &Want,
    networks: &BTreeSet<IpNet>,
    owners: &BTreeMap<IpNet, NodeName>,
) -> Result<IpNet, AllocateError> {
    for _ in 0..ATTEMPTS {
        let order = order(client, keys).await?;
        let mut taken = allocations(client, keys).await?;
        if let Some(cidr) = already(want, node, &taken, networks) {
            return Ok(cidr);
        }
        taken.extend(owners.iter().map(|(cidr, owner)| (*cidr, Some(owner.clone()))));
        let cidr = choose(want, node, &taken, networks)?;
        let owner = serde_json::to_vec(&Owner { node: node.clone() }).unwrap_or_default();
        let steps = [
            TxnOp::put(keys.allocation(cidr), owner, None),
            TxnOp::put(keys.order(), "", None),
            TxnOp::delete(keys.released(cidr, node), None),
        ];
        let vacant = Compare::version(keys.allocation(cidr), CompareOp::Equal, 0);
        if client.txn(Txn::new().when([order, vacant]).and_then(steps)).await?.succeeded() {
            return Ok(cidr);
        }
    }
    Err(AllocateError::Contended)
}

/// Takes back everything that `node` has, leaves tombstones, and removes its record. `forgotten` are prefixes that the
/// store no longer knows of while nodes remember them as its own: they get tombstones too.
///
/// # Errors
/// What the store says.
pub async fn release(
    client: &mut Client,
    keys: &Keys,
    node: &NodeName,
    forgotten: &[IpNet],
) -> Result<Vec<IpNet>, AllocateError> {
    let (mut released, mut forgotten) = (Vec::new(), forgotten.to_vec());
    let (mut losses, mut begun) = (0, false);
    while losses < ATTEMPTS {
        let order = order(client, keys).await?;
        let given = allocations(client, keys).await?;
        let own = given.into_iter().filter(|(_, owner)| owner.as_ref() == Some(node)).map(|(cidr, _)| cidr);
        let own: Vec<_> = own.take(RELEASED_AT_ONCE).collect();
        forgotten.retain(|cidr| !own.contains(cidr));
        let tombs: Vec<_> = own.iter().chain(&forgotten).copied().take(RELEASED_AT_ONCE).collect();
        if begun && tombs.is_empty() {
            return Ok(released);
        }
        let mut steps = vec![TxnOp::put(keys.order(), "", None), TxnOp::delete(keys.node(node), None)];
        steps.extend(own.iter().map(|cidr| TxnOp::delete(keys.allocation(*cidr), None)));
        steps.extend(tombs.iter().map(|cidr| TxnOp::put(keys.released(*cidr, node), "", None)));
        if client.txn(Txn::new().when([order]).and_then(steps)).await?.succeeded() {
            (losses, begun) = (0, true);
            forgotten.retain(|cidr| !tombs.contains(cidr));
            released.extend(own);
        } else {
            losses += 1;
        }
    }
    Err(AllocateError::Contended)
}

/// Takes back these of `node` and leaves tombstones; the others and its record stay.
///
/// # Errors
/// What the store says.
pub(super) async fn give_back(
    client: &mut Client,
    keys: &Keys,
    node: &NodeName,
    cidrs: &[IpNet],
) -> Result<(), AllocateError> {
    for _ in 0..ATTEMPTS {
        let order = order(client, keys).await?;
        let given = allocations(client, keys).await?;
        let own = given.into_iter().filter(|(cidr, owner)| owner.as_ref() == Some(node) && cidrs.contains(cidr));
        let own: Vec<_> = own.map(|(cidr, _)| cidr).take(RELEASED_AT_ONCE).collect();
        if own.is_empty() {
            return Ok(());
        }
        let mut steps = vec![TxnOp::put(keys.order(), "", None)];
        steps.extend(own.iter().map(|cidr| TxnOp::delete(keys.allocation(*cidr), None)));
        steps.extend(own.iter().map(|cidr| TxnOp::put(keys.released(*cidr, node), "", None)));
        client.txn(Txn::new().when([order]).and_then(steps)).await?;
    }
    Err(AllocateError::Contended)
}

/// Writes the cluster if nobody did since the revision that it was seen at, which is 0 for one that was not there;
/// whether it was written.
///
/// # Errors
/// What the store says.
pub async fn put_cluster(client: &mut Client, keys: &Keys, cluster: &Cluster, seen: i64) -> Result<bool, Error> {
    let text = serde_json::to_vec(cluster).unwrap_or_default();
    let unchanged = Compare::mod_revision(keys.cluster(), CompareOp::Equal, seen);
    let txn = Txn::new().when([unchanged]).and_then([TxnOp::put(keys.cluster(), text, None)]);
    Ok(client.txn(txn).await?.succeeded())
}

/// Nobody else has allocated or released since.
async fn order(client: &mut Client, keys: &Keys) -> Result<Compare, Error> {
    let found = client.get(keys.order(), None).await?;
    let revision = found.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision);
    Ok(Compare::mod_revision(keys.order(), CompareOp::Equal, revision))
}

/// Every allocation.
async fn allocations(client: &mut Client, keys: &Keys) -> Result<Vec<Given>, Error> {
    let found = client.get(keys.allocations(), Some(GetOptions::new().with_prefix())).await?;
    let parse = |value: &etcd_client::KeyValue| match keys.parse(value.key()) {
        Some(Key::Allocation(cidr)) => {
            Some((cidr, serde_json::from_slice(value.value()).ok().map(|Owner { node }| node)))
        }
        _ => None,
    };
    Ok(found.kvs().iter().filter_map(parse).collect())
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// What of this the node already has.
fn already(want: &Want, node: &NodeName, taken: &[Given], networks: &BTreeSet<IpNet>) -> Option<IpNet> {
    let mut own = taken.iter().filter(|(_, owner)| owner.as_ref() == Some(node)).map(|(cidr, _)| *cidr);
    match *want {
        Want::This(wanted) => own.find(|cidr| *cidr == wanted),
        Want::Any { v6, .. } => own.find(|cidr| is_for_pods(cidr, v6, networks)),
    }
}

/// Is it a prefix of the cluster network, and no grant of an address beside it?
fn is_for_pods(cidr: &IpNet, v6: bool, networks: &BTreeSet<IpNet>) -> bool {
    cidr.addr().is_ipv6() == v6 && networks.iter().any(|network| network.contains(cidr))
}

/// What the node should have and has not.
pub(in crate::registry) fn missing(own: &[IpNet], cidrs: &Cidrs, networks: &BTreeSet<IpNet>) -> Vec<Want> {
    match cidrs {
        Cidrs::Listed(list) | Cidrs::Given(cidrs::Given { cidrs: list, .. }) => {
            let missing = list.iter().filter(|cidr| !own.iter().any(|given| given.contains(*cidr)));
            missing.map(|cidr| Want::This(*cidr)).collect()
        }
        Cidrs::Auto { length } => {
            let families: BTreeSet<bool> = networks.iter().map(|network| network.addr().is_ipv6()).collect();
            let lacking = families.into_iter().filter(|v6| !own.iter().any(|given| is_for_pods(given, *v6, networks)));
            lacking.map(|v6| Want::Any { v6, length: if v6 { length.1 } else { length.0 } }).collect()
        }
    }
}

/// Which prefix to take, given what others have.
pub(in crate::registry) fn choose(
    want: &Want,
    node: &NodeName,
    taken: &[Given],
    networks: &BTreeSet<IpNet>,
) -> Result<IpNet, AllocateError> {
    match *want {
        Want::This(wanted) => {
            // A single address outside of the network is a grant of a node address.
            let single = wanted.prefix_len() == wanted.max_prefix_len();
            if !single && !networks.is_empty() && !networks.iter().any(|network| network.contains(&wanted)) {
                return Err(AllocateError::Outside(wanted));
            }
            match taken.iter().find(|(given, owner)| overlap(given, &wanted) && owner.as_ref() != Some(node)) {
                Some((taken, Some(owner))) => Err(AllocateError::Taken { wanted, taken: *taken, owner: owner.clone() }),
                Some((taken, None)) => Err(AllocateError::Unreadable { wanted, taken: *taken }),
                None => Ok(wanted),
            }
        }
        Want::Any { v6, length } => {
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
        let taken = vec![(net("10.0.0.0/16"), Some(other)), (net("10.1.0.0/24"), None)];
        let any = Want::Any { v6: false, length: 24 };
        assert_eq!(choose(&any, &me, &taken, &networks).unwrap(), net("10.1.1.0/24"));
        for wanted in ["10.0.7.0/24", "10.0.0.0/15"] {
            let refused = choose(&Want::This(net(wanted)), &me, &taken, &networks);
            assert!(matches!(refused, Err(AllocateError::Taken { .. })), "{wanted}");
        }
        let unreadable = choose(&Want::This(net("10.1.0.128/25")), &me, &taken, &networks);
        assert!(matches!(unreadable, Err(AllocateError::Unreadable { .. })));
        let outside = choose(&Want::This(net("10.9.0.0/24")), &me, &taken, &networks);
        assert!(matches!(outside, Err(AllocateError::Outside(_))));
        let full = choose(&Want::Any { v6: false, length: 14 }, &me, &taken, &networks);
        assert!(matches!(full, Err(AllocateError::Exhausted(14))));
    }

    #[test]
    fn what_a_node_has_it_is_given_again() {
        let me: NodeName = "me".parse().unwrap();
        let taken = vec![(net("10.2.0.0/24"), None), (net("10.1.0.0/24"), Some(me.clone()))];
        let (own, networks) = (Some(net("10.1.0.0/24")), [net("10.0.0.0/8")].into());
        assert_eq!(already(&Want::Any { v6: false, length: 24 }, &me, &taken, &networks), own);
        assert_eq!(already(&Want::This(net("10.1.0.0/24")), &me, &taken, &networks), own);
        for not_had in [Want::Any { v6: true, length: 64 }, Want::This(net("10.1.0.0/16"))] {
            assert_eq!(already(&not_had, &me, &taken, &networks), None);
        }
    }

    #[test]
    fn an_address_that_a_node_was_granted_is_no_prefix_for_its_pods() {
        let (me, networks): (NodeName, _) = ("me".parse().unwrap(), [net("10.0.0.0/8")].into());
        let taken = vec![(net("192.0.2.12/32"), Some(me.clone()))];
        assert_eq!(already(&Want::Any { v6: false, length: 24 }, &me, &taken, &networks), None);
        assert_eq!(already(&Want::This(net("192.0.2.12/32")), &me, &taken, &networks), Some(net("192.0.2.12/32")));
        let auto = Cidrs::Auto { length: (24, 64) };
        assert_eq!(missing(&[net("192.0.2.12/32")], &auto, &networks), [Want::Any { v6: false, length: 24 }]);
        assert_eq!(missing(&[net("10.1.0.0/24")], &auto, &networks), []);
    }
}
