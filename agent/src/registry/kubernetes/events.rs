//! What an operator must know of a node, as Events: which, when and how. Pure.
//!
//! A Warning when something has been wrong for a while, one for each concern and never one for what merely changes about it;
//! one Normal when nothing is any more. Each at most once in ten minutes, whatever flaps. Never an Event for a packet or for a
//! peer, never a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use warren_overlay::record::NodeName;

use crate::registry::{Concern, Concerns};

/// Who writes them.
const CONTROLLER: &str = "warren.dev/agent";
/// Events about what has no namespace are kept here.
pub(super) const NAMESPACE: &str = "default";
/// What the API takes of a note, bytes.
const NOTE_MAX: usize = 1024;
/// Nothing is said twice within this.
const REST: Duration = Duration::from_secs(600);
/// What was wrong is over when it has not been wrong for this long.
const OVER: Duration = Duration::from_secs(10);

impl Concern {
    const ALL: [Self; 6] = [
        Self::NotReady,
        Self::NotAllocated,
        Self::HostInterference,
        Self::ClearTextRefused,
        Self::RegistryDoubted,
        Self::PeersRefused,
    ];

    /// For machines.
    fn reason(self) -> &'static str {
        match self {
            Self::NotReady => "NotReady",
            Self::NotAllocated => "NotAllocated",
            Self::HostInterference => "HostInterference",
            Self::ClearTextRefused => "ClearTextRefused",
            Self::RegistryDoubted => "RegistryDoubted",
            Self::PeersRefused => "PeersRefused",
        }
    }

    /// How long it must have been wrong. The host is looked at twice a minute: what is wrong there was seen twice.
    fn patience(self, spread: Duration) -> Duration {
        match self {
            Self::NotReady | Self::HostInterference => Duration::from_secs(40),
            Self::NotAllocated | Self::ClearTextRefused => Duration::from_secs(10),
            Self::RegistryDoubted => Duration::from_secs(10) + spread,
            Self::PeersRefused => Duration::from_secs(60) + spread,
        }
    }
}

/// What became of one concern.
#[derive(Default)]
struct Matter {
    /// Since when it is wrong, if it is.
    wrong: Option<Instant>,
    /// Since when it is not, if it was said that it is.
    well: Option<Instant>,
    /// It was said, and is not over.
    open: bool,
    /// When it was said last.
    said: Option<Instant>,
}

impl Matter {
    /// Takes what is; whether it is to be said.
    fn look(&mut self, is_wrong: bool, patience: Duration, now: Instant) -> bool {
        if is_wrong {
            self.well = None;
            self.wrong.get_or_insert(now);
        } else {
            self.wrong = None;
            let well = *self.well.get_or_insert(now);
            self.open &= now < well + OVER;
        }
        let says = self.due(patience).is_some_and(|due| due <= now);
        if says {
            (self.open, self.said) = (true, Some(now));
        }
        says
    }

    /// When it is to be said.
    fn due(&self, patience: Duration) -> Option<Instant> {
        let due = self.wrong.filter(|_| !self.open)? + patience;
        Some(self.said.map_or(due, |said| due.max(said + REST)))
    }

    /// When it is over.
    fn over(&self) -> Option<Instant> {
        self.well.filter(|_| self.open).map(|well| well + OVER)
    }
}

/// What is to be written.
pub(super) struct Said {
    /// `None` when all is well again.
    concern: Option<Concern>,
    note: String,
}

/// What was said, and so what is to be said.
#[derive(Default)]
pub(super) struct Memory {
    matters: BTreeMap<Concern, Matter>,
    /// What all nodes see at once is told so much later: by each at another time.
    spread: Duration,
    /// Something was said to be wrong, and since then not that all is well.
    worried: bool,
    /// When all was said to be well.
    relieved: Option<Instant>,
}

impl Memory {
    pub(super) fn new(spread: Duration) -> Self {
        Self { spread, ..Self::default() }
    }

    /// Takes all that is wrong now; what is to be said of it.
    pub(super) fn look(&mut self, wrong: &Concerns, now: Instant) -> Vec<Said> {
        let mut said = Vec::new();
        for concern in Concern::ALL {
            let (patience, note) = (concern.patience(self.spread), wrong.get(&concern));
            let says = self.matters.entry(concern).or_default().look(note.is_some(), patience, now);
            said.extend(note.filter(|_| says).map(|note| Said { concern: Some(concern), note: note.clone() }));
        }
        self.worried |= !said.is_empty();
        if self.relief(now).is_some_and(|due| due <= now) {
            (self.worried, self.relieved) = (false, Some(now));
            said.push(Said { concern: None, note: "all that was wrong is well again".to_owned() });
        }
        said
    }

    /// When to say that all is well, if it is.
    fn relief(&self, now: Instant) -> Option<Instant> {
        let is_well = self.matters.values().all(|matter| matter.wrong.is_none() && !matter.open);
        (is_well && self.worried).then(|| self.relieved.map_or(now, |at| at + REST))
    }

    /// When to look again although nothing was heard.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = |(concern, matter): (&Concern, &Matter)| matter.due(concern.patience(self.spread));
        let over = self.matters.values().filter_map(Matter::over);
        self.matters.iter().filter_map(due).chain(over).chain(self.relief(now)).min()
    }
}

/// As the API takes it.
pub(super) fn event(node: &NodeName, regarding: ObjectReference, said: &Said, at: Timestamp) -> Event {
    let reason = said.concern.map_or("AllWell", Concern::reason);
    let kind = if said.concern.is_some() { "Warning" } else { "Normal" };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{node}.{:x}", at.as_nanosecond())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(at)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_string()),
        action: Some("Report".to_owned()),
        reason: Some(reason.to_owned()),
        type_: Some(kind.to_owned()),
        regarding: Some(regarding),
        note: Some(plain(&said.note)),
        ..Event::default()
    }
}

