//! The exchange's frames, byte for byte. Everything is little endian; a list is its length (16 bit) and its items.
//!
//! | frame | body after version (1), type (1) and length (2) |
//! |---|---|
//! | Offer (1) | number 8, boot 8, nonce 32, workers 2, suites 2 + 2n, X25519 key 32, ML-KEM-768 key 1184 |
//! | Answer (2) | number 8, boot 8, nonce 32, workers 2, suite 2, X25519 key 32, ML-KEM ciphertext 1088, indices 2 + 4n, MAC 32 |
//! | Confirm (3) | number 8, indices 2 + 4n, MAC 32 |
//! | Ack (4) | number 8, MAC 32 |
//! | Close (5) | number 8, MAC 32, zeros while there are no keys |
//! | Request (6) | nothing: the peer should begin |
//! | Hello (7) | boot 8: whoever knew this node before its start knows nothing that still holds |
//! | Probe (8), Seen (9) | see `probe` |

/// The layout that this code writes and reads.
const VERSION: u8 = 1;
/// Version, type, length.
const HEAD: usize = 4;
/// Length of a MAC.
pub(super) const MAC: usize = 32;
/// Length of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
pub(super) const KEM_KEY: usize = 1184;
/// Length of an ML-KEM-768 ciphertext.
pub(super) const KEM_CIPHERTEXT: usize = 1088;
/// Most lanes in one direction.
pub const LANES_MAX: usize = 64;
/// Most suites in an Offer.
const SUITES_MAX: usize = 16;
/// The longest frame, in bytes: an Answer with all lanes.
pub const FRAME_MAX: usize = HEAD + 8 + 8 + 32 + 2 + 2 + 32 + KEM_CIPHERTEXT + 2 + 4 * LANES_MAX + MAC;

/// The first message, by the initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) number: u64,
    pub(super) boot: u64,
    pub(super) nonce: [u8; 32],
    pub(super) workers: u16,
    pub(super) suites: Vec<u16>,
    pub(super) ephemeral: [u8; 32],
    pub(super) kem: Box<[u8; KEM_KEY]>,
}

/// The responder's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) boot: u64,
    pub(super) nonce: [u8; 32],
    pub(super) workers: u16,
    pub(super) suite: u16,
    pub(super) ephemeral: [u8; 32],
    pub(super) kem: Box<[u8; KEM_CIPHERTEXT]>,
    pub(super) indices: Vec<u32>,
}

/// A frame as read. MACs are checked by whoever has the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Offer(Offer),
    Answer(Answer, [u8; MAC]),
    Confirm { number: u64, indices: Vec<u32>, mac: [u8; MAC] },
    Ack { number: u64, mac: [u8; MAC] },
    Close { number: u64, mac: [u8; MAC] },
    Request,
    Hello { boot: u64 },
}

impl Frame {
    /// Reads a whole frame; `None` is not one that this code knows.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = bytes.get(1)?;
        let mut body = Reader(body(bytes, *kind)?);
        let frame = match kind {
            1 => Self::Offer(Offer {
                number: body.u64()?,
                boot: body.u64()?,
                nonce: body.array()?,
                workers: body.lanes()?,
                suites: body.list(SUITES_MAX, Reader::u16)?,
                ephemeral: body.array()?,
                kem: Box::new(body.array()?),
            }),
            2 => {
                let answer = Answer {
                    number: body.u64()?,
                    boot: body.u64()?,
                    nonce: body.array()?,
                    workers: body.lanes()?,
                    suite: body.u16()?,
                    ephemeral: body.array()?,
                    kem: Box::new(body.array()?),
                    indices: body.list(LANES_MAX, Reader::u32)?,
                };
                Self::Answer(answer, body.array()?)
            }
            3 => Self::Confirm { number: body.u64()?, indices: body.list(LANES_MAX, Reader::u32)?, mac: body.array()? },
            4 => Self::Ack { number: body.u64()?, mac: body.array()? },
            5 => Self::Close { number: body.u64()?, mac: body.array()? },
            6 => Self::Request,
            7 => Self::Hello { boot: body.u64()? },
            _ => return None,
        };
        body.0.is_empty().then_some(frame)
    }
}

impl Offer {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(FRAME_MAX);
        body.extend(self.number.to_le_bytes());
        body.extend(self.boot.to_le_bytes());
        body.extend(self.nonce);
        body.extend(self.workers.to_le_bytes());
        list(&mut body, &self.suites, |suite| suite.to_le_bytes());
        body.extend(self.ephemeral);
        body.extend(self.kem.as_slice());
        framed(1, &body, 0)
    }
}

impl Answer {
    /// Without its MAC, which [`with_mac`] appends; the length counts it already.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(FRAME_MAX);
        body.extend(self.number.to_le_bytes());
        body.extend(self.boot.to_le_bytes());
        body.extend(self.nonce);
        body.extend(self.workers.to_le_bytes());
        body.extend(self.suite.to_le_bytes());
        body.extend(self.ephemeral);
        body.extend(self.kem.as_slice());
        list(&mut body, &self.indices, |index| index.to_le_bytes());
        framed(2, &body, MAC)
    }
}

