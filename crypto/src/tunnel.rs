//! The tunnel: one WireGuard session with one peer, by boringtun, and everything that boringtun leaves to its caller.
//!
//! What is left to the caller, and where it is done:
//!
//! - A packet without a session would be queued on the heap: [`Tunnel::seal`] refuses it instead.
//! - A session made as responder may take the current one's place before the peer has proven to hold its keys
//!   (`generations`); nothing is sealed with it before.
//! - After nine minutes without a handshake, or ninety seconds without an answer to one, the tunnel expires for good:
//!   [`Tunnel::initiate`] and [`Tunnel::tick`] start over, paced by `pacing`. An expired tunnel answers its peer's
//!   initiation like any other, and is then as good as new.
//! - Its persistent keepalive would be sent beside traffic and queued without a session: it is done in
//!   [`Tunnel::tick`], after silence in both directions, as the kernel does.
//! - Buffers that are too small, and counters at the very end, would panic: they are errors here.
//! - One rate limiter for all tunnels, with the true source address ([`Identity`]). A source that has proven its
//!   address is not limited further, and the cookie does not cover its port.
//!
//! What stays as boringtun has it: the replay window is 1024 packets; silence is counted from the last packet received,
//! so the first packet after a pause may renew the keys early when its answer takes longer than a tick; no rekey by message count (a session lives for
//! three minutes, 2^60 packets do not fit); session keys are not wiped when they are dropped; expiry is logged with
//! `error!` although nothing is wrong (filter `boringtun=off`); the initiation's timestamp is the wall clock as it
//! stood when the tunnel was made, so a node that restarts with a clock set back is refused until that time has passed
//! or the peer's tunnel is made anew.
//!
//! It never sends, waits, queues or logs. Sealing and opening data reads no clock and allocates nothing; handshakes do
//! both. boringtun draws ephemeral keys from the operating system.

mod clock;
mod error;
mod generations;
mod identity;
mod pacing;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;

use self::clock::Clock;
use self::generations::Generations;
use self::pacing::Pacing;
use crate::keys::{PresharedKey, PublicKey};
use crate::message::{
    COUNTER_LIMIT, DATA_HEADER_LEN, DATA_OVERHEAD, INITIATION_LEN, Message, PEER_NUMBER_LIMIT, RESPONSE_LEN,
};

pub use self::error::TunnelError;
pub use self::identity::{Identity, Initiator};

/// Shortest IPv4 header; a total length below it is a lie.
const IPV4_HEADER_LEN: usize = 20;

/// What a tunnel is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// The peer's public key.
    pub peer: PublicKey,
    /// The secret shared with the peer, if any.
    pub preshared_key: Option<PresharedKey>,
    /// Seconds between keepalives, if wanted; zero is none.
    pub persistent_keepalive: Option<u16>,
    /// This tunnel's number, unique in the node, below [`PEER_NUMBER_LIMIT`].
    pub number: u32,
}

/// What an authentic datagram held.
#[derive(Debug)]
pub enum Opened<'o> {
    /// An inner IP packet, with its padding cut off; it starts at the start of the output buffer.
    Packet(&'o mut [u8]),
    /// Nothing to deliver, nothing to answer: a keepalive, or a cookie for the next initiation.
    Keepalive,
    /// Nothing to deliver; send these bytes back to the source.
    Reply(&'o [u8]),
}

/// A session with one peer.
pub struct Tunnel {
    noise: Tunn,
    number: u32,
    generations: Generations,
    pacing: Pacing,
    clock: Clock,
    /// When the newest proven session was proven, by `clock`.
    confirmed: Option<Duration>,
    keepalive: Option<Keepalive>,
}

/// Keeps a path open (NAT, firewalls) when nothing else does.
#[derive(Debug)]
struct Keepalive {
    interval: Duration,
    /// The last time anything authentic passed, to the tick.
    last: Duration,
    /// Something authentic passed since the last tick.
    passed: bool,
}

/// What the tunnel can tell of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelStatus {
    /// Since the newest session was proven, while there is a session.
    pub handshake_age: Option<Duration>,
    /// How long initiations have gone unanswered, also while the old session stands.
    pub unanswered: Option<Duration>,
}

