//! The lanes on which this node sends to one peer, and whether each of them arrives: tried before bulk data, watched
//! while they are used, given up one by one. Pure.
//!
//! ```text
//! trying ──seen──▶ carrying, by a port of its own or the one port ──nothing seen──▶ by the one port ──▶ dead
//!    └──────────────────────────────nothing seen─────────────────────────────────────────────────────────┘
//! ```

use std::time::Duration;

use warren_crypto::association::Suite;
use warren_crypto::exchange::{Ends, Seen};

/// A lane of which nothing is seen for this long is dead, whatever was sent: a data sender's 15 s less a tick.
const DEAD: Duration = Duration::from_millis(14_500);
/// After this the peer's word of what it took is overdue, and the lane is probed. The peer gives it every three seconds.
const OVERDUE: Duration = Duration::from_secs(4);
/// A port of its own is given up after this.
const OWN_DEAD: Duration = Duration::from_secs(8);
/// How long a lane that arrives by the one port waits for word of its own.
const OWN_WAIT: Duration = Duration::from_millis(500);
/// Between two probes of a lane.
const PAUSE: Duration = Duration::from_millis(750);

/// What has to be done about one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Send a probe.
    Probe { lane: usize, index: u32, own: bool },
    /// Bulk data goes this way from now.
    Carry { lane: usize, index: u32, own: bool },
    /// Bulk data goes in the tunnel.
    Rest { lane: usize },
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum State {
    /// Nothing came back yet that decides; whether the one port carries.
    Trying {
        shared: bool,
    },
    Carrying {
        own: bool,
    },
    Dead,
}

/// One lane.
#[derive(Clone, Debug)]
struct Way {
    lane: usize,
    /// The receiver's.
    index: u32,
    /// The port that only this lane's packets leave from.
    own: Option<u16>,
    state: State,
    /// Since when something was sent and nothing was seen.
    unseen: Option<Duration>,
    next_probe: Duration,
}

/// The lanes of one generation.
#[derive(Clone, Debug)]
pub(in crate::dataplane) struct Ways {
    pub(in crate::dataplane) generation: u64,
    pub(in crate::dataplane) suite: Suite,
    pub(in crate::dataplane) since: Duration,
    ways: Vec<Way>,
    /// Until when lanes of the generation before carry on, where this one's are still tried.
    older_until: Option<Duration>,
}

impl Ways {
    /// All are tried. `ports`: each lane's own one, if it has one.
    pub(super) fn new(ends: &Ends, ports: &[Option<u16>], older_until: Option<Duration>, now: Duration) -> Self {
        let way = |end: &warren_crypto::exchange::End| Way {
            lane: usize::from(end.lane),
            index: end.index,
            own: ports.get(usize::from(end.lane)).copied().flatten(),
            state: State::Trying { shared: false },
            unseen: Some(now),
            next_probe: now,
        };
        let ways = ends.ends.iter().map(way).collect();
        Self { generation: ends.generation, suite: ends.suite, since: now, ways, older_until }
    }

    /// Lanes on which bulk data goes.
    pub(in crate::dataplane) fn carrying(&self) -> usize {
        self.ways.iter().filter(|way| matches!(way.state, State::Carrying { .. })).count()
    }

    /// Of these, by ports of their own.
    pub(in crate::dataplane) fn own_ports(&self) -> usize {
        self.ways.iter().filter(|way| way.state == State::Carrying { own: true }).count()
    }

    /// Bulk data goes on associations, be they this generation's or the one before.
    pub(in crate::dataplane) fn is_in_use(&self) -> bool {
        self.older_until.is_some() || self.carrying() > 0
    }

    /// None of them arrives.
    pub(super) fn is_dead(&self) -> bool {
        self.ways.iter().all(|way| way.state == State::Dead)
    }

