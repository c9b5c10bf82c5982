//! The clerk: one thread for everything that is not bulk data. Handshakes, cookies, timers, packets that wait.
//!
//! Its mailbox is bounded; when it is full, handshakes are dropped and counted, and bulk data does not notice.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore as _};
use warren_crypto::exchange;
use warren_crypto::message::{BUFFER_LEN, COOKIE_LEN, INITIATION_LEN, Message};
use warren_crypto::tunnel::{Initiator, Opened};
use warren_io::{Sent, Train};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Seal as _, Slot};
use warren_overlay::frame::PACKET_MAX;

use super::Shared;
use super::associates::Associates;
use super::counters::WorkerCounters;
use super::orders::PeerId;
use super::peer::{Destination, Peer, Session, reason};

/// Letters that wait, at most: with [`INITIATION_LEN`] bytes each below 100 KiB.
const MAILBOX: usize = 512;
/// Of these, handshakes at most.
const HANDSHAKES: usize = 384;
/// How often every tunnel's timers run.
const TICK: Duration = Duration::from_millis(250);
/// New peers greeted in one tick: a few hundred a second, so that 5,000 do not come at once.
const GREETINGS: usize = 64;
/// How often the handshake rate limiter starts afresh.
const LIMITER_PERIOD: Duration = Duration::from_secs(1);

/// What the clerk is asked to do.
#[allow(clippy::large_enum_variant, reason = "a box would be an allocation on the worker that hands it over")]
enum Letter {
    Handshake {
        bytes: [u8; INITIATION_LEN],
        len: usize,
        from: SocketAddr,
        to: Option<IpAddr>,
    },
    Frame {
        peer: PeerId,
        packet: Box<[u8]>,
    },
    Ready,
    Heard {
        peer: PeerId,
        generation: u64,
        index: u32,
    },
    /// Generation and index of the association on which it came; what it said, and from which port.
    Probed {
        peer: PeerId,
        of: (u64, u32),
        probe: (exchange::Probe, u16),
    },
    Probe {
        peer: PeerId,
        from: SocketAddr,
        to: Option<IpAddr>,
    },
    Connect(Slot),
    HandshakeNow(Slot),
    Look,
    Stop,
}

/// The clerk's address; every worker has one.
#[derive(Clone)]
pub(super) struct Mailbox {
    letters: SyncSender<Letter>,
    /// Handshakes among them: strangers send these, and may not keep out what peers say.
    handshakes: Arc<AtomicUsize>,
}

