//! The tunnel: one WireGuard session with one peer, by boringtun, and everything that boringtun leaves to its caller.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::Tunn;
use boringtun::noise::rate_limiter::RateLimiter;

use crate::keys::{PresharedKey, PrivateKey, PublicKey};

/// The node's own key and the one rate limiter that all its tunnels share.
pub struct Identity {
    /// The node's public key.
    pub public: PublicKey,
    private: PrivateKey,
    limiter: Arc<RateLimiter>,
}

/// Who sent a handshake initiation.
#[derive(Debug)]
pub enum Initiator<'o> {
    /// The holder of this key, if the handshake that follows succeeds.
    Peer(PublicKey),
    /// Nobody yet: the node is under load, send this cookie reply to the source.
    Cookie(&'o [u8]),
}

/// What a tunnel is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// The peer's public key.
    pub peer: PublicKey,
    /// The secret shared with the peer, if any.
    pub preshared_key: Option<PresharedKey>,
    /// Seconds between keepalives, if wanted.
    pub persistent_keepalive: Option<u16>,
    /// This tunnel's number, unique in the node, below [`crate::message::PEER_NUMBER_LIMIT`].
    pub number: u32,
}

/// Why a datagram or a packet did not pass. Never an end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// No session: queue the packet and call [`Tunnel::initiate`].
    #[error("no session with the peer yet")]
    NoSession,
    /// The output buffer is too small.
    #[error("the output buffer is too small")]
    Buffer,
    /// The counter was seen before, is too old, or is at the limit.
    #[error("the packet's counter was seen before or is out of the window")]
    Replay,
    /// Authentication failed.
    #[error("authentication failed")]
    Forged,
    /// Not a WireGuard message, or not one for this tunnel.
    #[error("not a message for this tunnel")]
    Malformed,
    /// A handshake that came too often, too late, or with a stale timestamp.
    #[error("the handshake was refused")]
    Handshake,
}

/// What an authentic datagram held.
#[derive(Debug)]
pub enum Opened<'o> {
    /// An inner IP packet, with its padding cut off; it starts at the start of the output buffer.
    Packet(&'o mut [u8]),
    /// A keepalive: nothing to deliver.
    Keepalive,
    /// Nothing to deliver; send these bytes back to the source.
    Reply(&'o [u8]),
}

/// A session with one peer.
pub struct Tunnel {
    noise: Tunn,
}

/// What the tunnel can tell of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelStatus {
    /// Since the current session was made, if there is one.
    pub handshake_age: Option<Duration>,
}

// Signatures only; see the crate's owner.
#[allow(unused_variables, missing_docs, clippy::todo)]
impl Identity {
    /// `handshakes_per_second` is where cookies start.
    pub fn new(private: PrivateKey, handshakes_per_second: u64) -> Self { todo!() }
    /// Call once a second.
    pub fn reset_limiter(&self) { todo!() }
    /// Finds out who sent an initiation: mac1 and cookie first, the Diffie-Hellman after.
    pub fn identify<'o>(&self, from: IpAddr, datagram: &[u8], out: &'o mut [u8]) -> Result<Initiator<'o>, TunnelError> { todo!() }
}

#[allow(unused_variables, missing_docs, clippy::todo)]
impl Tunnel {
    pub fn new(identity: &Identity, config: TunnelConfig) -> Self { todo!() }
    /// True while packets can be sealed. Reads no clock.
    pub fn has_session(&self) -> bool { todo!() }
    /// Seals one packet into `out` (at least `plaintext.len() + 32` and 148 bytes); gives the datagram's length.
    /// The caller pads. Never queues, never sends a handshake.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, TunnelError> { todo!() }
    /// Opens any datagram for this tunnel. `out` is `BUFFER_LEN` long for handshakes; for data at least the datagram's length.
    pub fn open<'o>(&mut self, from: IpAddr, datagram: &[u8], out: &'o mut [u8]) -> Result<Opened<'o>, TunnelError> { todo!() }
    /// There is traffic but no session: an initiation to send, unless one is under way or the backoff forbids it.
    /// `jitter` is any random number.
    pub fn initiate(&mut self, jitter: u32, out: &mut [u8]) -> Option<usize> { todo!() }
    /// Timers: call about four times a second. A datagram to send to the endpoint, if any.
    pub fn tick(&mut self, jitter: u32, out: &mut [u8]) -> Option<usize> { todo!() }
    pub fn status(&self) -> TunnelStatus { todo!() }
}
