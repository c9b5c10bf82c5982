//! What the workers read: the forwarding table and the peers by slot. Immutable; a new one is swapped in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use warren_crypto::PublicKey;
use warren_crypto::tunnel::Identity;
use warren_overlay::forward::{Slot, Table};
use warren_overlay::mesh::PeerSpec;
use warren_overlay::record::NodeName;

use super::peer::{self, Peer};

/// The forwarding table and the peers.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) table: Table,
    slots: Vec<Option<Arc<Peer>>>,
    by_key: HashMap<PublicKey, Slot>,
    /// Grows with every snapshot, so that workers notice.
    pub(super) generation: u64,
}

impl Snapshot {
    pub(super) fn peer(&self, slot: Slot) -> Option<&Arc<Peer>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn by_key(&self, key: &PublicKey) -> Option<&Arc<Peer>> {
        self.peer(*self.by_key.get(key)?)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.slots.iter().flatten()
    }

    /// The snapshot with these peers: unchanged ones are shared, changed ones inherit their session, new ones get the
    /// lowest free slot.
    pub(super) fn with(
        &self,
        peers: &BTreeMap<NodeName, PeerSpec>,
        (local, vteps): (&[IpNet], BTreeSet<SocketAddr>),
        identity: &Identity,
        (mtu, workers): (u16, usize),
    ) -> Self {
        let mut slots: Vec<Option<Arc<Peer>>> = vec![None; self.slots.len()];
        let mut fresh = Vec::new();
        for spec in peers.values() {
            match self.by_key(&spec.public_key).filter(|old| old.keeps_tunnel(spec)) {
                Some(old) if old.is(spec) => slots[old.slot() as usize] = Some(Arc::clone(old)),
                Some(old) => {
                    let kept = peer::inherit(old, spec.clone(), mtu);
                    slots[old.slot() as usize] = Some(Arc::new(kept));
                }
                None => fresh.push(spec),
            }
        }
        let mut free = 0;
        for spec in fresh {
            while slots.get(free).is_some_and(Option::is_some) {
                free += 1;
            }
            if free == slots.len() {
                slots.push(None);
            }
            slots[free] = Some(Arc::new(Peer::new(free as Slot, spec.clone(), identity, mtu, workers)));
        }
        let remote = slots.iter().flatten().flat_map(|peer| prefixes(peer.spec()).map(|prefix| (prefix, peer.slot())));
        let table = Table::new(remote, local.iter().copied()).with_vteps(vteps);
        let by_key = slots.iter().flatten().map(|peer| (peer.spec().public_key, peer.slot())).collect();
        Self { table, slots, by_key, generation: self.generation + 1 }
    }
}

/// A peer's CIDRs and its own addresses.
fn prefixes(spec: &PeerSpec) -> impl Iterator<Item = IpNet> + '_ {
    spec.cidrs.iter().copied().chain(spec.addresses.iter().map(|address| host_prefix(*address)))
}

/// The /32 or /128 of an address.
pub(crate) fn host_prefix(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
