//! What is kept although the registry no longer says so: peers whose record vanished while their tunnel lives (grace),
//! and most of the mesh when it vanishes in one step (brake). Time comes in as an argument.
//!
//! ```text
//! record gone --- tunnel lives, grace runs ------------------ grace over: peer goes
//!             \-- tunnel dead ------------------------------- peer goes
//! more than half gone at a time: nothing goes until their tunnels are dead, or a person accepts
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use warren_crypto::PublicKey;

use crate::mesh::{Origin, PeerSpec};
use crate::record::NodeName;

/// Fewer than this many are never "most of the mesh".
const BRAKE_MIN: usize = 3;
/// How often to look whether the tunnels of kept peers still live: they die without telling anybody.
const LOOK: Duration = Duration::from_secs(15);

/// The peers in force and what is kept of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// The peers in force.
    pub peers: BTreeMap<NodeName, PeerSpec>,
    /// Of these, the ones whose record is gone, and since when.
    pub vanished: BTreeMap<NodeName, Instant>,
    /// A step that is held, for people.
    pub held: Option<String>,
    /// When to ask again, and why.
    pub next_deadline: Option<(Instant, &'static str)>,
}

/// Remembers what was in force.
#[derive(Clone, Debug)]
pub struct Hold {
    grace: Duration,
    peers: BTreeMap<NodeName, PeerSpec>,
    vanished: BTreeMap<NodeName, Instant>,
    braked: BTreeSet<NodeName>,
}

impl Hold {
    /// `grace`: how long a vanished record's peer is kept while its tunnel lives.
    pub fn new(grace: Duration) -> Self {
        Self { grace, peers: BTreeMap::new(), vanished: BTreeMap::new(), braked: BTreeSet::new() }
    }

    /// Lets the held step happen at the next [`Hold::apply`].
    pub fn accept(&mut self) {
        for name in std::mem::take(&mut self.braked) {
            self.peers.remove(&name);
            self.vanished.remove(&name);
        }
    }

    /// What should be in force now. `alive`: peers whose tunnel stands.
    pub fn apply(
        &mut self,
        desired: BTreeMap<NodeName, PeerSpec>,
        alive: &BTreeSet<NodeName>,
        now: Instant,
    ) -> Effective {
        let taken = Taken::by(&desired);
        let gone: BTreeMap<_, _> = std::mem::take(&mut self.peers)
            .into_iter()
            .filter(|(name, old)| old.origin == Origin::Registry && !desired.contains_key(name) && !taken.any_of(old))
            .collect();
        self.brake(&gone, &desired);
        self.vanished.retain(|name, _| !desired.contains_key(name));
        let mut peers = desired;
        for (name, old) in gone {
            let since = *self.vanished.entry(name.clone()).or_insert(now);
            let braked = self.braked.contains(&name);
            if alive.contains(&name) && (braked || now < since + self.grace) {
                peers.insert(name, old);
            } else {
                self.vanished.remove(&name);
                self.braked.remove(&name);
            }
        }
        self.braked.retain(|name| self.vanished.contains_key(name));
        self.peers = peers.clone();
        let next_deadline = self.next_deadline(now);
        Effective { peers, vanished: self.vanished.clone(), held: self.held(), next_deadline }
    }

    /// Most of the mesh at once is a mistake until shown otherwise. Everything counts that is gone now, since a watch
    /// may deliver one step in pieces and leases end one by one.
    fn brake(&mut self, gone: &BTreeMap<NodeName, PeerSpec>, desired: &BTreeMap<NodeName, PeerSpec>) {
        let present = desired.values().filter(|peer| peer.origin == Origin::Registry).count();
        if gone.len() >= BRAKE_MIN && gone.len() > present {
            self.braked.extend(gone.keys().cloned());
        }
    }

    fn next_deadline(&self, now: Instant) -> Option<(Instant, &'static str)> {
        let waiting = self.vanished.iter().filter(|(name, _)| !self.braked.contains(*name));
        let grace = waiting.map(|(_, since)| (*since + self.grace, "the grace of a vanished peer ends")).min();
        let look = (now + LOOK, "the tunnels of vanished peers may have died");
        (!self.vanished.is_empty()).then(|| grace.map_or(look, |grace| grace.min(look)))
    }

    fn held(&self) -> Option<String> {
        if self.braked.is_empty() {
            return None;
        }
        let names: Vec<_> = self.braked.iter().map(NodeName::as_str).collect();
        Some(format!(
            "{} peers, most of the mesh, vanished from the registry ({}); they are kept while their tunnels live: \
             repair the registry, or run `warren mesh accept` if they are gone for good",
            names.len(),
            names.join(", ")
        ))
    }
}

/// What the present peers have, so that no vanished one keeps it.
struct Taken {
    keys: BTreeSet<PublicKey>,
    prefixes: BTreeSet<IpNet>,
}

impl Taken {
    fn by(peers: &BTreeMap<NodeName, PeerSpec>) -> Self {
        Self {
            keys: peers.values().map(|peer| peer.public_key).collect(),
            prefixes: peers.values().flat_map(prefixes).collect(),
        }
    }

    fn any_of(&self, peer: &PeerSpec) -> bool {
        self.keys.contains(&peer.public_key) || prefixes(peer).any(|prefix| self.overlaps(prefix))
    }

    fn overlaps(&self, prefix: IpNet) -> bool {
        // Whatever begins inside the prefix overlaps it (shorter ones sort first); whatever holds it is a supernet.
        let mut inside = self.prefixes.range(prefix..=IpNet::from(prefix.broadcast()));
        let mut around = std::iter::successors(Some(prefix), IpNet::supernet);
        inside.next().is_some() || around.any(|net| self.prefixes.contains(&net))
    }
}

/// A peer's prefixes and its own addresses.
fn prefixes(peer: &PeerSpec) -> impl Iterator<Item = IpNet> + '_ {
    peer.cidrs.iter().map(IpNet::trunc).chain(peer.addresses.iter().copied().map(IpNet::from))
}
