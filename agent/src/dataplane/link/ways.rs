//! The lanes on which this node sends to one peer, and whether each of them arrives: tried before bulk data, watched
//! while they are used, given up one by one. Pure.
//!
//! ```text
//! trying ──seen──▶ carrying by a port of its own ──seen by the one port alone──▶ carrying by the one port
//!    │                                   └────────────nothing seen────────────────────────┐  │
//!    └──────────────────────────────────nothing seen──────────────────────────────────▶ dead ◀┘
//! ```

use std::time::Duration;

use warren_crypto::association::Suite;
use warren_crypto::exchange::{Ends, Seen};

/// A lane of which nothing is seen for this long is dead, whatever was sent: a data sender's 15 s less a tick.
const DEAD: Duration = Duration::from_millis(14_500);
/// After this the peer's word of what it took is overdue, and the lane is probed. The peer gives it every three seconds.
const OVERDUE: Duration = Duration::from_secs(4);
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
    /// No bulk data goes on it.
    Rest { lane: usize, index: u32 },
    /// Its own port is not tried again with this peer.
    Forsake { lane: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing came back yet that decides; since when it is known that the one port arrives.
    Trying {
        shared: Option<Duration>,
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
}

impl Ways {
    /// All are tried. `ports`: each lane's own one, if it has one.
    pub(super) fn new(ends: &Ends, ports: &[Option<u16>], now: Duration) -> Self {
        let way = |end: &warren_crypto::exchange::End| Way {
            lane: usize::from(end.lane),
            index: end.index,
            own: ports.get(usize::from(end.lane)).copied().flatten(),
            state: State::Trying { shared: None },
            unseen: Some(now),
            next_probe: now,
        };
        let ways = ends.ends.iter().map(way).collect();
        Self { generation: ends.generation, suite: ends.suite, since: now, ways }
    }

    /// Lanes on which bulk data goes.
    pub(in crate::dataplane) fn carrying(&self) -> usize {
        self.ways.iter().filter(|way| matches!(way.state, State::Carrying { .. })).count()
    }

    /// Of these, by ports of their own.
    pub(in crate::dataplane) fn own_ports(&self) -> usize {
        self.ways.iter().filter(|way| way.state == State::Carrying { own: true }).count()
    }

    /// None of them arrives.
    pub(super) fn is_dead(&self) -> bool {
        self.ways.iter().all(|way| way.state == State::Dead)
    }

    /// Some do not arrive, and nothing is being found out any more.
    pub(super) fn is_crippled(&self) -> bool {
        let is = |state: fn(&State) -> bool| self.ways.iter().any(|way| state(&way.state));
        is(|state| *state == State::Dead) && !is(|state| matches!(state, State::Trying { .. }))
    }

    /// A newer generation has this lane.
    pub(super) fn supersede(&mut self, lane: usize) {
        self.ways.iter_mut().filter(|way| way.lane == lane).for_each(|way| way.state = State::Dead);
    }

    /// Ends them.
    pub(super) fn rest(&self) -> Vec<Move> {
        self.ways.iter().map(|way| Move::Rest { lane: way.lane, index: way.index }).collect()
    }

    /// Timers. `sent`: whether bulk data left on a lane since the last time.
    pub(super) fn tick(&mut self, now: Duration, sent: impl Fn(usize) -> bool) -> Vec<Move> {
        let mut moves = Vec::new();
        for way in &mut self.ways {
            way.tick(now, sent(way.lane), &mut moves);
        }
        moves
    }

    /// The peer's word. `None` when it concerns none of these lanes.
    pub(super) fn seen(&mut self, seen: &Seen, now: Duration) -> Option<Vec<Move>> {
        let way = self.ways.iter_mut().find(|way| way.index == seen.index)?;
        Some(way.seen(seen, now))
    }
}

impl Way {
    fn tick(&mut self, now: Duration, sent: bool, moves: &mut Vec<Move>) {
        if sent && matches!(self.state, State::Carrying { .. }) {
            self.unseen.get_or_insert(now);
        }
        let Some(unseen) = self.unseen else { return };
        match self.state {
            State::Dead => {}
            State::Trying { shared: Some(since) } if now >= since + OWN_WAIT => moves.push(self.carry(false)),
            _ if now >= unseen + DEAD => {
                self.state = State::Dead;
                moves.push(Move::Rest { lane: self.lane, index: self.index });
            }
            State::Carrying { .. } if now < unseen + OVERDUE => {}
            State::Trying { .. } | State::Carrying { .. } => self.probe(now, moves),
        }
    }

    fn probe(&mut self, now: Duration, moves: &mut Vec<Move>) {
        if now < self.next_probe {
            return;
        }
        self.next_probe = now + PAUSE;
        let probe = |own| Move::Probe { lane: self.lane, index: self.index, own };
        let own = match self.state {
            State::Trying { .. } => self.own.is_some(),
            State::Carrying { own } => own,
            State::Dead => false,
        };
        moves.extend([probe(false)].into_iter().chain(own.then(|| probe(true))));
    }

    fn carry(&mut self, own: bool) -> Move {
        self.state = State::Carrying { own };
        self.unseen = None;
        Move::Carry { lane: self.lane, index: self.index, own }
    }

    fn seen(&mut self, seen: &Seen, now: Duration) -> Vec<Move> {
        match (self.state, seen.probe) {
            // Where data came from is not said, and none travels on a lane that is tried.
            (State::Trying { .. }, None) | (State::Dead, _) => Vec::new(),
            (State::Trying { shared }, Some((probe, from))) if probe.own => {
                self.own_arrives(shared, probe.port == from)
            }
            (State::Trying { shared }, Some(_)) => {
                let since = shared.unwrap_or(now);
                self.state = State::Trying { shared: Some(since) };
                if self.own.is_none() { vec![self.carry(false)] } else { Vec::new() }
            }
            (State::Carrying { own: true }, Some((probe, _))) if !probe.own => {
                // Both ways were asked, and this one was quicker; or the other is dead.
                if self.unseen.is_none_or(|unseen| now < unseen + OVERDUE + PAUSE) {
                    return Vec::new();
                }
                self.own = None;
                vec![self.carry(false), Move::Forsake { lane: self.lane }]
            }
            (State::Carrying { .. }, _) => {
                self.unseen = None;
                Vec::new()
            }
        }
    }

    fn own_arrives(&mut self, shared: Option<Duration>, untouched: bool) -> Vec<Move> {
        if untouched && self.own.is_some() {
            return vec![self.carry(true)];
        }
        // Something on the way writes other ports: the way back that it keeps open is the one port's.
        self.own = None;
        if shared.is_some() { vec![self.carry(false)] } else { Vec::new() }
    }
}

#[cfg(test)]
impl Ways {
    /// What of it decides what comes next.
    pub(super) fn likeness(&self, now: Duration, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash as _;
        let age = |since: Duration| now.saturating_sub(since);
        let left = |at: Duration| at.saturating_sub(now);
        (self.generation, age(self.since)).hash(hasher);
        for way in &self.ways {
            let state = match way.state {
                State::Trying { shared } => (0, shared.map(age)),
                State::Carrying { own } => (1 + u8::from(own), None),
                State::Dead => (3, None),
            };
            (way.index, way.own, state, way.unseen.map(age), left(way.next_probe)).hash(hasher);
        }
    }
}

#[cfg(test)]
mod tests;
