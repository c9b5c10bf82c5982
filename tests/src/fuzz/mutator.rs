//! Inputs made from inputs: for runs without libFuzzer, the same for the same seed.

use super::INPUT_MAX;

/// A source of inputs (SplitMix64).
#[derive(Clone, Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// With this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below.max(1) as u64) as usize
    }

    fn random(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.draw(256) as u8).collect()
    }

    /// The next input: one of these with a few changes, two of them in one, or something new.
    pub fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if corpus.is_empty() || self.draw(8) == 0 {
            let len = self.draw(200);
            return self.random(len);
        }
        let mut input = corpus[self.draw(corpus.len())].clone();
        for _ in 0..=self.draw(6) {
            self.change(&mut input, corpus);
        }
        input.truncate(INPUT_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.draw(input.len() + 1);
        match self.draw(6) {
            0 => input.truncate(at),
            1 => {
                let len = self.draw(8);
                input.splice(at..at, self.random(len));
            }
            2 => {
                let other = &corpus[self.draw(corpus.len())];
                let from = self.draw(other.len() + 1);
                input.splice(at..at, other[from..].iter().copied());
            }
            3 => drop(input.drain(at..(at + self.draw(8)).min(input.len()))),
            4 => input.get_mut(at).into_iter().for_each(|byte| *byte = self.draw(256) as u8),
            _ => input.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << self.draw(8)),
        }
    }
}
