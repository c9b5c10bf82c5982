//! The order of one node's records, which the store cannot give: after a restore its revisions run anew, and what was
//! long since replaced stands there again. So each record carries a number that its owner alone lets grow, and nobody
//! goes back from a record to an older one; unless that one stays for longer than its owner would leave it there.
//!
//! Records without a number are older than any other: agents of the past wrote none.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use warren_overlay::mesh::Entry;
use warren_overlay::record::{RECORD_MAX, Record};

/// No number of any clock: in milliseconds, some 285,000 years. Whoever forges a record with a larger one would leave no
/// room for ours, in a schema of signed numbers none at all; they are not outdone but outlived, as any that is doubted.
const LAST: u64 = 1 << 53;

/// A record as it stands in the store.
#[derive(Serialize)]
struct Stamped<'a> {
    #[serde(flatten)]
    record: &'a Record,
    sequence: u64,
}

#[derive(Deserialize)]
struct Stamp {
    #[serde(default)]
    sequence: u64,
}

/// The number of a record; `None` for what is none, which the mesh refuses by name.
fn sequence(value: &[u8]) -> Option<u64> {
    if value.len() > RECORD_MAX {
        return None;
    }
    serde_json::from_slice(value).ok().map(|Stamp { sequence }| sequence)
}

/// The number of this node's last record.
#[derive(Default)]
pub(super) struct Sequence {
    last: u64,
}

impl Sequence {
    /// The next record is younger than this one: of an agent before this one, or of a clock that was ahead.
    pub(super) fn outdo(&mut self, value: &[u8]) {
        self.last = self.last.max(sequence(value).filter(|number| *number <= LAST).unwrap_or(0));
    }

    /// What the next number has to exceed.
    #[cfg(feature = "kubernetes")]
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The record with the next number: milliseconds since 1970, so that it grows over a loss of all memory too.
    pub(super) fn stamp(&mut self, record: &Record) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        self.last = u64::try_from(now).unwrap_or(0).max(self.last.saturating_add(1));
        serde_json::to_vec(&Stamped { record, sequence: self.last }).unwrap_or_default()
    }
}

/// Records in the store that are older than what was told of the same node.
pub(super) struct Doubts {
    /// Since when.
    since: BTreeMap<String, Instant>,
    patience: Duration,
}

impl Doubts {
    /// A record without its owner is gone after a lease; a store that was restored counts it from the beginning.
    pub(super) fn new(lease: Duration) -> Self {
        Self { since: BTreeMap::new(), patience: lease * 2 }
    }

    /// When a record that stayed is to be believed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + self.patience)
    }

    /// Puts what was told in place of what is older; names whose that was. Both lists are in the order of their keys.
    pub(super) fn hold_back(&mut self, told: &[Entry], entries: &mut [Entry], now: Instant) -> Option<String> {
        let mut since = BTreeMap::new();
        for entry in entries {
            let Some(newer) = newer(told, entry) else { continue };
            let began = self.since.get(&entry.key).copied().unwrap_or(now);
            if now < began + self.patience {
                since.insert(entry.key.clone(), began);
                entry.clone_from(newer);
            }
        }
        self.since = since;
        let (first, count) = (self.since.keys().next()?, self.since.len());
        Some(format!(
            "{count} record(s) in the store, the first of {first:?}, are older than what is known: the store was \
             restored; what is known stays in force until those nodes publish again"
        ))
    }
}

/// What was told of the node, if that is newer.
fn newer<'a>(told: &'a [Entry], entry: &Entry) -> Option<&'a Entry> {
    let at = told.binary_search_by(|one| one.key.cmp(&entry.key)).ok()?;
    let known = told.get(at).filter(|known| known.value != entry.value)?;
    (sequence(&known.value)? > sequence(&entry.value)?).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> Entry {
        Entry { key: key.to_owned(), value: value.into(), create_revision: 1 }
    }

    #[test]
    fn an_older_record_is_held_back_until_it_outlives_two_leases() {
        let (told, start) = ([entry("a", r#"{"sequence":7}"#), entry("b", r#"{"sequence":7}"#)], Instant::now());
        let mut doubts = Doubts::new(Duration::from_secs(5));
        let mut held = |seconds, value: &str| {
            let mut entries = [entry("b", value)];
            let said = doubts.hold_back(&told, &mut entries, start + Duration::from_secs(seconds));
            assert_eq!(said.is_some(), doubts.deadline().is_some());
            entries[0].value == told[1].value
        };
        assert!(held(0, r#"{"sequence":6}"#) && held(9, "{}"));
        assert!(!held(10, "{}"), "it is believed in the end");
        assert!(held(11, "{}"), "a new doubt has its own time");
        assert!(!held(12, r#"{"sequence":7,"equal":1}"#) && !held(12, r#"{"sequence":8}"#));
        assert!(!held(12, "no record"), "the mesh refuses it by name");
    }

    #[test]
    fn numbers_grow_whatever_the_clock_says() {
        let mut sequence = Sequence::default();
        sequence.outdo(br#"{"sequence":99999999999999}"#);
        assert_eq!(sequence.last, 99_999_999_999_999);
        sequence.outdo(b"{}");
        sequence.outdo(b"no record");
        assert_eq!(sequence.last, 99_999_999_999_999);
    }

    #[test]
    fn a_forged_number_leaves_room_for_the_next() {
        let mut sequence = Sequence::default();
        for forged in [u64::MAX >> 1, u64::MAX, LAST + 1] {
            sequence.outdo(format!("{{\"sequence\":{forged}}}").as_bytes());
            assert_eq!(sequence.last, 0, "{forged}");
        }
        sequence.outdo(format!("{{\"sequence\":{LAST}}}").as_bytes());
        assert_eq!(sequence.last, LAST);
    }
}
