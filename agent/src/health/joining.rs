//! Whether this node has met the peers of its first mesh. Pure: the time is an argument.
//!
//! A node is ready when it has a tunnel with every peer that lives. Who lives is not known beforehand, so it is waited
//! for, and the wait is bounded twice: a peer that left four initiations unanswered is taken for dead, and after a minute
//! nobody is waited for any longer. Once that is over it stays so: a peer that fails later, or a newcomer that does not
//! answer, says nothing about this node.

use std::time::{Duration, Instant};

/// A peer that did not answer for this long, of all that time being asked every five seconds, is taken for dead.
const TAKEN_FOR_DEAD: Duration = Duration::from_secs(16);
/// After this nobody is waited for any longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Names of peers that are said.
const NAMED: usize = 3;

/// A peer, as far as getting to know it is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquaintance {
    /// Its name.
    pub name: String,
    /// A handshake with it was completed.
    pub met: bool,
    /// How long handshakes have gone unanswered.
    pub unanswered: Option<Duration>,
}

impl Acquaintance {
    fn is_awaited(&self) -> bool {
        !self.met && self.unanswered.is_none_or(|time| time < TAKEN_FOR_DEAD)
    }
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joining {
    /// Since the first mesh took effect.
    since: Option<Instant>,
    awaited: Vec<String>,
    done: bool,
}

impl Joining {
    /// Nobody is waited for any longer.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Looks at the peers of a mesh that is in effect: those whom this node can call.
    pub fn look(&mut self, now: Instant, peers: impl IntoIterator<Item = Acquaintance>) {
        if self.done {
            return;
        }
        let since = *self.since.get_or_insert(now);
        self.awaited = peers.into_iter().filter(Acquaintance::is_awaited).map(|peer| peer.name).collect();
        self.done = self.awaited.is_empty() || now.saturating_duration_since(since) >= LONGEST;
    }

    /// Who is still waited for.
    pub fn problem(&self) -> Option<String> {
        if self.done {
            return None;
        }
        if self.since.is_none() {
            return Some("no mesh is in effect yet".to_owned());
        }
        let named = self.awaited.get(..NAMED).unwrap_or(&self.awaited).join(", ");
        let more = match self.awaited.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("no handshake yet with {named}{more}; nobody is waited for longer than a minute"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn peer(name: &str, met: bool, unanswered: Option<u64>) -> Acquaintance {
        Acquaintance { name: name.into(), met, unanswered: unanswered.map(seconds) }
    }

    #[test]
    fn a_node_without_peers_waits_for_a_mesh_and_then_for_nobody() {
        let mut joining = Joining::default();
        assert_eq!(joining.problem().as_deref(), Some("no mesh is in effect yet"));
        joining.look(Instant::now(), []);
        assert!(joining.is_done() && joining.problem().is_none());
    }

    #[test]
    fn every_peer_that_may_live_is_waited_for_by_name() {
        let (mut joining, start) = (Joining::default(), Instant::now());
        joining.look(start, [peer("a", true, None), peer("b", false, None), peer("c", false, Some(3))]);
        assert!(joining.problem().is_some_and(|problem| problem.contains("with b, c;")), "{joining:?}");
        joining.look(start + seconds(1), [peer("a", true, None), peer("b", true, None), peer("c", false, Some(4))]);
        assert!(joining.problem().is_some_and(|problem| problem.contains("with c;")), "{joining:?}");
        joining.look(start + seconds(2), ["a", "b", "c"].map(|name| peer(name, true, None)));
        assert!(joining.is_done());
    }

    #[test]
    fn many_peers_are_not_all_named() {
        let mut joining = Joining::default();
        joining.look(Instant::now(), (0..5).map(|n| peer(&format!("n{n}"), false, None)));
        assert!(joining.problem().is_some_and(|problem| problem.contains("n0, n1, n2 and 2 more")));
    }

    #[test]
    fn a_dead_peer_is_waited_for_until_it_left_four_initiations_unanswered() {
        let (mut joining, start) = (Joining::default(), Instant::now());
        for second in 0..16 {
            joining.look(start + seconds(second), [peer("dead", false, Some(second))]);
            assert!(!joining.is_done(), "after {second} s");
        }
        joining.look(start + seconds(16), [peer("dead", false, Some(16))]);
        assert!(joining.is_done());
    }

    #[test]
    fn nobody_is_waited_for_longer_than_a_minute_however_many_come_and_go() {
        let (mut joining, start) = (Joining::default(), Instant::now());
        for second in 0..60 {
            joining.look(start + seconds(second), [peer(&format!("n{second}"), false, None)]);
            assert!(!joining.is_done(), "after {second} s");
        }
        joining.look(start + seconds(60), [peer("n60", false, None)]);
        assert!(joining.is_done());
    }

    #[test]
    fn once_met_peers_may_fail_and_newcomers_may_be_silent() {
        let (mut joining, start) = (Joining::default(), Instant::now());
        joining.look(start, [peer("a", true, None)]);
        joining.look(start + seconds(1), [peer("a", false, Some(2)), peer("new", false, None)]);
        assert!(joining.is_done() && joining.problem().is_none());
    }
}
