//! ML-KEM-768 (FIPS 203) on plain bytes, its randomness given by the caller.

use ml_kem::kem::Decapsulate as _;
use ml_kem::{B32, Ciphertext, EncapsulateDeterministic as _, Encoded, EncodedSizeUser as _, KemCore, MlKem768};
use zeroize::Zeroizing;

use super::frame::{KEM_CIPHERTEXT, KEM_KEY};

type EncapsulationKey = <MlKem768 as KemCore>::EncapsulationKey;

/// The secret half.
#[cfg_attr(feature = "model", derive(Clone))]
pub(super) struct DecapsulationKey(<MlKem768 as KemCore>::DecapsulationKey);

/// A key pair out of 64 random bytes.
pub(super) fn generate(random: &[u8; 64]) -> (DecapsulationKey, Box<[u8; KEM_KEY]>) {
    let (mut d, mut z) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    d.copy_from_slice(&random[..32]);
    z.copy_from_slice(&random[32..]);
    let (secret, public) = MlKem768::generate_deterministic(&B32::from(*d), &B32::from(*z));
    let mut bytes = Box::new([0; KEM_KEY]);
    bytes.copy_from_slice(&public.as_bytes());
    (DecapsulationKey(secret), bytes)
}

/// A shared secret, and the ciphertext that carries it.
type Encapsulated = (Zeroizing<[u8; 32]>, Box<[u8; KEM_CIPHERTEXT]>);

/// A shared secret and its ciphertext, out of 32 random bytes; `None` for a key that is not well formed (FIPS 203, 7.2).
pub(super) fn encapsulate(key: &[u8; KEM_KEY], random: &[u8; 32]) -> Option<Encapsulated> {
    let encoded = Encoded::<EncapsulationKey>::try_from(key.as_slice()).ok()?;
    let public = EncapsulationKey::from_bytes(&encoded);
    if public.as_bytes() != encoded {
        return None;
    }
    let (ciphertext, secret) = public.encapsulate_deterministic(&B32::from(*random)).ok()?;
    let mut bytes = Box::new([0; KEM_CIPHERTEXT]);
    bytes.copy_from_slice(&ciphertext);
    Some((Zeroizing::new(secret.into()), bytes))
}

impl DecapsulationKey {
    /// The shared secret. A wrong ciphertext gives a secret that nobody else has.
    pub(super) fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT]) -> Option<Zeroizing<[u8; 32]>> {
        let ciphertext = Ciphertext::<MlKem768>::try_from(ciphertext.as_slice()).ok()?;
        self.0.decapsulate(&ciphertext).ok().map(|secret| Zeroizing::new(secret.into()))
    }
}
