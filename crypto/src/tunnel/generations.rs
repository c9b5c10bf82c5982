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

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer's first initiation makes index 1, as in boringtun.
    fn after_a_handshake() -> Generations {
        let mut generations = Generations::default();
        generations.tick(false);
        generations.responded(1);
        assert!(!generations.usable());
        assert!(generations.opened(1));
        assert!(!generations.opened(1), "only the first packet confirms");
        assert!(generations.usable());
        generations
    }

    #[test]
    fn a_session_that_ended_is_not_usable() {
        let mut generations = after_a_handshake();
        generations.tick(true);
        assert!(generations.usable());
        generations.tick(false);
        assert!(!generations.usable());
    }

    #[test]
    fn an_unproven_session_elsewhere_in_the_ring_does_not_matter() {
        let mut generations = after_a_handshake();
        generations.responded(2);
        assert!(generations.usable());
    }

    #[test]
    fn an_unproven_session_in_the_place_of_the_current_one_must_prove_itself() {
        let mut generations = after_a_handshake();
        (2..9).for_each(|index| generations.responded(index));
        assert!(generations.usable());
        generations.responded(9);
        assert!(!generations.usable());
        assert!(generations.opened(9));
        assert!(generations.usable());
    }

    #[test]
    fn a_late_packet_of_an_older_session_does_not_prove_the_newer_one() {
        let mut generations = Generations::default();
        generations.tick(false);
        generations.responded(7);
        generations.tick(false);
        // The ring's first place is the current one before there is any session.
        generations.responded(8);
        assert!(generations.opened(7));
        assert!(!generations.usable(), "boringtun seals with the newer session, unproven as it is");
        assert!(generations.opened(8));
        assert!(generations.usable());
    }

    #[test]
    fn a_late_packet_of_an_older_session_does_not_bring_it_back() {
        let mut generations = after_a_handshake();
        generations.tick(true);
        generations.initiated(2);
        generations.opened(1);
        // Boringtun still seals with the second one, whose place an unproven session now takes.
        generations.responded(10);
        assert!(!generations.usable());
    }
}
