//! What the clerk keeps of one peer's associations: the exchange under way, how old each generation is, and whether its
//! lanes arrive. Pure: the time comes in, orders and frames go out.

mod association;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use warren_crypto::association::PACKETS_RENEW;
use warren_crypto::exchange::{Action, Chance, End, Ends, Exchange, Probe, Refusal, Seen};
use warren_io::steer::worker_of_index;
use warren_overlay::drops::DropReason;
use warren_overlay::frame::Assembly;

pub use self::association::{Association, Obstacle};
use self::ways::{Move, Ways};
use super::orders::{Order, PeerId};

/// A generation in use is renewed after this.
const RENEW: Duration = Duration::from_secs(120);
/// Nothing is taken on a generation after this ...
const EXPIRE: Duration = Duration::from_secs(180);
/// ... and nothing sent after this: the peer's clock for it began earlier.
const SEND_UNTIL: Duration = Duration::from_secs(160);
/// Generations on which packets are taken, the one under way included.
const GENERATIONS: usize = 3;
/// How often a peer is told of our start; any one may be lost.
const HELLOS: u32 = 5;
/// A way on which no lane arrives by then is called silent, to people.
const MUTE: Duration = Duration::from_secs(5);
/// Lanes that arrive for this long are trusted again.
const TRUST: Duration = Duration::from_secs(30);
/// After the second silence in a row the tunnel is kept for this long, and for twice as long after each further one.
const DISTRUST: Duration = Duration::from_secs(30);
/// ... up to this.
const DISTRUST_MAX: Duration = Duration::from_secs(480);

/// Bulk data that passed so far on a peer's associations, in packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Sent, by lane.
    pub(super) sent: Box<[u64]>,
    /// Taken.
    pub(super) taken: u64,
}

/// What the clerk has to do.
#[derive(Debug)]
pub(super) enum Deed {
    /// Seal this into the tunnel.
    Frame(Vec<u8>),
    /// Tell this worker.
    Order(usize, Order),
    /// The peer no longer answers on its associations: a fresh handshake.
    Handshake,
}

/// One peer's associations, as the clerk sees them.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Link {
    pub(super) peer: PeerId,
    exchange: Exchange,
    pub(super) assembly: Assembly,
    workers: usize,
    /// Workers that have yet to be ready, for the generation under way.
    installing: Option<(u64, BTreeSet<usize>)>,
    /// Generations on which packets are taken: since when, and their indices.
    receiving: BTreeMap<u64, (Duration, Vec<u32>)>,
    /// Generations on which this node sends: the newest last, and those whose lanes it has not taken over yet.
    sending: Vec<Ways>,
    /// By lane, the port that only it sends from.
    pub(super) ports: Box<[Option<u16>]>,
    passed: Passed,
    /// Sent by lane when the newest generation came.
    sent_before: Box<[u64]>,
    /// Silences in a row, and until when the tunnel is kept for them.
    silences: u32,
    /// Nothing may travel in the tunnel instead: no pause is worth anything.
    pub(super) required: bool,
    last_silence: Duration,
    distrusted: Duration,
    /// No lane arrived since one was expected to. Decides nothing.
    silent: bool,
    hellos: u32,
    next_hello: Duration,
}

impl Link {
    pub(super) fn new(peer: PeerId, exchange: Exchange, workers: usize) -> Self {
        Self {
            peer,
            exchange,
            assembly: Assembly::default(),
            workers,
            installing: None,
            receiving: BTreeMap::new(),
            sending: Vec::new(),
            ports: Box::default(),
            passed: Passed::default(),
            sent_before: Box::default(),
            silences: 0,
            required: false,
            last_silence: Duration::ZERO,
            distrusted: Duration::ZERO,
            silent: false,
            hellos: 0,
            next_hello: Duration::ZERO,
        }
    }

