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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagram(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        bytes
    }

    #[test]
    fn each_message_is_known_by_its_type_and_its_exact_length() {
        assert_eq!(Message::classify(&datagram(1, 148)), Some(Message::Initiation));
        assert_eq!(Message::classify(&datagram(2, 92)), Some(Message::Reply { peer: 0x000b_0a09 }));
        assert_eq!(Message::classify(&datagram(3, 64)), Some(Message::Reply { peer: 0x0007_0605 }));
        let data = Message::Data { peer: 0x0007_0605, counter: 0x0f0e_0d0c_0b0a_0908 };
        assert_eq!(Message::classify(&datagram(4, 32)), Some(data));
        assert_eq!(Message::classify(&datagram(4, DATAGRAM_MAX)), Some(data));
    }

    #[test]
    fn any_other_length_or_reserved_byte_is_not_wireguard() {
        for (kind, len) in [(1, 147), (1, 149), (2, 91), (2, 93), (3, 63), (3, 65), (4, 31), (0, 148), (5, 148)] {
            assert_eq!(Message::classify(&datagram(kind, len)), None, "type {kind}, {len} bytes");
        }
        for reserved in 1..4 {
            let mut bytes = datagram(4, 64);
            bytes[reserved] = 1;
            assert_eq!(Message::classify(&bytes), None);
        }
    }

    #[test]
    fn a_peer_number_never_reaches_the_bit_of_associations() {
        let largest_index = (PEER_NUMBER_LIMIT - 1) << 8 | 0xff;
        assert_eq!(largest_index >> 31, 0);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_classifying_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Message::classify(&bytes);
        }

        #[test]
        fn no_length_of_a_known_type_makes_classifying_panic(kind in 0u8..6, len in 0usize..200) {
            let mut bytes = vec![0; len];
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let is_message = matches!((kind, len), (1, 148) | (2, 92) | (3, 64) | (4, 32..));
            prop_assert_eq!(Message::classify(&bytes).is_some(), is_message);
        }
    }
}