/// A Confirm without its MAC.
pub(super) fn confirm(number: u64, indices: &[u32]) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    list(&mut body, indices, |index| index.to_le_bytes());
    framed(3, &body, MAC)
}

/// An Ack without its MAC.
pub(super) fn ack(number: u64) -> Vec<u8> {
    framed(4, &number.to_le_bytes(), MAC)
}

/// A Close without its MAC.
pub(super) fn close(number: u64) -> Vec<u8> {
    framed(5, &number.to_le_bytes(), MAC)
}

/// A Request, whole.
pub(super) fn request() -> Vec<u8> {
    framed(6, &[], 0)
}

/// A Hello, whole.
pub(super) fn hello(boot: u64) -> Vec<u8> {
    framed(7, &boot.to_le_bytes(), 0)
}

/// The frame with its MAC behind it.
pub(super) fn with_mac(mut frame: Vec<u8>, mac: [u8; MAC]) -> Vec<u8> {
    frame.extend(mac);
    frame
}

/// What of a frame its MAC covers.
pub(super) fn without_mac(frame: &[u8]) -> &[u8] {
    frame.get(..frame.len().saturating_sub(MAC)).unwrap_or_default()
}

/// The body of a whole frame of this kind.
pub(super) fn body(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    let ([VERSION, kind, l0, l1], body) = bytes.split_first_chunk::<HEAD>()? else { return None };
    (*kind == wanted && body.len() == usize::from(u16::from_le_bytes([*l0, *l1]))).then_some(body)
}

pub(super) fn framed(kind: u8, body: &[u8], more: usize) -> Vec<u8> {
    // FRAME_MAX is far below 64 KiB.
    let len = (body.len() + more) as u16;
    let mut frame = Vec::with_capacity(HEAD + usize::from(len));
    frame.extend([VERSION, kind]);
    frame.extend(len.to_le_bytes());
    frame.extend(body);
    frame
}

fn list<T: Copy, const N: usize>(body: &mut Vec<u8>, items: &[T], bytes: impl Fn(T) -> [u8; N]) {
    body.extend((items.len() as u16).to_le_bytes());
    body.extend(items.iter().flat_map(|item| bytes(*item)));
}

pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn lanes(&mut self) -> Option<u16> {
        self.u16().filter(|lanes| (1..=LANES_MAX).contains(&usize::from(*lanes)))
    }

    fn list<T>(&mut self, most: usize, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let len = usize::from(self.u16()?);
        if len > most {
            return None;
        }
        (0..len).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer() -> Offer {
        Offer {
            number: 1,
            boot: 2,
            nonce: [3; 32],
            workers: 4,
            suites: vec![1, 2],
            ephemeral: [5; 32],
            kem: Box::new([6; KEM_KEY]),
        }
    }

    fn answer() -> Answer {
        Answer {
            number: 1,
            boot: 2,
            nonce: [3; 32],
            workers: 64,
            suite: 1,
            ephemeral: [5; 32],
            kem: Box::new([6; KEM_CIPHERTEXT]),
            indices: vec![7; LANES_MAX],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(Frame::parse(&offer().to_bytes()), Some(Frame::Offer(offer())));
        let bytes = with_mac(answer().to_bytes(), [8; MAC]);
        assert_eq!(bytes.len(), FRAME_MAX);
        assert_eq!(Frame::parse(&bytes), Some(Frame::Answer(answer(), [8; MAC])));
        let confirm = with_mac(confirm(9, &[1, 2]), [8; MAC]);
        assert_eq!(Frame::parse(&confirm), Some(Frame::Confirm { number: 9, indices: vec![1, 2], mac: [8; MAC] }));
        assert_eq!(Frame::parse(&with_mac(ack(9), [8; MAC])), Some(Frame::Ack { number: 9, mac: [8; MAC] }));
        assert_eq!(Frame::parse(&with_mac(close(9), [0; MAC])), Some(Frame::Close { number: 9, mac: [0; MAC] }));
        assert_eq!(Frame::parse(&request()), Some(Frame::Request));
        assert_eq!(Frame::parse(&hello(3)), Some(Frame::Hello { boot: 3 }));
    }

    #[test]
    fn no_lanes_or_too_many_are_no_frame() {
        for workers in [0, 65] {
            assert_eq!(Frame::parse(&Offer { workers, ..offer() }.to_bytes()), None);
        }
        let indices = vec![7; LANES_MAX + 1];
        assert_eq!(Frame::parse(&with_mac(confirm(1, &indices), [0; MAC])), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frame::parse(&bytes);
        }

        #[test]
        fn a_frame_cut_short_or_made_longer_is_refused(len in 0usize..FRAME_MAX) {
            let bytes = with_mac(answer().to_bytes(), [8; MAC]);
            prop_assert_eq!(Frame::parse(&bytes[..len]), None);
            let longer = [bytes.as_slice(), &[0]].concat();
            prop_assert_eq!(Frame::parse(&longer), None);
        }
    }
}
