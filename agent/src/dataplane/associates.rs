//! The clerk's part in associations: frames in and out of the tunnel, orders to the workers, what people see of it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rand_core::{OsRng, RngCore as _};
use warren_crypto::exchange::{Exchange, Terms};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Seal as _, Slot};
use warren_overlay::frame::{self, PACKET_MAX};

use super::Shared;
use super::chance::Dice;
use super::clerk::Clerk;
use super::link::{Deed, Link};
use super::orders::PeerId;
use super::peer::{Association, Peer, Session};
use crate::config::Associations;

/// The least time between two probes of one peer's new address.
const PROBE: Duration = Duration::from_secs(1);

/// All links, and what they share.
pub(super) struct Associates {
    links: HashMap<Slot, Link>,
    dice: Dice,
    /// Differs at every start of the agent.
    boot: u64,
    /// Number of the last frame sent.
    frames: u16,
    probed: HashMap<PeerId, Duration>,
}

impl Associates {
    pub(super) fn new(workers: usize) -> Self {
        let dice = Dice { workers, used: Default::default() };
        Self { links: HashMap::new(), dice, boot: OsRng.next_u64(), frames: 0, probed: HashMap::new() }
    }

    /// Forgets peers that are gone, and frees their indices.
    pub(super) fn follow(&mut self, peers: &dyn Fn(Slot) -> Option<PeerId>) {
        self.links.retain(|slot, link| peers(*slot) == Some(link.peer));
        self.probed.retain(|peer, _| peers(peer.slot) == Some(*peer));
        self.dice.used = self.links.values().flat_map(Link::indices).collect();
    }

    fn link(&mut self, peer: &Peer, shared: &Shared) -> &mut Link {
        let (id, boot) = (peer.id(), self.boot);
        let fresh = || {
            let terms = Terms {
                own: shared.private.clone(),
                peer: peer.spec().public_key,
                preshared_key: peer.spec().preshared_key.clone(),
                boot,
                workers: shared.sockets.len().min(64) as u16,
                suites: shared.options.suites.clone(),
            };
            Link::new(id, Exchange::new(terms), shared.sockets.len())
        };
        let link = self.links.entry(id.slot).or_insert_with(fresh);
        if link.peer != id {
            *link = fresh();
        }
        link
    }
}

/// Time that goes on while the machine sleeps.
pub(super) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

impl Clerk {
    /// Part of a frame came out of a peer's tunnel.
    pub(super) fn take_frame(&mut self, id: PeerId, packet: &[u8]) {
        let shared = Arc::clone(&self.shared);
        let snapshot = shared.snapshot.load();
        let Some(peer) = snapshot.peer(id.slot).filter(|peer| peer.id() == id) else { return };
        let Some(whole) = self.associates.link(peer, &shared).assembly.take(packet) else { return };
        self.with_link(peer, |link, dice, now| {
            // Whatever a peer sends that does not fit changes nothing.
            link.take(&whole, now, dice).unwrap_or_default()
        });
    }

    /// A worker receives on this generation.
    pub(super) fn installed(&mut self, id: PeerId, generation: u64, worker: usize) {
        self.with_known(id, |link, _, now| link.installed(generation, worker, now));
    }

    /// A worker took the first packet of this generation.
    pub(super) fn heard(&mut self, id: PeerId, generation: u64) {
        self.with_known(id, |link, _, now| link.heard(generation, now));
    }

    /// The peer's packets come from elsewhere now: its tunnel decides whether that is true.
    pub(super) fn probe(&mut self, id: PeerId, from: SocketAddr, to: Option<IpAddr>) {
        let now = now();
        let last = self.associates.probed.get(&id);
        if last.is_some_and(|last| now < *last + PROBE) {
            return;
        }
        self.associates.probed.insert(id, now);
        let snapshot = self.shared.snapshot.load_full();
        let Some(peer) = snapshot.peer(id.slot).filter(|peer| peer.id() == id) else { return };
        let mut out = std::mem::take(&mut self.out);
        let initiation = peer.lock().tunnel.rehandshake(OsRng.next_u32(), &mut out);
        if let Some(len) = initiation {
            self.send_reply(&out[..len], from, to);
        }
        self.out = out;
    }

    /// One peer's timers.
    pub(super) fn tick_link(&mut self, peer: &Peer) {
        if !peer.speaks() || self.shared.options.associations == Associations::Off {
            return;
        }
        let wanted = peer.was_wanted();
        let (has_session, passed) = {
            let session = peer.lock();
            (session.tunnel.has_session(), peer.passed(&session))
        };
        let known = self.associates.links.get(&peer.slot()).is_some_and(|link| link.peer == peer.id());
        if !known && !has_session && !wanted {
            return;
        }
        self.with_link(peer, |link, dice, now| {
            let mut deeds = Vec::new();
            if has_session && !link.greeted {
                deeds.push(link.hello());
            }
            deeds.extend(link.tick(now, passed, wanted, has_session, dice));
            deeds
        });
        // What could not be begun yet is still wanted.
        let sends = self.associates.links.get(&peer.slot()).is_some_and(|link| link.sending.is_some());
        if wanted && !sends {
            peer.want();
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
        let sending = link.sending;
        self.associates.dice = dice;
        peer.lock().association = sending.map(|sending| Association {
            suite: sending.suite,
            lanes: sending.lanes,
            age: now.saturating_sub(sending.since),
        });
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
                self.send_frame(peer, &mut peer.lock(), number, &frame, &mut out);
                self.out = out;
            }
        }
    }

    /// Seals a frame into the tunnel; without a session it is lost, and sent again by whoever needs it.
    fn send_frame(&self, peer: &Peer, session: &mut Session, number: u16, frame: &[u8], out: &mut [u8]) {
        let mut packet = [0; PACKET_MAX];
        for part in 0.. {
            let Some(len) = frame::write(number, frame, part, &mut packet) else { return };
            match session.seal(&packet[..len], out) {
                Ok(len) => self.send_to(peer, session, &out[..len]),
                Err(DropReason::NoSession) => return,
                Err(reason) => self.lose(reason, 1),
            }
        }
    }
}