impl Mailbox {
    /// Hands over a handshake datagram; false when the mailbox is full.
    pub(super) fn handshake(&self, datagram: &[u8], from: SocketAddr, to: Option<IpAddr>) -> bool {
        if self.handshakes.fetch_add(1, Ordering::Relaxed) >= HANDSHAKES {
            self.handshakes.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let mut bytes = [0; INITIATION_LEN];
        let len = datagram.len().min(INITIATION_LEN);
        bytes[..len].copy_from_slice(&datagram[..len]);
        let taken = self.letters.try_send(Letter::Handshake { bytes, len, from, to }).is_ok();
        if !taken {
            self.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Hands over part of a control frame. `peer`: who sent it, if it is one with whom associations are agreed on.
    ///
    /// # Errors
    /// Why it is lost: nobody who may send frames, too long for a part, or no room. What finds no room is sent again.
    pub(super) fn control(&self, peer: Option<PeerId>, packet: &[u8]) -> Result<(), DropReason> {
        let peer = peer.ok_or(DropReason::ReservedAddress)?;
        if packet.len() > PACKET_MAX {
            return Err(DropReason::UnknownFrame);
        }
        let letter = Letter::Frame { peer, packet: packet.into() };
        self.letters.try_send(letter).map_err(|_| DropReason::QueueFull)
    }

    /// A worker is ready. A full mailbox is fine: that is seen at the next tick.
    pub(super) fn ready(&self) {
        let _ = self.letters.try_send(Letter::Ready);
    }

    /// Data came on the association with this index: the first in this period. False when the mailbox is full.
    pub(super) fn heard(&self, peer: PeerId, generation: u64, index: u32) -> bool {
        self.letters.try_send(Letter::Heard { peer, generation, index }).is_ok()
    }

    /// A probe came on the association of this generation and index, from this port. Lost letters are followed by others.
    pub(super) fn probed(&self, peer: PeerId, of: (u64, u32), probe: (exchange::Probe, u16)) {
        let _ = self.letters.try_send(Letter::Probed { peer, of, probe });
    }

    /// A peer's packets come from another address; lost letters are followed by others.
    pub(super) fn probe(&self, peer: PeerId, from: SocketAddr, to: Option<IpAddr>) {
        let _ = self.letters.try_send(Letter::Probe { peer, from, to });
    }

    /// Packets wait for this peer; false when the mailbox is full.
    pub(super) fn connect(&self, slot: Slot) -> bool {
        self.letters.try_send(Letter::Connect(slot)).is_ok()
    }

    /// A fresh handshake, whatever there is; false when the mailbox is full.
    pub(super) fn handshake_now(&self, slot: Slot) -> bool {
        self.letters.try_send(Letter::HandshakeNow(slot)).is_ok()
    }

    /// There are new peers. A full mailbox is fine: they are seen at the next tick.
    pub(super) fn look(&self) {
        let _ = self.letters.try_send(Letter::Look);
    }

    /// Ends the clerk. A full mailbox is fine: the stop flag is seen at the next tick.
    pub(super) fn stop(&self) {
        let _ = self.letters.try_send(Letter::Stop);
    }
}

/// The thread's state.
pub(super) struct Clerk {
    pub(super) shared: Arc<Shared>,
    letters: Receiver<Letter>,
    handshakes: Arc<AtomicUsize>,
    pub(super) out: Box<[u8]>,
    pub(super) associates: Associates,
    /// The snapshot that was seen last.
    generation: u64,
}

impl Clerk {
    pub(super) fn new(shared: Arc<Shared>) -> (Mailbox, Self) {
        let (sender, letters) = sync_channel(MAILBOX);
        let associates = Associates::new(shared.sockets.len());
        let mailbox = Mailbox { letters: sender, handshakes: Arc::default() };
        let handshakes = Arc::clone(&mailbox.handshakes);
        (mailbox, Self { handshakes, shared, letters, out: vec![0; BUFFER_LEN].into(), associates, generation: 0 })
    }

    /// Runs until the data path stops.
    pub(super) fn run(mut self) {
        let (mut next_tick, mut next_reset) = (Instant::now() + TICK, Instant::now() + LIMITER_PERIOD);
        while !self.shared.stop.load(Ordering::Acquire) {
            self.shared.roll.answer(self.shared.sockets.len());
            match self.letters.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(Letter::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(letter) => self.read(&letter),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if now >= next_reset {
                self.shared.identity.reset_limiter();
                next_reset = now + LIMITER_PERIOD;
            }
            if now >= next_tick {
                self.tick();
                // What this makes the workers tell comes when it can be read.
                self.shared.ticks.fetch_add(1, Ordering::Relaxed);
                next_tick = now + TICK;
            }
        }
    }

    fn counters(&self) -> &WorkerCounters {
        // One more than there are workers.
        &self.shared.counters[self.shared.counters.len() - 1]
    }

    pub(super) fn lose(&self, reason: DropReason, n: u64) {
        if n > 0 {
            self.counters().add(reason, n);
        }
    }

    fn read(&mut self, letter: &Letter) {
        match letter {
            Letter::Handshake { bytes, len, from, to } => {
                self.handshakes.fetch_sub(1, Ordering::Relaxed);
                if let Err(reason) = self.handshake(&bytes[..*len], *from, *to) {
                    self.lose(reason, 1);
                }
            }
            Letter::Frame { peer, packet } => self.take_frame(*peer, packet),
            Letter::Ready => self.collect_ready(),
            Letter::Heard { peer, generation, index } => self.heard(*peer, *generation, *index),
            Letter::Probed { peer, of, probe } => self.probed(*peer, *of, *probe),
            Letter::Probe { peer, from, to } => self.probe(*peer, *from, *to),
            Letter::Connect(slot) => self.connect(*slot, false),
            Letter::HandshakeNow(slot) => self.connect(*slot, true),
            Letter::Look => self.tick(),
            Letter::Stop => {}
        }
    }

    /// An initiation, a response or a cookie.
    fn handshake(&mut self, datagram: &[u8], from: SocketAddr, to: Option<IpAddr>) -> Result<(), DropReason> {
        let snapshot = self.shared.snapshot.load_full();
        let mut cookie = [0; INITIATION_LEN];
        let peer = match Message::classify(datagram).ok_or(DropReason::NotWireGuard)? {
            Message::Initiation => match self.shared.identity.identify(from.ip(), datagram, &mut cookie) {
                Ok(Initiator::Peer(key)) => snapshot.by_key(&key).ok_or(DropReason::UnknownPeer)?,
                Ok(Initiator::Cookie(reply)) => {
                    self.send_reply(reply, from, to);
                    return Ok(());
                }
                Err(error) => return Err(reason(error)),
            },
            Message::Reply { peer } => snapshot.peer(peer).ok_or(DropReason::UnknownTunnel)?,
            Message::Data { .. } => return Ok(()),
        };
        self.answer(peer, datagram, from, to)
    }

    fn answer(&mut self, peer: &Peer, datagram: &[u8], from: SocketAddr, to: Option<IpAddr>) -> Result<(), DropReason> {
        let mut out = std::mem::take(&mut self.out);
        let mut session = peer.lock();
        let opened = session.tunnel.open(from.ip(), datagram, &mut out).map(|opened| match opened {
            Opened::Reply(reply) => reply.len(),
            Opened::Packet(_) | Opened::Keepalive => 0,
        });
        let result = opened.map_err(reason).map(|len| {
            // A cookie proves nothing about the sender, so nobody moves for it.
            if len > 0 && len != COOKIE_LEN {
                session.heard(from, to);
            }
            if len > 0 {
                self.send_reply(&out[..len], from, to);
            }
            if session.tunnel.has_session() {
                session.connected();
                self.release(peer, &mut session, &mut out);
            }
        });
        drop(session);
        self.out = out;
        result
    }

    /// Somebody wants to send: an initiation, or the packets that waited.
    pub(super) fn connect(&mut self, slot: Slot, force: bool) {
        let snapshot = self.shared.snapshot.load_full();
        let Some(peer) = snapshot.peer(slot) else { return };
        let mut out = std::mem::take(&mut self.out);
        let mut session = peer.lock();
        session.answered();
        if session.tunnel.has_session() {
            self.release(peer, &mut session, &mut out);
        }
        let has_session = session.tunnel.has_session();
        if force || !session.tunnel.has_session() {
            let jitter = OsRng.next_u32();
            let len = if force {
                session.tunnel.rehandshake(jitter, &mut out)
            } else {
                session.tunnel.initiate(jitter, &mut out)
            };
            if let Some(len) = len {
                session.attempt();
                self.send_to(peer, &mut session, &out[..len]);
            }
        }
        drop(session);
        self.out = out;
        // What is being tried takes its time; asking for it again changes nothing.
        if has_session && !force && !self.associates.sends_to(peer) {
            self.tick_link(peer);
        }
    }

    /// Every tunnel's timers.
    fn tick(&mut self) {
        self.collect_ready();
        let snapshot = self.shared.snapshot.load_full();
        let mut out = std::mem::take(&mut self.out);
        let mut greetings = GREETINGS;
        for peer in snapshot.peers() {
            let mut session = peer.lock();
            if greetings > 0 && session.greet() {
                greetings -= 1;
                self.initiate(peer, &mut session, &mut out);
            }
            if let Some(len) = session.tunnel.tick(OsRng.next_u32(), &mut out) {
                if len == INITIATION_LEN {
                    session.attempt();
                }
                self.send_to(peer, &mut session, &out[..len]);
            }
            if session.has_waiting() && !session.tunnel.has_session() {
                self.keep_trying(peer, &mut session, &mut out);
            }
        }
        self.out = out;
        if self.generation != snapshot.generation {
            self.generation = snapshot.generation;
            self.associates.follow(&|slot| snapshot.peer(slot).map(|peer| peer.id()));
        }
        for peer in snapshot.peers() {
            self.tick_link(peer);
        }
        self.tick_probes();
        self.associates.free();
    }

    /// Packets wait: start again where the tunnel gave up, and give them up after the tunnel's own patience.
    fn keep_trying(&self, peer: &Peer, session: &mut Session, out: &mut [u8]) {
        self.initiate(peer, session, out);
        if session.is_stale(Instant::now()) {
            let lost = session.abandon_waiting();
            session.counters.drops += lost;
            self.lose(DropReason::NoSession, lost);
        }
    }

    pub(super) fn initiate(&self, peer: &Peer, session: &mut Session, out: &mut [u8]) {
        if let Some(len) = session.tunnel.initiate(OsRng.next_u32(), out) {
            session.attempt();
            self.send_to(peer, session, &out[..len]);
        }
    }

    /// The packets that waited, now that there is a session.
    fn release(&self, peer: &Peer, session: &mut Session, out: &mut [u8]) {
        while let Some(packet) = session.next_waiting() {
            match session.seal(&packet, out) {
                Ok(len) => {
                    session.counters.tx_packets += 1;
                    session.counters.tx_bytes += packet.len() as u64;
                    self.send_to(peer, session, &out[..len]);
                }
                Err(reason) => {
                    session.counters.drops += 1;
                    self.lose(reason, 1);
                }
            }
        }
    }

    pub(super) fn send_to(&self, peer: &Peer, session: &mut Session, datagram: &[u8]) {
        let Some(Destination { to, from, .. }) = session.destination(peer.slot()) else {
            return self.lose(DropReason::NoEndpoint, 1);
        };
        let sent = self.send(datagram, to, from);
        if sent.source_gone {
            session.forget_local();
        }
        session.counters.drops += sent.lost as u64;
    }

    pub(super) fn send_reply(&self, datagram: &[u8], to: SocketAddr, from: Option<IpAddr>) {
        self.send(datagram, to, from);
    }

    fn send(&self, datagram: &[u8], to: SocketAddr, from: Option<IpAddr>) -> Sent {
        let Some(socket) = self.shared.sockets.first() else { return Sent::default() };
        let sent = socket.send(&Train { to, from, segment: datagram.len(), payload: datagram }, true);
        self.lose(DropReason::SendFailed, sent.lost as u64);
        sent
    }
}

#[cfg(test)]
mod tests;
