//! The WireGuard messages on one page: layouts, sizes, limits (WireGuard paper, section 5.4; kernel `messages.h`).
//!
//! | type | layout (bytes) |
//! |---|---|
//! | initiation (1) | type 4, sender 4, ephemeral 32, static 48, timestamp 28, mac1 16, mac2 16 = 148 |
//! | response (2) | type 4, sender 4, receiver 4, ephemeral 32, nothing 16, mac1 16, mac2 16 = 92 |
//! | cookie (3) | type 4, receiver 4, nonce 24, cookie 32 = 64 |
//! | data (4) | type 4, receiver 4, counter 8, ciphertext ≥ 0, tag 16 ≥ 32 |

/// Length of a handshake initiation.
pub const INITIATION_LEN: usize = 148;
/// Length of a handshake response.
pub const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply.
pub const COOKIE_LEN: usize = 64;
/// Header of a data message before the ciphertext.
pub const DATA_HEADER_LEN: usize = 16;
/// Authentication tag after the ciphertext.
pub const TAG_LEN: usize = 16;
/// What a data message adds to an inner packet.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + TAG_LEN;
/// Plaintext is padded to a multiple of this, never beyond the MTU.
pub const PADDING: usize = 16;
/// The largest UDP payload over IPv4; nothing larger is ever sent or read.
pub const DATAGRAM_MAX: usize = 65_507;
/// Size of every buffer that boringtun writes into.
pub const BUFFER_LEN: usize = 65_536;
/// Counters from here on are refused (kernel `REJECT_AFTER_MESSAGES`: 2^64 - 2^13 - 1).
pub const COUNTER_LIMIT: u64 = u64::MAX - (1 << 13);
/// Peer numbers are below this: boringtun shifts them by 8, and bit 31 of a receiver index marks an association.
pub const PEER_NUMBER_LIMIT: u32 = 1 << 23;

/// What a datagram claims to be, by type and length alone. Nothing is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A handshake initiation; which peer sent it only its static key tells.
    Initiation,
    /// A handshake response or a cookie reply to the tunnel with this number.
    Reply {
        /// The tunnel's peer number.
        peer: u32,
    },
    /// A data message for the tunnel with this number.
    Data {
        /// The tunnel's peer number.
        peer: u32,
        /// The packet's counter.
        counter: u64,
    },
}

impl Message {
    /// Classifies a datagram; `None` is not WireGuard.
    pub fn classify(datagram: &[u8]) -> Option<Self> {
        let kind = u32_at(datagram, 0)?;
        match (kind, datagram.len()) {
            (1, INITIATION_LEN) => Some(Self::Initiation),
            (2, RESPONSE_LEN) => Some(Self::Reply { peer: u32_at(datagram, 8)? >> 8 }),
            (3, COOKIE_LEN) => Some(Self::Reply { peer: u32_at(datagram, 4)? >> 8 }),
            (4, DATA_OVERHEAD..) => Some(Self::Data {
                peer: u32_at(datagram, 4)? >> 8,
                counter: u64::from(u32_at(datagram, 8)?) | u64::from(u32_at(datagram, 12)?) << 32,
            }),
            _ => None,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}
