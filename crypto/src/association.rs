//! Associations: one-way data channels with a peer, beside the tunnel. One key, one counter, one replay window, one
//! owner each (as IPsec's per-CPU child SAs, RFC 9611), so that no two workers ever share any of it.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `04 00 00 00`, a WireGuard transport message |
//! | 4 | receiver index, little endian; bit 31 set, which no tunnel's has; its low 8 bits name the receiving worker |
//! | 8 | counter, little endian |
//! | n | ciphertext |
//! | 16 | tag |
//!
//! The nonce is four zero bytes and the counter; the sixteen header bytes are authenticated with the ciphertext.
//!
//! It never reads a clock, draws randomness, allocates, queues or sends: how long an association lives is told by whoever
//! negotiated it. Padding is the caller's.

mod replay;

use std::fmt;

use ring::aead::{AES_256_GCM, CHACHA20_POLY1305};
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use self::replay::Replay;
use crate::message::{DATA_HEADER_LEN, DATA_OVERHEAD, TAG_LEN};

/// Packets after which an association seals nothing more. A new generation is due long before.
pub const PACKETS_MAX: u64 = 1 << 40;
/// Packets after which a new generation is due. Whoever renews by age looks at that too.
pub const PACKETS_RENEW: u64 = 1 << 36;
/// The bit that tells an association's receiver index from a tunnel's.
pub const INDEX_BIT: u32 = 1 << 31;

/// The AEAD of an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D): the faster one where both CPUs have AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439): the faster one everywhere else.
    ChaCha20Poly1305,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Its name in configuration, records, status and benches.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// The suite of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// Its number in an exchange.
    pub const fn number(self) -> u16 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The suite of this number.
    pub fn by_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.number() == number)
    }

    fn key(self, key: &AssociationKey) -> LessSafeKey {
        let algorithm = match self {
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        // Both take 32 bytes, so this cannot fail; a key of zeros would be no answer to a failure.
        match UnboundKey::new(algorithm, &*key.0) {
            Ok(unbound) => LessSafeKey::new(unbound),
            Err(_) => unreachable!("a suite's key has 32 bytes"),
        }
    }
}

/// The key of one association. Wiped when dropped.
#[derive(Clone)]
pub struct AssociationKey(Zeroizing<[u8; 32]>);

impl AssociationKey {
    /// Takes derived bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for AssociationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssociationKey(..)")
    }
}

/// Why a packet was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssociationError {
    /// The association has sealed all that it may.
    #[error("the association is used up")]
    UsedUp,
    /// The output buffer is too small.
    #[error("the buffer is too small")]
    Buffer,
    /// No data message, or one for another association.
    #[error("not a packet of this association")]
    Malformed,
    /// Seen before, or older than the replay window.
    #[error("a replayed packet, or one that came too late")]
    Replay,
    /// The tag does not fit.
    #[error("a forged packet")]
    Forged,
}

/// The sending end. It belongs to one worker.
pub struct Sender {
    key: LessSafeKey,
    index: u32,
    counter: u64,
}

impl Sender {
    /// An end that sends to the receiver with this index. One key makes one sender, ever.
    pub fn new(suite: Suite, key: &AssociationKey, index: u32) -> Self {
        Self { key: suite.key(key), index, counter: 0 }
    }

    /// The receiver's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Packets sealed so far.
    pub fn sealed(&self) -> u64 {
        self.counter
    }

    /// Seals one packet into `out` (at least 32 bytes longer); gives the datagram's length. Empty is a keepalive.
    ///
    /// # Errors
    /// [`AssociationError::UsedUp`], [`AssociationError::Buffer`].
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, AssociationError> {
        let len = plaintext.len() + DATA_OVERHEAD;
        let out = out.get_mut(..len).ok_or(AssociationError::Buffer)?;
        if self.counter >= PACKETS_MAX {
            return Err(AssociationError::UsedUp);
        }
        let header = header(self.index, self.counter);
        let (head, rest) = out.split_at_mut(DATA_HEADER_LEN);
        let (body, tag) = rest.split_at_mut(plaintext.len());
        head.copy_from_slice(&header);
        body.copy_from_slice(plaintext);
        let nonce = nonce(self.counter);
        // Whatever comes of it, this counter is used.
        self.counter += 1;
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), body);
        tag.copy_from_slice(sealed.map_err(|_| AssociationError::UsedUp)?.as_ref());
        Ok(len)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({:08x}, {})", self.index, self.counter)
    }
}

/// The receiving end. It belongs to one worker.
pub struct Receiver {
    key: LessSafeKey,
    index: u32,
    replay: Replay,
}

impl Receiver {
    /// An end with this index of its own.
    pub fn new(suite: Suite, key: &AssociationKey, index: u32) -> Self {
        Self { key: suite.key(key), index, replay: Replay::default() }
    }

    /// Its index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Opens a datagram in its place; gives the packet in it, empty for a keepalive. What fails changes nothing here, but
    /// may have overwritten the datagram.
    ///
    /// # Errors
    /// [`AssociationError::Malformed`], [`AssociationError::Replay`], [`AssociationError::Forged`].
    pub fn open<'d>(&mut self, datagram: &'d mut [u8]) -> Result<&'d mut [u8], AssociationError> {
        let (header, sealed) =
            datagram.split_first_chunk_mut::<DATA_HEADER_LEN>().ok_or(AssociationError::Malformed)?;
        let (index, counter) = parse(header).ok_or(AssociationError::Malformed)?;
        if index != self.index || sealed.len() < TAG_LEN {
            return Err(AssociationError::Malformed);
        }
        self.replay.check(counter).then_some(()).ok_or(AssociationError::Replay)?;
        let opened = self.key.open_in_place(nonce(counter), Aad::from(*header), sealed);
        let packet = opened.map_err(|_| AssociationError::Forged)?;
        // Only what is authentic moves the window.
        self.replay.accept(counter);
        Ok(packet)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({:08x})", self.index)
    }
}

/// The receiver index of a data message that belongs to an association; `None` for a tunnel's.
pub fn index_of(datagram: &[u8]) -> Option<u32> {
    let (index, _) = parse(datagram.first_chunk()?)?;
    (index & INDEX_BIT != 0).then_some(index)
}

fn header(index: u32, counter: u64) -> [u8; DATA_HEADER_LEN] {
    let mut header = [0; DATA_HEADER_LEN];
    header[0] = 4;
    header[4..8].copy_from_slice(&index.to_le_bytes());
    header[8..].copy_from_slice(&counter.to_le_bytes());
    header
}

fn parse(header: &[u8; DATA_HEADER_LEN]) -> Option<(u32, u64)> {
    let [4, 0, 0, 0, i0, i1, i2, i3, counter @ ..] = header else { return None };
    Some((u32::from_le_bytes([*i0, *i1, *i2, *i3]), u64::from_le_bytes(*counter)))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
