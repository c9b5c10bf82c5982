//! The node's own key, and the guard at the door: what every handshake passes before it may cost anything.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};
use boringtun::x25519;

use super::TunnelError;
use crate::keys::{PrivateKey, PublicKey};
use crate::message::COOKIE_LEN;

/// The limiter counts an initiation twice: in [`Identity::identify`] and in [`super::Tunnel::open`].
const COUNTS_PER_HANDSHAKE: u64 = 2;

/// The node's own key and the one rate limiter that all its tunnels share.
pub struct Identity {
    /// The node's public key.
    pub public: PublicKey,
    pub(super) secret: x25519::StaticSecret,
    pub(super) limiter: Arc<RateLimiter>,
}

/// Who sent a handshake initiation.
#[derive(Debug)]
pub enum Initiator<'o> {
    /// The holder of this key, if the handshake that follows succeeds.
    Peer(PublicKey),
    /// Nobody yet: the node is under load, send this cookie reply to the source.
    Cookie(&'o [u8]),
}

impl Identity {
    /// `handshakes_per_second` is where cookies start: beyond it, a source must first prove that it receives at its
    /// address. Initiations that no tunnel takes count half.
    pub fn new(private: PrivateKey, handshakes_per_second: u64) -> Self {
        let public = private.public_key();
        let limit = handshakes_per_second.saturating_mul(COUNTS_PER_HANDSHAKE);
        let limiter = RateLimiter::new(&x25519::PublicKey::from(*public.as_bytes()), limit);
        Self { public, secret: x25519::StaticSecret::from(*private.as_bytes()), limiter: Arc::new(limiter) }
    }

    /// Call at least once a second; more often does no harm, the count starts anew once a second.
    pub fn reset_limiter(&self) {
        self.limiter.reset_count();
    }

    /// Finds out who sent an initiation: mac1 and cookie first, the Diffie-Hellman after.
    ///
    /// `out` holds at least a cookie reply ([`COOKIE_LEN`]). Nothing is remembered, and the key is proven only by the
    /// tunnel that the datagram is then given to.
    pub fn identify<'o>(&self, from: IpAddr, datagram: &[u8], out: &'o mut [u8]) -> Result<Initiator<'o>, TunnelError> {
        if out.len() < COOKIE_LEN {
            return Err(TunnelError::Buffer);
        }
        match self.limiter.verify_packet(Some(from), datagram, out) {
            Ok(Packet::HandshakeInit(initiation)) => {
                let public = x25519::PublicKey::from(*self.public.as_bytes());
                let half = parse_handshake_anon(&self.secret, &public, &initiation)?;
                Ok(Initiator::Peer(PublicKey::from_bytes(half.peer_static_public)))
            }
            Err(TunnResult::WriteToNetwork(cookie)) => Ok(Initiator::Cookie(cookie)),
            Err(TunnResult::Err(error)) => Err(error.into()),
            _ => Err(TunnelError::Malformed),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("public", &self.public).finish_non_exhaustive()
    }
}
