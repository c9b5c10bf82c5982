//! Opening association packets: nothing is taken but what was sealed, once, in whatever order and shape it comes.
//!
//! The model is the plainest one: a set of counters taken, and the highest of them.

use std::collections::{BTreeMap, BTreeSet};

use warren_crypto::association::{AssociationError, AssociationKey, Receiver, Sender, Suite, index_of};

use super::{Feed, Seen};

const INDEX: u32 = 0x8123_4501;
/// As docs/protocol.md says.
const WINDOW: u64 = 8192;
/// Header and tag.
const OVERHEAD: usize = 32;

struct Way {
    sender: Sender,
    receiver: Receiver,
    /// What was sealed and kept, by counter.
    sealed: BTreeMap<u64, (Vec<u8>, Vec<u8>)>,
    taken: BTreeSet<u64>,
}

/// The body.
pub(super) fn run(input: &[u8], seen: &mut Seen) {
    let mut feed = Feed::new(input);
    let suite = Suite::ALL[feed.below(2)];
    let key = AssociationKey::new([feed.byte(); 32]);
    let (sender, receiver) = (Sender::new(suite, &key, INDEX), Receiver::new(suite, &key, INDEX));
    let mut way = Way { sender, receiver, sealed: BTreeMap::new(), taken: BTreeSet::new() };
    seen.note(suite.name());
    while !feed.is_empty() {
        match feed.byte() % 8 {
            0 | 1 => way.seal(feed.bytes().to_vec()),
            2 => way.skip(feed.word()),
            3 | 4 => way.deliver(&mut feed, seen),
            5 => way.deliver_altered(&mut feed, seen),
            6 => way.deliver_stretched(&mut feed, seen),
            _ => way.refuse(feed.bytes(), "arbitrary", seen),
        }
    }
}

impl Way {
    fn seal(&mut self, plaintext: Vec<u8>) {
        let counter = self.sender.sealed();
        let mut datagram = vec![0; plaintext.len() + OVERHEAD];
        assert_eq!(self.sender.seal(&plaintext, &mut datagram), Ok(datagram.len()));
        assert_eq!(datagram[8..16], counter.to_le_bytes(), "counters are used one after the other");
        assert_eq!(index_of(&datagram), Some(INDEX));
        self.sealed.insert(counter, (plaintext, datagram));
    }

    /// Packets that are lost: so that counters lie far apart.
    fn skip(&mut self, packets: u16) {
        for _ in 0..packets % 20_000 {
            assert_eq!(self.sender.seal(&[], &mut [0; OVERHEAD]), Ok(OVERHEAD));
        }
    }

    fn chosen(&self, feed: &mut Feed<'_>) -> Option<(u64, Vec<u8>, Vec<u8>)> {
        let at = feed.below(self.sealed.len());
        self.sealed
            .iter()
            .nth(at)
            .map(|(counter, (plaintext, datagram))| (*counter, plaintext.clone(), datagram.clone()))
    }

    fn open(&mut self, datagram: &[u8]) -> Result<Vec<u8>, AssociationError> {
        self.receiver.open(&mut datagram.to_vec()).map(|packet| packet.to_vec())
    }

    /// Whether the window has place for this counter.
    fn is_fresh(&self, counter: u64) -> bool {
        let next = self.taken.last().map_or(0, |highest| highest + 1);
        !self.taken.contains(&counter) && (counter >= next || next - counter <= WINDOW)
    }

    fn deliver(&mut self, feed: &mut Feed<'_>, seen: &mut Seen) {
        let Some((counter, plaintext, datagram)) = self.chosen(feed) else { return };
        let opened = self.open(&datagram);
        if self.is_fresh(counter) {
            assert_eq!(opened, Ok(plaintext), "a packet that was sealed, for the first time");
            seen.note(if Some(&counter) < self.taken.last() { "taken late" } else { "taken" });
            self.taken.insert(counter);
        } else {
            assert_eq!(opened, Err(AssociationError::Replay));
            seen.note(if self.taken.contains(&counter) { "seen before" } else { "behind the window" });
        }
    }

    fn deliver_altered(&mut self, feed: &mut Feed<'_>, seen: &mut Seen) {
        let Some((_, _, mut datagram)) = self.chosen(feed) else { return };
        let (at, by) = (feed.below(datagram.len()), feed.byte().max(1));
        datagram[at] ^= by;
        self.refuse(&datagram, "altered", seen);
    }

    fn deliver_stretched(&mut self, feed: &mut Feed<'_>, seen: &mut Seen) {
        let Some((_, _, mut datagram)) = self.chosen(feed) else { return };
        let (by, longer) = (1 + feed.below(40), feed.byte().is_multiple_of(2));
        let len = if longer { datagram.len() + by } else { datagram.len().saturating_sub(by) };
        datagram.resize(len, 0);
        self.refuse(&datagram, if longer { "longer" } else { "shorter" }, seen);
    }

    /// What nobody sealed is refused, and the window stands where it stood: what is delivered later would show it.
    fn refuse(&mut self, datagram: &[u8], how: &str, seen: &mut Seen) {
        if self.sealed.values().any(|(_, sealed)| sealed == datagram) {
            return;
        }
        match self.open(datagram) {
            Ok(_) => panic!("a packet was taken that nobody sealed ({how})"),
            Err(error) => seen.note(format!("{how}: {error:?}")),
        }
        let _ = index_of(datagram);
    }
}
