//! Which messages are said, and how often those came that were not. Pure: the time comes in as an argument. Bounded: a
//! store or a peer that makes us say something new each time fills neither the disk nor the memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// How long a message is not said again.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);
/// Messages of one place in the code that are said in an interval.
const DISTINCT: usize = 32;
/// Bytes by which two messages are told apart.
const TEXT_MAX: usize = 512;

/// What was said lately. `P` is the place in the code.
pub(super) struct Repeats<P>(HashMap<P, Place>);

/// What one place said lately.
#[derive(Default)]
struct Place {
    said: HashMap<String, Count>,
    /// Those that were one too many: since when, how many, and the first of them.
    others: Option<(String, Count)>,
}

#[derive(Clone, Copy)]
struct Count {
    since: Duration,
    more: u64,
}

/// A message that came again while it was not said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated<P> {
    /// Where from.
    pub(super) place: P,
    /// Its text, or that of the first of several.
    pub(super) text: String,
    /// How often.
    pub(super) times: u64,
    /// The times are of several messages, of which none was said.
    pub(super) several: bool,
}

impl<P: Hash + Eq + Clone> Repeats<P> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Whether the message is said now; counts it where not. [`Self::due`] comes first.
    pub(super) fn admit(&mut self, now: Duration, place: P, text: &str) -> bool {
        let text = &text[..text.floor_char_boundary(TEXT_MAX)];
        let Place { said, others } = self.0.entry(place).or_default();
        if let Some(count) = said.get_mut(text) {
            count.more += 1;
            return false;
        }
        if said.len() == DISTINCT {
            others.get_or_insert_with(|| (text.to_owned(), Count { since: now, more: 0 })).1.more += 1;
            return false;
        }
        said.insert(text.to_owned(), Count { since: now, more: 0 });
        true
    }

    /// What was held back and may be told now, once each.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Repeated<P>> {
        let mut due = Vec::new();
        let over = |count: &Count| now.saturating_sub(count.since) >= INTERVAL;
        self.0.retain(|place, Place { said, others }| {
            let mut tell = |text: String, count: Count, several: bool| {
                if count.more > 0 {
                    due.push(Repeated { place: place.clone(), text, times: count.more, several });
                }
            };
            said.extract_if(|_, count| over(count)).for_each(|(text, count)| tell(text, count, false));
            others.take_if(|(_, count)| over(count)).into_iter().for_each(|(text, count)| tell(text, count, true));
            !said.is_empty() || others.is_some()
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// As the log does it: what is due first, then the message.
    fn say(repeats: &mut Repeats<u8>, seconds: u64, place: u8, text: &str) -> (Vec<(String, u64)>, bool) {
        let due = repeats.due(at(seconds)).into_iter().map(|told| (told.text, told.times)).collect();
        (due, repeats.admit(at(seconds), place, text))
    }

    #[test]
    fn a_repeated_message_is_said_once_an_interval_and_then_counted() {
        let mut repeats = Repeats::new();
        assert_eq!(say(&mut repeats, 0, 1, "etcd is away"), (vec![], true));
        for second in 1..60 {
            assert_eq!(say(&mut repeats, second, 1, "etcd is away"), (vec![], false));
        }
        assert_eq!(say(&mut repeats, 60, 1, "etcd is away"), (vec![("etcd is away".into(), 59)], true));
        assert_eq!(
            say(&mut repeats, 120, 1, "etcd is away"),
            (vec![], true),
            "a message once a minute is no repetition"
        );
    }

    #[test]
    fn another_text_or_another_place_is_another_message() {
        let mut repeats = Repeats::new();
        assert!(say(&mut repeats, 0, 1, "node a refused").1);
        assert!(say(&mut repeats, 0, 1, "node b refused").1);
        assert!(say(&mut repeats, 0, 2, "node a refused").1);
        assert!(!say(&mut repeats, 0, 1, "node a refused").1);
    }

    #[test]
    fn a_count_is_told_although_the_message_never_comes_again() {
        let mut repeats = Repeats::new();
        say(&mut repeats, 0, 1, "x");
        say(&mut repeats, 1, 1, "x");
        assert_eq!(say(&mut repeats, 500, 2, "y"), (vec![("x".into(), 1)], true));
        assert!(repeats.due(at(1000)).is_empty() && repeats.0.is_empty(), "nothing is kept");
    }

    #[test]
    fn a_flood_of_messages_that_are_never_alike_is_bounded_and_counted() {
        let mut repeats = Repeats::new();
        let said = (0..5000).filter(|number| say(&mut repeats, 0, 1, &format!("record {number} refused")).1).count();
        assert_eq!(said, DISTINCT);
        let told = repeats.due(at(60));
        let expected = Repeated { place: 1, text: "record 32 refused".to_owned(), times: 5000 - 32, several: true };
        assert_eq!(told, [expected]);
        assert!(repeats.0.is_empty());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut repeats = Repeats::new();
        let long = "ü".repeat(2000);
        assert!(repeats.admit(at(0), 1, &format!("x{long}")));
        assert!(!repeats.admit(at(0), 1, &format!("x{long}!")));
        assert!(repeats.due(at(60))[0].text.len() <= TEXT_MAX);
    }
}
