//! The clerk's part in associations: frames in and out of the tunnel, orders to the workers, what people see of it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use rand_core::{OsRng, RngCore as _};
use warren_crypto::exchange::{self, Exchange, Terms};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Seal as _, Slot};
use warren_overlay::frame::{self, PACKET_MAX, Part};

use super::Shared;
use super::chance::Dice;
use super::clerk::Clerk;
use super::link::{Deed, Link, Obstacle};
use super::orders::{Order, PeerId, Ready};
use super::peer::{Peer, Session};
use crate::config::Associations;

/// The time between two handshakes to one peer's new address, and how many there are.
const PROBE: (Duration, u32) = (Duration::from_secs(1), 15);

/// An address that a peer's packets came from.
struct Probe {
    from: SocketAddr,
    to: Option<IpAddr>,
    next: Duration,
    left: u32,
}

/// Indices that may be remembered without need.
const SPARE: usize = 1024;

/// All links, and what they share.
pub(super) struct Associates {
    links: HashMap<Slot, Link>,
    dice: Dice,
    /// Number of the last frame sent.
    frames: u16,
    /// Peers that seem to have moved.
    probes: HashMap<PeerId, Probe>,
}

impl Associates {
    pub(super) fn new(workers: usize) -> Self {
        let dice = Dice { workers, used: Default::default() };
        Self { links: HashMap::new(), dice, frames: 0, probes: HashMap::new() }
    }

    /// Frees the indices of generations that are over.
    pub(super) fn free(&mut self) {
        let live = || self.links.values().flat_map(Link::indices);
        if self.dice.used.len() > SPARE + 2 * live().count() {
            self.dice.used = live().collect();
        }
    }

    /// Forgets peers that are gone, and frees their indices.
    pub(super) fn follow(&mut self, peers: &dyn Fn(Slot) -> Option<PeerId>) {
        self.links.retain(|slot, link| peers(*slot) == Some(link.peer));
        self.probes.retain(|peer, _| peers(peer.slot) == Some(*peer));
        self.dice.used = self.links.values().flat_map(Link::indices).collect();
    }

    /// There is something to send on to this peer, or something is being tried.
    pub(super) fn sends_to(&self, peer: &Peer) -> bool {
        self.links.get(&peer.slot()).is_some_and(|link| link.peer == peer.id() && link.sends())
    }

    fn link(&mut self, peer: &Peer, shared: &Shared) -> &mut Link {
        let id = peer.id();
        let fresh = || {
            let terms = Terms {
                own: shared.private.clone(),
                peer: peer.spec().public_key,
                preshared_key: peer.spec().preshared_key.clone(),
                // A link that was given up begins anew, as if the agent had.
                boot: boot(),
                workers: shared.sockets.len().min(64) as u16,
                suites: shared.options.suites.clone(),
            };
            let mut link = Link::new(id, Exchange::new(terms), shared.sockets.len());
            link.required = shared.options.associations == Associations::Require;
            link.ports.clone_from(&shared.own_ports);
            link
        };
        let link = self.links.entry(id.slot).or_insert_with(fresh);
        if link.peer != id {
            *link = fresh();
        }
        link
    }
}

/// Larger at every later start, by the wall clock in microseconds; and never the same, by twelve random bits.
fn boot() -> u64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (since.as_micros() as u64) << 12 | u64::from(OsRng.next_u32() & 0xfff),
        // A clock before 1970 says nothing; only never the same, then.
        Err(_) => OsRng.next_u64() >> 1,
    }
}

/// Time that goes on while the machine sleeps.
pub(super) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

impl Clerk {
    /// Part of a frame came out of a peer's tunnel. What cannot be used changes nothing, and is counted.
    pub(super) fn take_frame(&mut self, id: PeerId, packet: &[u8]) {
        let shared = Arc::clone(&self.shared);
        let snapshot = shared.snapshot.load();
        let Some(peer) = snapshot.peer(id.slot).filter(|peer| peer.id() == id) else { return };
        if Part::parse(packet).is_none() {
            return self.lose(DropReason::UnknownFrame, 1);
        }
        let link = self.associates.link(peer, &shared);
        // A short frame does not push out a longer one, parts of which are still under way.
        let whole = frame::whole(packet).map(<[u8]>::to_vec).or_else(|| link.assembly.take(packet));
        let Some(whole) = whole else { return };
        let mut refused = None;
        self.with_link(peer, |link, dice, now| {
            link.take(&whole, now, dice).inspect_err(|reason| refused = Some(*reason)).unwrap_or_default()
        });
        refused.into_iter().for_each(|reason| self.lose(reason, 1));
    }

    /// A worker took the first data of this period with this index.
    pub(super) fn heard(&mut self, id: PeerId, generation: u64, index: u32) {
        self.with_known(id, |link, _, now| link.heard(generation, index, now));
    }

    /// A probe came.
    pub(super) fn probed(&mut self, id: PeerId, of: (u64, u32), probe: (exchange::Probe, u16)) {
        self.with_known(id, |link, _, now| link.probed(of, probe, now));
    }

    /// The peer's packets come from elsewhere now: its tunnel decides whether that is true.
    pub(super) fn probe(&mut self, id: PeerId, from: SocketAddr, to: Option<IpAddr>) {
        self.associates.probes.insert(id, Probe { from, to, next: Duration::ZERO, left: PROBE.1 });
        self.tick_probes();
    }

