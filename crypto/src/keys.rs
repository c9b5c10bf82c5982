//! X25519 keys and preshared keys, in the text form of `wg` (base64, 44 characters).
//!
//! Private and preshared keys are redacted in `Debug`, have no `Display` and no `Serialize`, and are wiped on drop.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
#[cfg(feature = "generate")]
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of every key, in bytes.
pub const KEY_LEN: usize = 32;

/// Why a text is not a key. Never carries the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not 44 characters of base64 that hold 32 bytes.
    #[error("a key is 44 characters of base64 (32 bytes), as `warren keygen` and `wg genkey` print it")]
    Malformed,
    /// The key is all zeroes, which no peer can have.
    #[error("the all-zero key is not a key")]
    Zero,
    /// A public key whose shared secret is the same with everybody: whoever claims it would be believed.
    #[error("this public key is a point of low order, whose secret everybody knows")]
    LowOrder,
}

fn decode(text: &str) -> Result<[u8; KEY_LEN], KeyError> {
    let mut bytes = Zeroizing::new([0u8; KEY_LEN + 1]);
    let len = STANDARD.decode_slice(text.trim(), &mut bytes[..]).map_err(|_| KeyError::Malformed)?;
    if len != KEY_LEN {
        return Err(KeyError::Malformed);
    }
    let mut key = [0u8; KEY_LEN];
    key.copy_from_slice(&bytes[..KEY_LEN]);
    if key == [0u8; KEY_LEN] {
        return Err(KeyError::Zero);
    }
    Ok(key)
}

/// The points of low order on Curve25519 and its twist, with the unused top bit clear (as libsodium lists them).
const LOW_ORDER: [[u8; KEY_LEN]; 7] = [
    [0; KEY_LEN],
    small(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    near_prime(0xec),
    near_prime(0xed),
    near_prime(0xee),
];

const fn small(number: u8) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key[0] = number;
    key
}

/// 2^255 - 19 is `0xed` here.
const fn near_prime(lowest: u8) -> [u8; KEY_LEN] {
    let mut key = [0xff; KEY_LEN];
    key[0] = lowest;
    key[KEY_LEN - 1] = 0x7f;
    key
}