    /// Timers. `sent`: bulk data left since the last time.
    pub(super) fn tick(&mut self, now: Duration, sent: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        let began = self.since;
        for way in &mut self.ways {
            way.tick(now, began, sent, &mut moves);
        }
        if self.older_until.take_if(|until| now >= *until).is_some() {
            let trying = self.ways.iter().filter(|way| matches!(way.state, State::Trying { .. }));
            moves.extend(trying.map(|way| Move::Rest { lane: way.lane }));
        }
        if !self.ways.iter().any(|way| matches!(way.state, State::Trying { .. })) {
            self.older_until = None;
        }
        moves
    }

    /// The peer's word. `None` when it concerns none of these lanes.
    pub(super) fn seen(&mut self, seen: &Seen) -> Option<Vec<Move>> {
        let way = self.ways.iter_mut().find(|way| way.index == seen.index)?;
        Some(way.seen(seen).into_iter().collect())
    }
}

impl Way {
    fn tick(&mut self, now: Duration, began: Duration, sent: bool, moves: &mut Vec<Move>) {
        if sent && matches!(self.state, State::Carrying { .. }) {
            self.unseen.get_or_insert(now);
        }
        let Some(unseen) = self.unseen else { return };
        match self.state {
            State::Dead => {}
            _ if now >= unseen + DEAD => {
                self.state = State::Dead;
                moves.push(Move::Rest { lane: self.lane });
            }
            State::Trying { shared } if shared && now >= began + OWN_WAIT => moves.extend(self.carry(false)),
            State::Trying { .. } => self.probe(now, moves),
            State::Carrying { own } => {
                if own && now >= unseen + OWN_DEAD {
                    moves.extend(self.carry(false));
                    self.unseen = Some(unseen);
                }
                if now >= unseen + OVERDUE {
                    self.probe(now, moves);
                }
            }
        }
    }

    fn probe(&mut self, now: Duration, moves: &mut Vec<Move>) {
        if now < self.next_probe {
            return;
        }
        self.next_probe = now + PAUSE;
        let probe = |own| Move::Probe { lane: self.lane, index: self.index, own };
        let (shared, own) = match self.state {
            State::Trying { shared } => (!shared, self.own.is_some()),
            State::Carrying { own } => (!own, own),
            State::Dead => (false, false),
        };
        moves.extend(shared.then(|| probe(false)).into_iter().chain(own.then(|| probe(true))));
    }

    fn carry(&mut self, own: bool) -> Option<Move> {
        self.state = State::Carrying { own };
        self.unseen = None;
        Some(Move::Carry { lane: self.lane, index: self.index, own })
    }

    fn seen(&mut self, seen: &Seen) -> Option<Move> {
        let (by_own, untouched) = match seen.probe {
            Some((probe, from)) => (probe.own, probe.port == from && Some(from) == self.own),
            None => (matches!(self.state, State::Carrying { own: true }), true),
        };
        match self.state {
            State::Trying { .. } if by_own && untouched => self.carry(true),
            // Something on the way writes other ports: the tunnel's way back is kept open by the tunnel's port alone.
            State::Trying { shared } if by_own => {
                self.own = None;
                shared.then(|| self.carry(false)).flatten()
            }
            State::Trying { .. } if self.own.is_none() => self.carry(false),
            State::Trying { .. } => {
                self.state = State::Trying { shared: true };
                None
            }
            State::Carrying { own } => {
                self.unseen.take_if(|_| own == by_own);
                None
            }
            State::Dead => None,
        }
    }
}

#[cfg(test)]
impl Ways {
    /// What of it decides what comes next.
    pub(super) fn likeness(&self, now: Duration, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash as _;
        let age = |since: Duration| now.saturating_sub(since);
        let left = |at: Duration| at.saturating_sub(now);
        (self.generation, age(self.since), self.older_until.map(left)).hash(hasher);
        for way in &self.ways {
            (way.index, way.own, way.state, way.unseen.map(age), left(way.next_probe)).hash(hasher);
        }
    }
}

#[cfg(test)]
mod tests;