/// What others say goes to terminals as it is: of it no more than ASCII, on one line, as much as the API takes.
fn plain(text: &str) -> String {
    let plain = |one: char| match one {
        one if one.is_ascii_graphic() => one,
        one if one.is_whitespace() => ' ',
        _ => '?',
    };
    text.chars().map(plain).take(NOTE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Watched {
        memory: Memory,
        start: Instant,
    }

    impl Watched {
        fn new() -> Self {
            Self { memory: Memory::default(), start: Instant::now() }
        }

        /// What is said after so many seconds, with these wrong.
        fn at(&mut self, seconds: u64, wrong: &[Concern]) -> Vec<Option<Concern>> {
            let wrong = wrong.iter().map(|concern| (*concern, format!("at {seconds}"))).collect();
            let said = self.memory.look(&wrong, self.start + Duration::from_secs(seconds));
            said.into_iter().map(|said| said.concern).collect()
        }

        fn wakes(&self, seconds: u64) -> Option<u64> {
            let deadline = self.memory.deadline(self.start + Duration::from_secs(seconds))?;
            Some((deadline - self.start).as_secs())
        }
    }

    const OURS: Concern = Concern::NotAllocated;

    #[test]
    fn what_lasts_is_said_once_and_once_that_it_is_over() {
        let mut watched = Watched::new();
        assert!(watched.at(0, &[OURS]).is_empty() && watched.wakes(0) == Some(10));
        assert_eq!(watched.at(10, &[OURS]), [Some(OURS)]);
        assert!(watched.at(11, &[OURS]).is_empty() && watched.at(5000, &[OURS]).is_empty(), "its words change");
        assert_eq!(watched.wakes(5000), None);
        assert!(watched.at(5001, &[]).is_empty() && watched.wakes(5001) == Some(5011));
        assert_eq!(watched.at(5011, &[]), [None]);
        assert!(watched.at(9000, &[]).is_empty() && watched.wakes(9000).is_none());
    }

    #[test]
    fn what_does_not_last_is_never_said() {
        let mut watched = Watched::new();
        for second in (0..9000).step_by(9) {
            assert!(watched.at(second, &[OURS]).is_empty());
            assert!(watched.at(second + 8, &[]).is_empty());
        }
        assert_eq!(watched.wakes(9000), None);
    }

    #[test]
    fn whatever_flaps_is_said_no_more_than_once_in_ten_minutes() {
        let (mut watched, mut said) = (Watched::new(), Vec::new());
        for second in 0..6000 {
            let wrong: &[Concern] = if second % 40 < 20 { &Concern::ALL } else { &[] };
            said.extend(watched.at(second, wrong).into_iter().map(|what| (what, second)));
        }
        for what in [None, Some(OURS), Some(Concern::ClearTextRefused)] {
            let seconds: Vec<_> = said.iter().filter(|(one, _)| *one == what).map(|(_, second)| *second).collect();
            assert!(
                (2..=10).contains(&seconds.len()) && seconds.windows(2).all(|two| two[1] - two[0] >= 600),
                "{said:?}"
            );
        }
        assert!(said.iter().all(|(what, _)| *what != Some(Concern::PeersRefused)), "a roll-out refuses for a moment");
    }

    #[test]
    fn what_is_urgent_comes_first_and_all_is_well_when_the_last_is() {
        let mut watched = Watched::new();
        let both = [Concern::HostInterference, Concern::NotReady];
        assert!(watched.at(0, &both).is_empty());
        assert_eq!(watched.at(40, &both), [Some(Concern::NotReady), Some(Concern::HostInterference)]);
        assert!(watched.at(50, &both[..1]).is_empty() && watched.at(90, &both[..1]).is_empty());
        assert!(watched.at(100, &[]).is_empty());
        assert_eq!(watched.at(110, &[]), [None]);
    }

    #[test]
    fn what_all_nodes_see_is_not_told_by_all_at_once() {
        let spread = Duration::from_secs(20);
        assert_eq!(Concern::PeersRefused.patience(spread) - Concern::PeersRefused.patience(Duration::ZERO), spread);
        assert_eq!(OURS.patience(spread), OURS.patience(Duration::ZERO));
    }

    fn written(said: &Said) -> Value {
        let regarding = ObjectReference { kind: Some("Node".to_owned()), ..ObjectReference::default() };
        let at = Timestamp::new(1_700_000_000, 123_456_789).unwrap();
        serde_json::to_value(event(&"a".parse().unwrap(), regarding, said, at)).unwrap()
    }

    #[test]
    fn an_event_is_as_the_api_takes_it() {
        let expected = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "a.17979cfe3d85cd15", "namespace": "default"},
            "eventTime": "2023-11-14T22:13:20.123456Z", "type": "Warning", "reason": "NotAllocated", "action": "Report",
            "note": "no", "reportingController": "warren.dev/agent", "reportingInstance": "a", "regarding": {"kind": "Node"},
        });
        assert_eq!(written(&Said { concern: Some(OURS), note: "no".to_owned() }), expected);
        let relief = written(&Said { concern: None, note: String::new() });
        assert_eq!((&relief["type"], &relief["reason"]), (&json!("Normal"), &json!("AllWell")));
    }

    #[test]
    fn words_of_others_are_cut_and_write_on_no_terminal() {
        let note = format!("\u{1b}[2J\u{202e}\n\u{e9}{}", "x".repeat(5000));
        let event = written(&Said { concern: Some(OURS), note });
        let note = event["note"].as_str().unwrap();
        assert!(note.starts_with("?[2J? ?xxx") && note.len() == NOTE_MAX, "{note}");
    }
}