/// A node's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Takes the raw bytes.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// True if no secret can be agreed with this key. Keys read from text never are.
    pub fn is_low_order(&self) -> bool {
        let mut point = self.0;
        point[KEY_LEN - 1] &= 0x7f;
        LOW_ORDER.contains(&point)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let key = Self(decode(text)?);
        if key.is_low_order() { Err(KeyError::LowOrder) } else { Ok(key) }
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A node's private key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// Draws a new key from the operating system.
    #[cfg(feature = "generate")]
    pub fn generate() -> Self {
        let mut bytes = [0u8; KEY_LEN];
        OsRng.fill_bytes(&mut bytes);
        // Clamped as `wg genkey` does (RFC 7748, section 5).
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// The text form, for the key file and `warren keygen` alone.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

/// A secret that two peers share beside their keys.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Private and public keys as `wg genkey` and `wg pubkey` (wireguard-tools 1.0.20210914) printed them.
    const FROM_WG: [[&str; 2]; 3] = [
        ["eF6LRuGCZzrZnJQXSAPSXXnT+wOaC5Uv9t62WKn3UkI=", "2sq/Ul1Mth5C6E+JKVuMyQF/TA+v/QB9W35oXBgdQkE="],
        ["eGfkt0DG3fBMKXWLxihb9WpM8E4L644ctFJTXNIoMX4=", "LgnoFSUlAYp9x/kFwzSErx0nBYISHSMDxtJ0Wx3yFx4="],
        ["KFwGNWISYczW21j6avKXivtJuS2iYrOPjZa9LKiMY0s=", "fAUeHPhG7jT0ULwKhgX6MHtbiK1XFaHsEOOmqoriois="],
    ];

    #[test]
    fn public_keys_are_those_of_wg() {
        for [private, public] in FROM_WG {
            let key: PrivateKey = private.parse().unwrap();
            assert_eq!(key.public_key().to_string(), public);
            assert_eq!(key.to_base64().as_str(), private);
        }
    }

    #[test]
    fn generated_keys_differ_and_are_clamped_as_wg_clamps_them() {
        let keys = [PrivateKey::generate(), PrivateKey::generate()];
        assert_ne!(keys[0].as_bytes(), keys[1].as_bytes());
        for key in keys {
            assert_eq!(key.as_bytes()[0] & 7, 0);
            assert_eq!(key.as_bytes()[31] & 192, 64);
        }
    }

    #[test]
    fn white_space_around_a_key_is_ignored() {
        let [private, public] = FROM_WG[0];
        assert_eq!(format!(" {public}\n").parse(), public.parse::<PublicKey>());
        assert!(format!("{private}\n").parse::<PrivateKey>().is_ok());
    }

    #[test]
    fn what_is_not_44_characters_of_base64_is_refused() {
        let public = FROM_WG[0][1];
        let cut = &public[..43];
        let spare_bits = public.replace("E=", "F=");
        for text in ["", "=", cut, &format!("{public}A"), &public.replace("2sq", "2s!"), &spare_bits, &"A".repeat(44)] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError::Malformed), "{text:?}");
            assert_eq!(text.parse::<PrivateKey>().err(), Some(KeyError::Malformed), "{text:?}");
            assert_eq!(text.parse::<PresharedKey>().err(), Some(KeyError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn the_zero_key_is_refused_everywhere() {
        let zero = STANDARD.encode([0u8; KEY_LEN]);
        assert_eq!(zero.parse::<PublicKey>(), Err(KeyError::Zero));
        assert_eq!(zero.parse::<PrivateKey>().err(), Some(KeyError::Zero));
        assert_eq!(zero.parse::<PresharedKey>().err(), Some(KeyError::Zero));
    }

    #[test]
    fn every_point_of_low_order_is_refused_because_everybody_knows_its_secret() {
        for point in LOW_ORDER {
            let secret = x25519_dalek::StaticSecret::from(*PrivateKey::generate().as_bytes());
            let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(point));
            assert!(!shared.was_contributory(), "{point:?} is not of low order");
            let mut with_top_bit = point;
            with_top_bit[31] |= 0x80;
            assert_eq!(STANDARD.encode(with_top_bit).parse::<PublicKey>(), Err(KeyError::LowOrder));
        }
    }

    #[test]
    fn public_keys_serialize_as_their_text() {
        let text = FROM_WG[1][1];
        let key: PublicKey = text.parse().unwrap();
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
        assert!(serde_json::from_str::<PublicKey>("\"short\"").is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let private: PrivateKey = FROM_WG[0][0].parse().unwrap();
        let preshared: PresharedKey = FROM_WG[0][0].parse().unwrap();
        assert_eq!(format!("{private:?}"), "PrivateKey(redacted)");
        assert_eq!(format!("{preshared:?}"), "PresharedKey(redacted)");
        assert!(!format!("{:?}", "eF6L".parse::<PrivateKey>()).contains("eF6L"));
    }

    proptest! {
        #[test]
        fn text_and_bytes_are_one_to_one(bytes: [u8; KEY_LEN]) {
            let key = PublicKey::from_bytes(bytes);
            prop_assume!(!key.is_low_order());
            prop_assert_eq!(key.to_string().len(), 44);
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".{0,80}") {
            let _ = text.parse::<PublicKey>();
            let _ = text.parse::<PrivateKey>();
            let _ = text.parse::<PresharedKey>();
        }

        #[test]
        fn two_keys_agree_on_a_secret(a: [u8; KEY_LEN], b: [u8; KEY_LEN]) {
            let (a, b) = (PrivateKey(a), PrivateKey(b));
            let shared = |own: &PrivateKey, peer: &PrivateKey| {
                let peer = x25519_dalek::PublicKey::from(*peer.public_key().as_bytes());
                x25519_dalek::StaticSecret::from(*own.as_bytes()).diffie_hellman(&peer).to_bytes()
            };
            prop_assert_eq!(shared(&a, &b), shared(&b, &a));
        }
    }
}
