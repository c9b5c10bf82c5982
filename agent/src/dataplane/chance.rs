//! Randomness for exchanges, and receiver indices that nobody else has.

use std::collections::HashSet;

use rand_core::{OsRng, RngCore as _};
use warren_crypto::association::INDEX_BIT;
use warren_crypto::exchange::Chance;

/// Draws until a receiver index is taken that may be in use.
const TRIES: usize = 64;

/// Every receiver index of this node: bit 31, a random middle, and the receiving worker.
pub(super) struct Dice {
    pub(super) workers: usize,
    pub(super) used: HashSet<u32>,
}

impl Chance for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        OsRng.fill_bytes(bytes);
    }

    fn index(&mut self, lane: u16) -> u32 {
        // The same worker for the same lane in every generation, so that TUN flow steering settles. Below 64.
        let worker = (usize::from(lane) % self.workers.max(1)) as u32;
        let draw = || INDEX_BIT | (OsRng.next_u32() & 0x7fff_ff00) | worker;
        // Of eight million a few thousand are in use; a clash after so many tries costs one association.
        let index = (0..TRIES).map(|_| draw()).find(|index| !self.used.contains(index)).unwrap_or_else(draw);
        self.used.insert(index);
        index
    }
}
