//! Which session boringtun would seal with, and whether the peer has proven that it holds its keys.
//!
//! Boringtun keeps eight sessions in a ring and tells of the current one only whether it exists, by reading the clock.
//! It also lets a session that it made as responder take the current one's place in the ring before the peer has used
//! it, which a peer with another preshared key never will. So the same few rules are kept here, without a clock.

/// Sessions in boringtun's ring.
const RING: usize = 8;

/// What boringtun knows of its sessions, mirrored.
#[derive(Debug, Default)]
pub(super) struct Generations {
    ring: [Generation; RING],
    /// Receiver index of the session that seals.
    current: u32,
    /// The ring's place of `current` is filled.
    exists: bool,
    ticks: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Generation {
    /// Boringtun's session clock moves with its timers only.
    made: u64,
    confirmed: bool,
}

fn place(index: u32) -> usize {
    index as usize % RING
}

impl Generations {
    /// True while packets can be sealed, and opened at the other end.
    pub(super) fn usable(&self) -> bool {
        self.exists && self.ring[place(self.current)].confirmed
    }

    /// A session was made as responder, with this receiver index.
    pub(super) fn responded(&mut self, index: u32) {
        self.insert(index, false);
        self.exists |= place(index) == place(self.current);
    }

    /// A session was made as initiator, with this receiver index.
    pub(super) fn initiated(&mut self, index: u32) {
        self.insert(index, true);
        self.select(index);
    }

    /// A packet was opened by the session with this receiver index. True if it is the first one that confirms it.
    pub(super) fn opened(&mut self, index: u32) -> bool {
        let first = !std::mem::replace(&mut self.ring[place(index)].confirmed, true);
        self.select(index);
        first
    }

    /// Boringtun's timers ran; `exists` is what it says of its current session.
    pub(super) fn tick(&mut self, exists: bool) {
        self.ticks += 1;
        self.exists = exists;
    }

    fn insert(&mut self, index: u32, confirmed: bool) {
        self.ring[place(index)] = Generation { made: self.ticks, confirmed };
    }

    fn select(&mut self, index: u32) {
        if !self.exists || self.ring[place(index)].made >= self.ring[place(self.current)].made {
            self.current = index;
        }
        self.exists = true;
    }
}
