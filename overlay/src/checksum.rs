//! The Internet checksum (RFC 1071), wide: 32 bytes a step, so that the compiler can use vector registers.

use std::net::IpAddr;

/// A one's-complement sum under way, over 16-bit words in the byte order of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes. Only the last slice of a message may have an odd length.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let mut lanes = [0u64; 8];
        let mut chunks = bytes.chunks_exact(32);
        for chunk in &mut chunks {
            for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(4)) {
                *lane += u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut words = chunks.remainder().chunks_exact(2);
        let mut rest = 0;
        for word in &mut words {
            rest += u64::from(u16::from_le_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            rest += u64::from(*last);
        }
        let total =
            lanes.iter().fold(u64::from(self.fold()) + rest, |sum, lane| sum + (lane & 0xffff_ffff) + (lane >> 32));
        Self(total)
    }

    /// Adds one 16-bit number.
    #[must_use]
    pub fn add_u16(self, value: u16) -> Self {
        Self(self.0 + u64::from(value.swap_bytes()))
    }

    /// Adds the pseudo header of TCP or UDP (RFC 9293, RFC 8200 section 8.1) but for the length.
    #[must_use]
    pub fn add_pseudo(self, source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        let sum = match (source, destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.add_bytes(&from.octets()).add_bytes(&to.octets()),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.add_bytes(&from.octets()).add_bytes(&to.octets()),
            _ => self,
        };
        sum.add_u16(u16::from(protocol))
    }

    /// The sum in 16 bits, not complemented: what a partial checksum field holds.
    pub fn partial(self) -> [u8; 2] {
        self.fold().to_le_bytes()
    }

    /// The checksum field: the complement.
    pub fn finish(self) -> [u8; 2] {
        (!self.fold()).to_le_bytes()
    }

    /// True when the sum over a message with its checksum is right.
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        let sum = Sum::default().add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.partial(), [0xdd, 0xf2]);
    }

    proptest! {
        #[test]
        fn the_wide_sum_equals_the_naive_one(bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..1500) {
            let whole = Sum::default().add_bytes(&bytes);
            prop_assert_eq!(u16::from_be_bytes(whole.finish()), naive(&bytes));
            let cut = (cut * 2).min(bytes.len() & !1);
            prop_assert_eq!(Sum::default().add_bytes(&bytes[..cut]).add_bytes(&bytes[cut..]).finish(), whole.finish());
        }

        #[test]
        fn a_message_with_its_checksum_is_valid(mut bytes in proptest::collection::vec(any::<u8>(), 2..200)) {
            bytes[0] = 0;
            bytes[1] = 0;
            let field = Sum::default().add_bytes(&bytes).finish();
            bytes[..2].copy_from_slice(&field);
            prop_assert!(Sum::default().add_bytes(&bytes).is_valid());
        }
    }
}
