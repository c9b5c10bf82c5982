//! The Internet checksum (RFC 1071) over words in the byte order of the wire, 32 bytes a step.

/// The unfolded sum of `bytes`. Only the last slice of a message may have an odd length.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 8];
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(4)) {
            *lane += u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut words = chunks.remainder().chunks_exact(2);
    let mut total = 0;
    for word in &mut words {
        total += u64::from(u16::from_le_bytes([word[0], word[1]]));
    }
    total += words.remainder().first().map_or(0, |last| u64::from(*last));
    lanes.iter().fold(total, |sum, lane| sum + (lane & 0xffff_ffff) + (lane >> 32))
}

/// A big-endian number as it counts in a sum.
pub(super) fn word(value: u16) -> u64 {
    u64::from(value.swap_bytes())
}

/// The sum in 16 bits as they stand on the wire, not complemented.
pub(super) fn fold(mut sum: u64) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u16).to_le_bytes()
}

/// The checksum field.
pub(super) fn finish(sum: u64) -> [u8; 2] {
    fold(sum).map(|byte| !byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, section 3: the sum is ddf2.
    #[test]
    fn the_example_of_the_rfc_adds_up() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), [0xdd, 0xf2]);
        assert_eq!(finish(sum(&bytes)), [0x22, 0x0d]);
    }

    #[test]
    fn long_and_odd_slices_agree_with_a_plain_sum() {
        let bytes: Vec<u8> = (0..1421u32).map(|n| (n * 31 + n / 7) as u8).collect();
        for len in 0..bytes.len() {
            let mut plain = 0u64;
            for pair in bytes[..len].chunks(2) {
                plain += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            }
            while plain > 0xffff {
                plain = (plain & 0xffff) + (plain >> 16);
            }
            assert_eq!(fold(sum(&bytes[..len])), (plain as u16).to_be_bytes(), "length {len}");
        }
    }
}
