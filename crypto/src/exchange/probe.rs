//! The frames by which a sender learns whether its lane arrives. They prove nothing about keys: what carries them does.
//!
//! | frame | body after version (1), type (1) and length (2) |
//! |---|---|
//! | Probe (8), on the association itself | source port 2, whether that port is the lane's own 1 |
//! | Seen (9), in the tunnel | receiver index 4, then of the probe that came: port 2, own 1, and the port it came from 2; zeros for data |

use super::frame::{Reader, body, framed};

const PROBE: u8 = 8;
const SEEN: u8 = 9;

/// What a sender says on a lane that it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// The port that it sends from, as it knows it.
    pub port: u16,
    /// Only this lane's packets leave from there.
    pub own: bool,
}

/// What the receiver says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The receiver's index of the association on which something authentic came.
    pub index: u32,
    /// The probe that came, and from which port; `None` for data.
    pub probe: Option<(Probe, u16)>,
}

impl Probe {
    /// The whole frame.
    pub fn to_bytes(self) -> Vec<u8> {
        let [p0, p1] = self.port.to_le_bytes();
        framed(PROBE, &[p0, p1, u8::from(self.own)], 0)
    }

    /// Reads a whole frame; `None` when it is another.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut body = Reader(body(bytes, PROBE)?);
        let probe = read(&mut body)?;
        body.0.is_empty().then_some(probe)
    }
}

impl Seen {
    /// The whole frame.
    pub fn to_bytes(self) -> Vec<u8> {
        let (probe, from) = self.probe.unwrap_or((Probe { port: 0, own: false }, 0));
        let mut body = self.index.to_le_bytes().to_vec();
        body.extend(probe.port.to_le_bytes());
        body.push(u8::from(probe.own));
        body.extend(from.to_le_bytes());
        framed(SEEN, &body, 0)
    }

    /// Reads a whole frame; `None` when it is another.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut body = Reader(body(bytes, SEEN)?);
        let (index, probe, from) = (body.u32()?, read(&mut body)?, body.u16()?);
        let data = (probe, from) == (Probe { port: 0, own: false }, 0);
        let fits = body.0.is_empty() && (data || probe.port != 0);
        fits.then_some(Self { index, probe: (!data).then_some((probe, from)) })
    }
}

fn read(body: &mut Reader<'_>) -> Option<Probe> {
    let (port, [own]) = (body.u16()?, body.array()?);
    (own < 2).then_some(Probe { port, own: own == 1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::frame::Frame;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(index: u32, port in 1u16.., own: bool, from: u16) {
            let probe = Probe { port, own };
            prop_assert_eq!(Probe::parse(&probe.to_bytes()), Some(probe));
            for seen in [Seen { index, probe: Some((probe, from)) }, Seen { index, probe: None }] {
                let bytes = seen.to_bytes();
                prop_assert_eq!(Seen::parse(&bytes), Some(seen));
                prop_assert_eq!(Probe::parse(&bytes), None);
                prop_assert_eq!(Seen::parse(&bytes[..bytes.len() - 1]), None);
                prop_assert_eq!(Seen::parse(&[bytes.as_slice(), &[0]].concat()), None);
                prop_assert_eq!(Frame::parse(&bytes), None, "no frame of an exchange");
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = (Probe::parse(&bytes), Seen::parse(&bytes));
        }
    }
}