    /// Handshakes to where peers seem to be, until their sessions know.
    pub(super) fn tick_probes(&mut self) {
        let (now, snapshot) = (now(), self.shared.snapshot.load_full());
        let mut probes = std::mem::take(&mut self.associates.probes);
        probes.retain(|id, probe| {
            let Some(peer) = snapshot.peer(id.slot).filter(|peer| peer.id() == *id) else { return false };
            if now < probe.next {
                return true;
            }
            (probe.next, probe.left) = (now + PROBE.0, probe.left.saturating_sub(1));
            let moved = peer.lock().is_elsewhere(probe.from);
            if moved {
                self.handshake_at(peer, probe);
            }
            moved && probe.left > 0
        });
        self.associates.probes = probes;
    }

    fn handshake_at(&mut self, peer: &Peer, probe: &Probe) {
        let mut out = std::mem::take(&mut self.out);
        let initiation = peer.lock().tunnel.rehandshake(OsRng.next_u32(), &mut out);
        if let Some(len) = initiation {
            self.send_reply(&out[..len], probe.from, probe.to);
        }
        self.out = out;
    }

    /// One peer's timers.
    pub(super) fn tick_link(&mut self, peer: &Peer) {
        if self.shared.options.associations == Associations::Off {
            return;
        }
        if !peer.speaks() {
            return self.part(peer);
        }
        let wanted = peer.was_wanted();
        let (has_session, passed) = (peer.lock().tunnel.has_session(), peer.passed());
        let known = self.associates.links.get(&peer.slot()).is_some_and(|link| link.peer == peer.id());
        if !known && !has_session && !wanted {
            return;
        }
        self.with_link(peer, |link, dice, now| {
            let mut deeds: Vec<_> = has_session.then(|| link.hello(now)).flatten().into_iter().collect();
            deeds.extend(link.tick(now, passed, wanted, has_session, dice));
            deeds
        });
        // What could not be begun yet is still wanted.
        if wanted && !self.associates.sends_to(peer) {
            peer.want();
            if !has_session {
                self.begin(peer);
            }
        }
    }

    /// The peer no longer knows associations.
    fn part(&mut self, peer: &Peer) {
        if self.associates.links.remove(&peer.slot()).is_none() {
            return;
        }
        peer.lock().association = Err(Obstacle::default());
        for worker in 0..self.shared.sockets.len() {
            self.perform(peer, Deed::Order(worker, Order::Purge { peer: peer.id(), keep: None }));
        }
    }

    /// A handshake where there is no session; the tunnel paces it.
    fn begin(&mut self, peer: &Peer) {
        let mut out = std::mem::take(&mut self.out);
        self.initiate(peer, &mut peer.lock(), &mut out);
        self.out = out;
    }

    /// What the workers have done since.
    pub(super) fn collect_ready(&mut self) {
        let ready = std::mem::take(&mut *self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner));
        for Ready { peer, generation, worker } in ready {
            self.with_known(peer, |link, _, now| link.installed(generation, worker, now));
        }
    }

    fn with_known(&mut self, id: PeerId, act: impl FnOnce(&mut Link, &mut Dice, Duration) -> Vec<Deed>) {
        let snapshot = self.shared.snapshot.load_full();
        if let Some(peer) = snapshot.peer(id.slot).filter(|peer| peer.id() == id) {
            self.with_link(peer, act);
        }
    }

    fn with_link(&mut self, peer: &Peer, act: impl FnOnce(&mut Link, &mut Dice, Duration) -> Vec<Deed>) {
        let shared = Arc::clone(&self.shared);
        let now = now();
        let mut dice = std::mem::replace(&mut self.associates.dice, Dice { workers: 1, used: Default::default() });
        let link = self.associates.link(peer, &shared);
        let deeds = act(link, &mut dice, now);
        let found = link.association(now).ok_or_else(|| link.obstacle());
        self.associates.dice = dice;
        peer.lock().association = found;
        for deed in deeds {
            self.perform(peer, deed);
        }
    }

    fn perform(&mut self, peer: &Peer, deed: Deed) {
        match deed {
            Deed::Order(worker, order) => {
                self.shared.orders[worker].give(order);
                self.shared.wakers[worker].wake();
            }
            Deed::Handshake => self.connect(peer.slot(), true),
            Deed::Frame(frame) => {
                self.associates.frames = self.associates.frames.wrapping_add(1);
                let number = self.associates.frames;
                let mut out = std::mem::take(&mut self.out);
                let sealed = self.send_frame(peer, &mut peer.lock(), number, &frame, &mut out);
                self.out = out;
                if !sealed {
                    self.begin(peer);
                }
            }
        }
    }

    /// Seals a frame into the tunnel. False without a session: it is lost, and sent again by whoever needs it.
    fn send_frame(&self, peer: &Peer, session: &mut Session, number: u16, frame: &[u8], out: &mut [u8]) -> bool {
        let mut packet = [0; PACKET_MAX];
        for part in 0.. {
            let Some(len) = frame::write(number, frame, part, &mut packet) else { break };
            match session.seal(&packet[..len], out) {
                Ok(len) => self.send_to(peer, session, &out[..len]),
                Err(DropReason::NoSession) => return false,
                Err(reason) => self.lose(reason, 1),
            }
        }
        true
    }
}
