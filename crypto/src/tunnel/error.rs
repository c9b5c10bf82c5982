//! Why a datagram or a packet did not pass.

use boringtun::noise::errors::WireGuardError;

/// Why a datagram or a packet did not pass. Never an end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// No session: queue the packet and call [`super::Tunnel::initiate`].
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

impl From<WireGuardError> for TunnelError {
    fn from(error: WireGuardError) -> Self {
        use WireGuardError as E;
        match error {
            E::DestinationBufferTooSmall => Self::Buffer,
            E::InvalidCounter | E::DuplicateCounter => Self::Replay,
            E::InvalidMac | E::InvalidAeadTag => Self::Forged,
            E::NoCurrentSession | E::ConnectionExpired => Self::NoSession,
            E::UnexpectedPacket
            | E::InvalidTai64nTimestamp
            | E::WrongTai64nTimestamp
            | E::LockFailed
            | E::UnderLoad => Self::Handshake,
            E::IncorrectPacketLength | E::WrongPacketType | E::WrongIndex | E::WrongKey | E::InvalidPacket => {
                Self::Malformed
            }
        }
    }
}
