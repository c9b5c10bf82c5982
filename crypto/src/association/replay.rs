//! The replay window: a ring of bits as in RFC 6479, slid by whole words and only for what is authentic.

/// How far behind the newest counter a packet may come.
const WINDOW: u64 = 8192;
/// One word more than the window, so that sliding never clears bits that are still inside.
const WORDS: usize = WINDOW as usize / 64 + 1;

/// Which of the latest counters were seen.
#[derive(Clone)]
pub(super) struct Replay {
    seen: Box<[u64; WORDS]>,
    /// The lowest counter that nothing authentic has reached.
    next: u64,
}

impl Default for Replay {
    fn default() -> Self {
        Self { seen: Box::new([0; WORDS]), next: 0 }
    }
}

impl Replay {
    /// Whether a packet with this counter may be new.
    pub(super) fn check(&self, counter: u64) -> bool {
        if counter >= self.next {
            return counter < u64::MAX;
        }
        let (word, bit) = place(counter);
        self.next - counter <= WINDOW && self.seen[word] & bit == 0
    }

    /// The packet was authentic; call after [`Self::check`].
    pub(super) fn accept(&mut self, counter: u64) {
        if counter >= self.next {
            self.slide(counter);
            self.next = counter + 1;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
    }

    /// Clears the words between the newest counter and this one.
    fn slide(&mut self, counter: u64) {
        let newest = self.next.checked_sub(1).map_or(0, |newest| newest / 64 + 1);
        let ahead = (counter / 64 + 1).saturating_sub(newest).min(WORDS as u64);
        for word in 0..ahead {
            self.seen[((counter / 64 - word) % WORDS as u64) as usize] = 0;
        }
    }
}

fn place(counter: u64) -> (usize, u64) {
    ((counter / 64 % WORDS as u64) as usize, 1 << (counter % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_says_what_a_set_of_all_counters_would_say(steps in proptest::collection::vec((0u64..3, 0u64..12_000), 1..400)) {
            let (mut replay, mut seen, mut newest) = (Replay::default(), BTreeSet::new(), 0u64);
            for (kind, distance) in steps {
                let counter = match kind {
                    0 => newest.saturating_sub(distance),
                    1 => newest + distance % 5,
                    _ => newest + distance,
                };
                let reached = !seen.is_empty();
                let inside = !reached || counter + WINDOW > newest;
                let fresh = inside && !seen.contains(&counter);
                prop_assert_eq!(replay.check(counter), fresh, "counter {}, newest {}", counter, newest);
                if fresh {
                    replay.accept(counter);
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }

    #[test]
    fn the_last_counter_of_all_is_never_new() {
        assert!(!Replay::default().check(u64::MAX));
    }
}
