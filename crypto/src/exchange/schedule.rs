//! The key schedule of an exchange.
//!
//! ```text
//! s1  = X25519(ephemeral, ephemeral)      s2 = ML-KEM-768      s3 = X25519(static, static)
//! th1 = SHA-256(label, Offer, Answer without MAC)              each with its length before it
//! th2 = SHA-256(th1, Confirm without MAC)
//! prk = HKDF-SHA-256-Extract(SHA-256(static I, static R), s1 s2 s3 psk)
//! MACs: HMAC-SHA-256 under Expand(prk, "answer" | "confirm" | "ack" | "close", th1)
//! association key = Expand(prk, "association", direction, lane, suite, th1)
//! ```

use ring::digest::{Context, SHA256};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::hmac::{self, HMAC_SHA256};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::frame::MAC;
use crate::association::{AssociationKey, Suite};
use crate::keys::{PresharedKey, PrivateKey, PublicKey};

const LABEL: &[u8] = b"warren associations 1";

/// Which way an association carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    FromInitiator = 0,
    FromResponder = 1,
}

/// What a MAC says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Answer,
    Confirm,
    Ack,
    Close,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Answer => b"answer",
            Self::Confirm => b"confirm",
            Self::Ack => b"ack",
            Self::Close => b"close",
        }
    }
}

/// What both ends share when the Answer is known.
#[cfg_attr(feature = "model", derive(Clone))]
pub(super) struct Schedule {
    prk: Prk,
    th1: [u8; 32],
}

/// Who talks to whom, and the secrets that do not change.
pub(super) struct Statics<'s> {
    pub(super) own: &'s PrivateKey,
    pub(super) peer: &'s PublicKey,
    pub(super) psk: Option<&'s PresharedKey>,
    pub(super) initiator: bool,
}

/// X25519; `None` when the result is zero (RFC 7748, section 6.1).
pub(super) fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let shared = StaticSecret::from(*private).diffie_hellman(&x25519_dalek::PublicKey::from(*public));
    shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
}

impl Schedule {
    /// `s1` and `s2` are this exchange's own secrets; `offer` and `answer` are the frames, the latter without its MAC.
    pub(super) fn new(
        statics: &Statics<'_>,
        (s1, s2): (&[u8; 32], &[u8; 32]),
        (offer, answer): (&[u8], &[u8]),
    ) -> Option<Self> {
        let s3 = agree(statics.own.as_bytes(), statics.peer.as_bytes())?;
        let own = statics.own.public_key();
        let (first, second) = if statics.initiator { (&own, statics.peer) } else { (statics.peer, &own) };
        let salt = digest(&[first.as_bytes(), second.as_bytes()]);
        let mut secrets = Zeroizing::new([0; 128]);
        let psk = statics.psk.map_or(&[0; 32], |psk| psk.as_bytes());
        for (place, secret) in secrets.chunks_exact_mut(32).zip([s1, s2, &*s3, psk]) {
            place.copy_from_slice(secret);
        }
        let prk = Salt::new(HKDF_SHA256, &salt).extract(&*secrets);
        let th1 = digest(&[&length(LABEL), LABEL, &length(offer), offer, &length(answer), answer]);
        Some(Self { prk, th1 })
    }

    /// The transcript up to the Confirm, which is given without its MAC.
    pub(super) fn th2(&self, confirm: &[u8]) -> [u8; 32] {
        digest(&[&self.th1, &length(confirm), confirm])
    }

    /// The MAC over the Answer's transcript.
    pub(super) fn answer_mac(&self) -> [u8; MAC] {
        self.mac(Purpose::Answer, &self.th1)
    }

    pub(super) fn mac(&self, purpose: Purpose, over: &[u8]) -> [u8; MAC] {
        let mut mac = [0; MAC];
        mac.copy_from_slice(hmac::sign(&self.mac_key(purpose), over).as_ref());
        mac
    }

    /// In constant time.
    pub(super) fn verifies(&self, purpose: Purpose, over: &[u8], mac: &[u8; MAC]) -> bool {
        hmac::verify(&self.mac_key(purpose), over, mac).is_ok()
    }

    pub(super) fn answer_verifies(&self, mac: &[u8; MAC]) -> bool {
        self.verifies(Purpose::Answer, &self.th1, mac)
    }

    /// The key of one association.
    pub(super) fn association(&self, direction: Direction, lane: u16, suite: Suite) -> AssociationKey {
        let (lane, suite) = (lane.to_le_bytes(), suite.number().to_le_bytes());
        AssociationKey::new(*self.expand(&[b"association", &[direction as u8], &lane, &suite, &self.th1]))
    }

    fn mac_key(&self, purpose: Purpose) -> hmac::Key {
        hmac::Key::new(HMAC_SHA256, &*self.expand(&[purpose.label(), &self.th1]))
    }

    fn expand(&self, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        // HKDF gives up to 255 blocks and one is asked for, so this cannot fail; zeros would be no answer if it did.
        match self.prk.expand(info, HKDF_SHA256).and_then(|okm| okm.fill(&mut *key)) {
            Ok(()) => key,
            Err(_) => unreachable!("one block of HKDF"),
        }
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn length(bytes: &[u8]) -> [u8; 4] {
    (bytes.len() as u32).to_le_bytes()
}