    /// Every index that is in use.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.receiving.values().flat_map(|(_, indices)| indices.iter().copied())
    }

    /// There is something to send on, or something is being tried.
    pub(super) fn sends(&self) -> bool {
        !self.sending.is_empty()
    }

    /// The newest generation on which bulk data goes.
    pub(super) fn in_use(&self) -> Option<&Ways> {
        self.sending.iter().rev().find(|ways| ways.carrying() > 0)
    }

    /// What to say over the first session, a few times, ever more seldom.
    pub(super) fn hello(&mut self, now: Duration) -> Option<Deed> {
        if self.hellos >= HELLOS || now < self.next_hello {
            return None;
        }
        self.hellos += 1;
        self.next_hello = now + Duration::from_secs(1 << self.hellos);
        Some(Deed::Frame(self.exchange.hello()))
    }

    /// A frame came out of the tunnel.
    ///
    /// # Errors
    /// What it is counted as; then it changed nothing.
    pub(super) fn take(
        &mut self,
        frame: &[u8],
        now: Duration,
        chance: &mut impl Chance,
    ) -> Result<Vec<Deed>, DropReason> {
        if let Some(seen) = Seen::parse(frame) {
            // Of a lane that has ended it is late, as at every renewal.
            return Ok(self.seen(&seen, now).unwrap_or_default());
        }
        let actions = self.exchange.take(frame, now, chance).map_err(reason)?;
        Ok(self.act(actions, now))
    }

    /// A worker is ready.
    pub(super) fn installed(&mut self, generation: u64, worker: usize, now: Duration) -> Vec<Deed> {
        let Some((_, waiting)) = self.installing.as_mut().filter(|(under_way, _)| *under_way == generation) else {
            return Vec::new();
        };
        waiting.remove(&worker);
        if !waiting.is_empty() {
            return Vec::new();
        }
        self.installing = None;
        let action = self.exchange.installed(generation, now);
        self.act(action, now)
    }

    /// A worker took data of this generation, with this index: the first, or the first in a while.
    pub(super) fn heard(&mut self, generation: u64, index: u32, now: Duration) -> Vec<Deed> {
        self.tell(generation, Seen { index, probe: None }, now)
    }

    /// The peer asks whether a lane arrives; it does, from this port.
    pub(super) fn probed(&mut self, (generation, index): (u64, u32), probe: (Probe, u16), now: Duration) -> Vec<Deed> {
        self.tell(generation, Seen { index, probe: Some(probe) }, now)
    }

    fn tell(&mut self, generation: u64, seen: Seen, now: Duration) -> Vec<Deed> {
        let action = self.exchange.heard(generation);
        let mut deeds = self.act(action, now);
        deeds.push(Deed::Frame(seen.to_bytes()));
        deeds
    }

    /// One of our lanes arrives. `None` when it is none of those that are in use.
    fn seen(&mut self, seen: &Seen, now: Duration) -> Option<Vec<Deed>> {
        let (at, moves) =
            self.sending.iter_mut().enumerate().find_map(|(at, ways)| ways.seen(seen, now).map(|moves| (at, moves)))?;
        if now >= self.sending[at].since + TRUST {
            self.silences = 0;
        }
        Some(self.go(at, moves))
    }

    /// Timers. `wanted`: packets went through the tunnel that would rather go on an association.
    pub(super) fn tick(
        &mut self,
        now: Duration,
        passed: Passed,
        wanted: bool,
        has_session: bool,
        chance: &mut impl Chance,
    ) -> Vec<Deed> {
        let used = passed != self.passed;
        let before = std::mem::replace(&mut self.passed, passed);
        let mut deeds = self.expire(now);
        deeds.extend(self.watch(now, &before));
        let trusted = self.required || now >= self.distrusted;
        let wants = match self.sending.last() {
            None => wanted,
            Some(ways) if now >= ways.since + RENEW || self.is_spent() => used,
            // Lanes that died alone are not left to the tunnel until then.
            Some(ways) => wanted && ways.is_crippled() && (self.required || now >= ways.since + TRUST),
        };
        if has_session && wants && trusted {
            let action = self.exchange.want(now, chance);
            deeds.extend(self.act(action, now));
        }
        let actions = self.exchange.tick(now, chance);
        deeds.extend(self.act(actions, now));
        deeds
    }

    /// A lane of the newest generation has sealed so much that a new one is due. What left since that generation came counts
    /// as sealed on it, though some went on the one before.
    fn is_spent(&self) -> bool {
        let before = self.sent_before.iter().chain(std::iter::repeat(&0));
        self.passed.sent.iter().zip(before).any(|(sent, before)| sent.saturating_sub(*before) >= PACKETS_RENEW)
    }

    fn expire(&mut self, now: Duration) -> Vec<Deed> {
        let old = |since: Duration| now >= since + EXPIRE;
        let gone: Vec<_> =
            self.receiving.iter().filter(|(_, (since, _))| old(*since)).map(|(generation, _)| *generation).collect();
        let mut deeds: Vec<_> = gone.into_iter().flat_map(|generation| self.give_up(generation)).collect();
        deeds.extend(self.rest(|ways| now >= ways.since + SEND_UNTIL));
        deeds
    }

    /// Sends no more on these generations.
    fn rest(&mut self, which: impl Fn(&Ways) -> bool) -> Vec<Deed> {
        let ended: Vec<Ways> = self.sending.extract_if(.., |ways| which(ways)).collect();
        ended.iter().flat_map(|ways| self.orders(ways.rest())).collect()
    }

    /// Whether the lanes arrive.
    fn watch(&mut self, now: Duration, before: &Passed) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for at in 0..self.sending.len() {
            let sent = |lane: usize| self.passed.sent.get(lane) != before.sent.get(lane);
            let moves = self.sending[at].tick(now, sent);
            deeds.extend(self.go(at, moves));
        }
        self.silent |= self.sending.last().is_some_and(|ways| ways.carrying() == 0 && now >= ways.since + MUTE);
        let dead = self.sending.last().is_some_and(Ways::is_dead);
        if dead {
            self.sending.pop();
            self.distrust(now);
            deeds.push(Deed::Handshake);
        }
        let newest = self.sending.last().map(|ways| ways.generation);
        self.sending.retain(|ways| Some(ways.generation) == newest || ways.carrying() > 0);
        deeds
    }

    /// Does what the generation at this place wants done.
    fn go(&mut self, at: usize, moves: Vec<Move>) -> Vec<Deed> {
        for one in &moves {
            match *one {
                Move::Carry { lane, .. } => {
                    self.silent = false;
                    self.sending[..at].iter_mut().for_each(|older| older.supersede(lane));
                }
                Move::Forsake { lane } => self.ports.get_mut(lane).into_iter().for_each(|port| *port = None),
                Move::Probe { .. } | Move::Rest { .. } => {}
            }
        }
        self.orders(moves)
    }

    fn orders(&self, moves: Vec<Move>) -> Vec<Deed> {
        let peer = self.peer;
        let order = |one| match one {
            Move::Probe { lane, index, own } => Some(Deed::Order(lane, Order::Probe { peer, index, own })),
            Move::Carry { lane, index, own } => Some(Deed::Order(lane, Order::Carry { peer, index, own })),
            Move::Rest { lane, index } => Some(Deed::Order(lane, Order::Rest { peer, index })),
            Move::Forsake { .. } => None,
        };
        moves.into_iter().filter_map(order).collect()
    }

    /// Associations that carry nothing while the tunnel does must not be tried again and again.
    fn distrust(&mut self, now: Duration) {
        // Those of a way that carries nothing come sooner, whatever the pauses.
        if now >= self.last_silence + DISTRUST_MAX.saturating_mul(2) {
            self.silences = 0;
        }
        self.last_silence = now;
        if self.silences > 0 {
            self.distrusted = now + DISTRUST.saturating_mul(1 << (self.silences - 1).min(8)).min(DISTRUST_MAX);
        }
        self.silences += 1;
    }

    fn act(&mut self, actions: impl IntoIterator<Item = Action>, now: Duration) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for action in actions {
            match action {
                Action::Send(frame) => deeds.push(Deed::Frame(frame)),
                Action::Receive(ends) => deeds.extend(self.receive(ends, now)),
                Action::SendOn { ends, reborn } => deeds.extend(self.send_on(ends, reborn, now)),
                Action::Abandon(generation) => deeds.extend(self.give_up(generation)),
                Action::Purge => {
                    self.receiving.clear();
                    self.installing = None;
                    (self.silences, self.distrusted, self.silent) = (0, Duration::ZERO, false);
                    self.sending.clear();
                    deeds.extend(self.tell_all(|peer| Order::Purge { peer, keep: None }));
                }
            }
        }
        deeds
    }

    fn receive(&mut self, Ends { generation, suite, ends }: Ends, now: Duration) -> Vec<Deed> {
        let mut deeds = Vec::new();
        while self.receiving.len() >= GENERATIONS {
            let Some(oldest) = self.receiving.keys().next().copied() else { break };
            deeds.extend(self.give_up(oldest));
        }
        self.receiving.insert(generation, (now, ends.iter().map(|end| end.index).collect()));
        let mut by_worker: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for end in ends {
            by_worker.entry(worker_of_index(end.index, self.workers)).or_default().push(end);
        }
        self.installing = Some((generation, by_worker.keys().copied().collect()));
        let peer = self.peer;
        let order = |(worker, ends)| Deed::Order(worker, Order::Receive { peer, generation, suite, ends });
        deeds.extend(by_worker.into_iter().map(order));
        deeds
    }

    fn send_on(&mut self, Ends { generation, suite, ends }: Ends, reborn: bool, now: Duration) -> Vec<Deed> {
        let mut deeds = Vec::new();
        if reborn {
            self.receiving.retain(|known, _| *known == generation);
            deeds.extend(self.tell_all(|peer| Order::Purge { peer, keep: Some(generation) }));
        }
        let workers = self.workers;
        let ends = ends.into_iter().filter(|end| usize::from(end.lane) < workers).collect();
        let mine = Ends { generation, suite, ends };
        let mut ways = Ways::new(&mine, &self.ports, now);
        let moves = ways.tick(now, |_| false);
        // One that never carried anything ends here.
        let mut ended = self.rest(|ways| reborn || ways.carrying() == 0);
        deeds.append(&mut ended);
        self.sending.push(ways);
        self.sent_before.clone_from(&self.passed.sent);
        let peer = self.peer;
        let attempt = |end: End| Deed::Order(usize::from(end.lane), Order::Try { peer, generation, suite, end });
        deeds.extend(mine.ends.into_iter().map(attempt));
        deeds.extend(self.orders(moves));
        deeds
    }

    fn give_up(&mut self, generation: u64) -> Vec<Deed> {
        self.receiving.remove(&generation);
        self.installing.take_if(|(under_way, _)| *under_way == generation);
        self.sending.retain(|ways| ways.generation != generation);
        self.tell_all(|peer| Order::Drop { peer, generation })
    }

    fn tell_all(&self, order: impl Fn(PeerId) -> Order) -> Vec<Deed> {
        (0..self.workers).map(|worker| Deed::Order(worker, order(self.peer))).collect()
    }
}

/// What a refused frame is counted as.
fn reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Malformed => DropReason::UnknownFrame,
        Refusal::Forged => DropReason::Forged,
        Refusal::Unexpected | Refusal::Stale | Refusal::TooSoon | Refusal::Suite | Refusal::WeakKey => {
            DropReason::RefusedFrame
        }
    }
}

#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;