impl Tunnel {
    /// A tunnel at rest; with a persistent keepalive, its first [`Tunnel::tick`] starts a handshake.
    pub fn new(identity: &Identity, config: TunnelConfig) -> Self {
        debug_assert!(config.number < PEER_NUMBER_LIMIT, "peer number {} is out of range", config.number);
        let noise = Tunn::new(
            identity.secret.clone(),
            x25519::PublicKey::from(*config.peer.as_bytes()),
            config.preshared_key.as_ref().map(|key| *key.as_bytes()),
            None,
            config.number,
            Some(identity.limiter.clone()),
        );
        Self {
            noise,
            number: config.number,
            generations: Generations::default(),
            pacing: Pacing::default(),
            clock: Clock::start(),
            confirmed: None,
            keepalive: config.persistent_keepalive.and_then(Keepalive::new),
        }
    }

    /// True while packets can be sealed. Reads no clock.
    pub fn has_session(&self) -> bool {
        self.generations.usable()
    }

    /// Seals one packet into `out` (at least `plaintext.len() + 32` and 148 bytes); gives the datagram's length.
    /// The caller pads. An empty packet is a keepalive. Never queues, never sends a handshake.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, TunnelError> {
        if !self.has_session() {
            return Err(TunnelError::NoSession);
        }
        if out.len() < INITIATION_LEN.max(plaintext.len() + DATA_OVERHEAD) {
            return Err(TunnelError::Buffer);
        }
        match self.noise.encapsulate(plaintext, out) {
            TunnResult::WriteToNetwork(datagram) => {
                Keepalive::pass(&mut self.keepalive);
                Ok(datagram.len())
            }
            TunnResult::Err(error) => Err(error.into()),
            _ => Err(TunnelError::NoSession),
        }
    }

    /// Opens any datagram for this tunnel. `out` is [`crate::message::BUFFER_LEN`] long for handshakes; for data at
    /// least the datagram's length. An error leaves the tunnel as it was, and `out` with no plaintext that may be used.
    pub fn open<'o>(&mut self, from: IpAddr, datagram: &[u8], out: &'o mut [u8]) -> Result<Opened<'o>, TunnelError> {
        match Message::classify(datagram).ok_or(TunnelError::Malformed)? {
            Message::Data { peer, counter } if peer == self.number => self.open_data(from, datagram, counter, out),
            Message::Reply { peer } if peer == self.number => self.open_handshake(from, datagram, out),
            Message::Initiation => self.open_handshake(from, datagram, out),
            _ => Err(TunnelError::Malformed),
        }
    }

    fn open_data<'o>(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        counter: u64,
        out: &'o mut [u8],
    ) -> Result<Opened<'o>, TunnelError> {
        if counter >= COUNTER_LIMIT {
            return Err(TunnelError::Replay);
        }
        if out.len() < datagram.len() - DATA_HEADER_LEN {
            return Err(TunnelError::Buffer);
        }
        let opened = match self.noise.decapsulate(Some(from), datagram, out) {
            // An inner length that is a lie was authentic all the same.
            TunnResult::Err(boringtun::noise::errors::WireGuardError::InvalidPacket) => Err(TunnelError::Malformed),
            TunnResult::Err(error) => return Err(error.into()),
            TunnResult::WriteToTunnelV4(packet, _) if packet.len() < IPV4_HEADER_LEN => Err(TunnelError::Malformed),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Ok(Opened::Packet(packet))
            }
            _ => Ok(Opened::Keepalive),
        };
        Keepalive::pass(&mut self.keepalive);
        if self.generations.opened(index_at(datagram, 4)) {
            self.confirm();
        }
        opened
    }

    fn open_handshake<'o>(
        &mut self,
        from: IpAddr,
        datagram: &[u8],
        out: &'o mut [u8],
    ) -> Result<Opened<'o>, TunnelError> {
        if out.len() < INITIATION_LEN {
            return Err(TunnelError::Buffer);
        }
        let reply = match self.noise.decapsulate(Some(from), datagram, out) {
            TunnResult::WriteToNetwork(reply) => &*reply,
            TunnResult::Err(error) => return Err(error.into()),
            _ => return Ok(Opened::Keepalive),
        };
        // What boringtun answers tells what it made of the message; a cookie reply is neither of these.
        match (datagram.len(), reply.len()) {
            (INITIATION_LEN, RESPONSE_LEN) => {
                self.generations.responded(index_at(reply, 4));
                self.pacing.responded(self.clock.now());
            }
            (RESPONSE_LEN, DATA_OVERHEAD) => {
                self.generations.initiated(index_at(datagram, 8));
                self.confirm();
            }
            _ => {}
        }
        Ok(Opened::Reply(reply))
    }

    fn confirm(&mut self) {
        self.confirmed = Some(self.clock.now());
        self.pacing.confirmed();
    }

    /// There is traffic but no session: an initiation to send, unless one is under way or the pace forbids it; then
    /// [`Tunnel::tick`] sends it as soon as it may. `jitter` is any random number. `out` holds at least 148 bytes.
    pub fn initiate(&mut self, jitter: u32, out: &mut [u8]) -> Option<usize> {
        if self.has_session() {
            return None;
        }
        self.pacing.want();
        self.start(self.clock.now(), jitter, out)
    }

    /// A fresh handshake although there may be a session, to measure the way to the peer or to prove that it lives.
    /// The session stays until the new one is there. `None` while the pace forbids it. `out` holds at least 148 bytes.
    pub fn rehandshake(&mut self, jitter: u32, out: &mut [u8]) -> Option<usize> {
        self.start(self.clock.now(), jitter, out)
    }

    fn start(&mut self, now: Duration, jitter: u32, out: &mut [u8]) -> Option<usize> {
        if !self.pacing.allows(now) || out.len() < INITIATION_LEN {
            return None;
        }
        let TunnResult::WriteToNetwork(initiation) = self.noise.format_handshake_initiation(out, false) else {
            self.pacing.under_way();
            return None;
        };
        self.pacing.initiated(now, jitter);
        Some(initiation.len())
    }

    /// Timers: call about four times a second. A datagram to send to the endpoint, if any. `out` holds at least 148
    /// bytes.
    pub fn tick(&mut self, jitter: u32, out: &mut [u8]) -> Option<usize> {
        if out.len() < INITIATION_LEN {
            return None;
        }
        let now = self.clock.now();
        self.run_timers(now, jitter, out)
            .or_else(|| self.flush(out))
            .or_else(|| self.keep_alive(now, out))
            .or_else(|| self.start_wanted(now, jitter, out))
    }

    /// Boringtun's own timers: rekey, repeated initiations, passive keepalive, expiry.
    fn run_timers(&mut self, now: Duration, jitter: u32, out: &mut [u8]) -> Option<usize> {
        let expired = self.noise.is_expired();
        let sent = match self.noise.update_timers(out) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
            _ => None,
        };
        self.generations.tick(self.noise.time_since_last_handshake().is_some());
        if !expired && self.noise.is_expired() {
            self.pacing.expired(now, jitter);
        }
        if sent == Some(INITIATION_LEN) {
            self.pacing.initiated(now, jitter);
        }
        sent
    }

    /// A passive keepalive that fell due without a session waits in boringtun's queue, the only thing that ever does.
    fn flush(&mut self, out: &mut [u8]) -> Option<usize> {
        if !self.has_session() {
            return None;
        }
        match self.noise.decapsulate(None, &[], out) {
            TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
            _ => None,
        }
    }

    fn keep_alive(&mut self, now: Duration, out: &mut [u8]) -> Option<usize> {
        if !self.keepalive.as_mut()?.is_due(now) {
            return None;
        }
        self.seal(&[], out).ok()
    }

    fn start_wanted(&mut self, now: Duration, jitter: u32, out: &mut [u8]) -> Option<usize> {
        if self.has_session() || !(self.keepalive.is_some() || self.pacing.is_wanted()) {
            return None;
        }
        self.start(now, jitter, out)
    }

    /// What there is to tell. Reads the clock.
    pub fn status(&self) -> TunnelStatus {
        let confirmed = self.confirmed.filter(|_| self.has_session());
        let now = self.clock.now();
        TunnelStatus {
            handshake_age: confirmed.map(|at| now.saturating_sub(at)),
            unanswered: self.pacing.unanswered(now),
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("number", &self.number)
            .field("generations", &self.generations)
            .field("pacing", &self.pacing)
            .finish_non_exhaustive()
    }
}

impl Keepalive {
    fn new(seconds: u16) -> Option<Self> {
        let interval = Duration::from_secs(u64::from(seconds));
        (seconds > 0).then_some(Self { interval, last: Duration::ZERO, passed: false })
    }

    fn pass(keepalive: &mut Option<Self>) {
        if let Some(keepalive) = keepalive {
            keepalive.passed = true;
        }
    }

    fn is_due(&mut self, now: Duration) -> bool {
        if std::mem::take(&mut self.passed) {
            self.last = now;
        }
        now.saturating_sub(self.last) >= self.interval
    }
}

/// A little-endian session index in a message whose length was checked.
fn index_at(message: &[u8], at: usize) -> u32 {
    message.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}
