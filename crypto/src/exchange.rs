//! The exchange: how two agents agree on a generation of associations, by frames that travel inside their tunnel.
//!
//! ```text
//! initiator (the smaller public key)              responder
//!     Offer   ──────────────────────────────▶     derives keys, makes its receivers ready
//!     makes its receivers ready   ◀────────────── Answer
//!     Confirm ──────────────────────────────▶     may send on the new associations
//!     may send on the new associations   ◀─────── Ack
//! ```
//!
//! A pure state machine: the time, random bytes and frames come in, [`Action`]s go out. Every state is consumed by the
//! step that leaves it, so one Offer makes at most one generation, and one generation's keys make each association once.
//! A repeated frame is answered with the bytes of the first time.
//!
//! It never sends, waits, reads a clock or draws randomness, and keeps no secret once the associations' keys exist.

mod frame;
mod kem;
#[cfg(feature = "model")]
mod model;
mod probe;
mod schedule;
mod standing;
mod steps;

use std::time::Duration;

use zeroize::Zeroizing;

use self::frame::{Frame, MAC, without_mac};
use self::steps::{Agreed, Offered};
use crate::association::{AssociationKey, Suite};
use crate::keys::{PresharedKey, PrivateKey, PublicKey};

pub use self::frame::{FRAME_MAX, LANES_MAX};
pub use self::probe::{Probe, Seen};
pub use self::standing::{Failure, Standing};

/// An exchange that is not complete by then is dead.
const PATIENCE: Duration = Duration::from_secs(15);
/// The first pause between two sendings of one frame; each further one is twice as long.
const RESEND: Duration = Duration::from_secs(1);
/// Exchanges with one peer begin at least this far apart; below [`RESEND`], so that an Offer which came too soon is taken
/// when it is sent again.
const SPACING: Duration = Duration::from_millis(900);
/// The pause after a failed exchange; each further one is twice as long.
const RETRY: Duration = Duration::from_secs(4);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(240);
/// The longest pause between two Requests: they are a few bytes, and whoever makes the Offers has pauses of its own.
const REQUEST_MAX: Duration = Duration::from_secs(16);

/// What does not change between two nodes while both run.
#[cfg_attr(feature = "model", derive(Clone))]
pub struct Terms {
    /// This node's key.
    pub own: PrivateKey,
    /// The peer's.
    pub peer: PublicKey,
    /// The secret shared with the peer, if any.
    pub preshared_key: Option<PresharedKey>,
    /// Differs at every start of the agent, and is larger at a later one as far as the machine's clock knows.
    pub boot: u64,
    /// This node's sending workers, 1 to [`LANES_MAX`].
    pub workers: u16,
    /// What this node speaks, best first.
    pub suites: Vec<Suite>,
}

/// Where the machine gets what it must not make up.
pub trait Chance {
    /// Fills with random bytes.
    fn fill(&mut self, bytes: &mut [u8]);

    /// A receiver index for this lane of the peer that no other association of this node has.
    fn index(&mut self, lane: u16) -> u32;
}

/// One end of an association-to-be.
#[derive(Clone, Debug)]
pub struct End {
    /// The sending worker, on whichever side it is.
    pub lane: u16,
    /// The receiver's index.
    pub index: u32,
    /// Its key.
    pub key: AssociationKey,
}

/// The associations of one direction.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The generation that they belong to; grows within a run of the agent.
    pub generation: u64,
    /// Their suite.
    pub suite: Suite,
    /// One per lane.
    pub ends: Vec<End>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Send this frame to the peer, inside the tunnel.
    Send(Vec<u8>),
    /// Be ready to receive on these, then call [`Exchange::installed`].
    Receive(Ends),
    /// The peer is ready: send on these from now on.
    SendOn {
        /// The sending ends.
        ends: Ends,
        /// The peer was started anew: whatever is older is void.
        reborn: bool,
    },
    /// Give up this generation, in both directions.
    Abandon(u64),
    /// The peer was started anew: give up everything.
    Purge,
}

/// Why a frame changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a frame that this version knows.
    #[error("not a frame of a known layout")]
    Malformed,
    /// It belongs to the other role, to no exchange, or to one that is over.
    #[error("the frame belongs to no exchange under way")]
    Unexpected,
    /// An Offer that is older than one seen, or the same one with other bytes.
    #[error("an old exchange, or a second one under its number")]
    Stale,
    /// Another one was begun just now.
    #[error("exchanges follow one another too soon")]
    TooSoon,
    /// No suite is spoken by both, or not the one that was offered.
    #[error("no suite in common")]
    Suite,
    /// A key that would agree with anybody.
    #[error("a key that gives no secret")]
    WeakKey,
    /// The MAC does not fit.
    #[error("the frame is not from the holder of the peer's key")]
    Forged,
}

/// Where an exchange stands.
#[cfg_attr(feature = "model", derive(Clone))]
enum State {
    Idle,
    /// Initiator: the Offer is out.
    Offered(Box<Offered>),
    /// Keys exist; `reply` leaves when the receivers are ready.
    Installing {
        agreed: Box<Agreed>,
        reply: Vec<u8>,
    },
    /// The reply is out, the peer's word is awaited: Confirm or Ack.
    Replied {
        agreed: Box<Agreed>,
        reply: Vec<u8>,
    },
}

/// What the responder keeps of its last exchange.
#[cfg_attr(feature = "model", derive(Clone))]
struct Completed {
    confirm: Vec<u8>,
    ack: Vec<u8>,
    /// With this the initiator says that it never heard of the Ack.
    close: Vec<u8>,
    generation: u64,
}

/// The exchanges with one peer, one at a time.
#[cfg_attr(feature = "model", derive(Clone))]
pub struct Exchange {
    terms: Terms,
    state: State,
    /// The last one begun, or seen.
    number: u64,
    generation: u64,
    /// The Offer that is being answered, or was.
    offer: Vec<u8>,
    offer_boot: Option<u64>,
    /// Number and boot of the last Offer whose sender proved itself; one that never did leaves no trace.
    proven: (u64, Option<u64>),
    /// The peer's, once it has proven itself.
    peer_boot: Option<u64>,
    completed: Option<Completed>,
    deadline: Duration,
    resend: Duration,
    pause: Duration,
    failures: u32,
    /// How the last one failed; `None` once one is complete. Decides nothing.
    failure: Option<Failure>,
    /// Requests since the last Offer that was answered.
    requests: u32,
    /// The peer asked for an exchange while none could begin.
    asked: bool,
    /// Nothing is begun before.
    not_before: Duration,
    /// When the last one was begun.
    begun: Option<Duration>,
}

impl Exchange {
    /// At rest.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: State::Idle,
            number: 0,
            generation: 0,
            offer: Vec::new(),
            offer_boot: None,
            proven: (0, None),
            peer_boot: None,
            completed: None,
            deadline: Duration::ZERO,
            resend: Duration::ZERO,
            pause: RESEND,
            failures: 0,
            failure: None,
            requests: 0,
            asked: false,
            not_before: Duration::ZERO,
            begun: None,
        }
    }

    /// Whether this node makes the Offers: the one with the smaller public key does.
    pub fn is_initiator(&self) -> bool {
        self.terms.own.public_key().as_bytes() < self.terms.peer.as_bytes()
    }

    /// Whether something is under way.
    pub fn is_busy(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// A new generation is wanted: begins it, or asks the peer to. Nothing while one is under way or a pause lasts.
    pub fn want(&mut self, now: Duration, chance: &mut impl Chance) -> Option<Action> {
        if self.is_busy() || now < self.not_before || self.is_too_soon(now) {
            return None;
        }
        if !self.is_initiator() {
            self.not_before = now + jittered(doubled(self.requests).min(REQUEST_MAX), chance);
            self.requests = self.requests.saturating_add(1);
            return Some(Action::Send(frame::request()));
        }
        self.number += 1;
        let (offered, offer) = Offered::new(&self.terms, self.number, chance);
        self.offer.clone_from(&offer);
        self.state = State::Offered(Box::new(offered));
        self.begin(now);
        Some(Action::Send(offer))
    }

    /// What to tell the peer once, over the first session after this node's start.
    pub fn hello(&self) -> Vec<u8> {
        frame::hello(self.terms.boot)
    }

    /// A frame came out of the peer's tunnel.
    ///
    /// # Errors
    /// Why it changed nothing.
    pub fn take(&mut self, bytes: &[u8], now: Duration, chance: &mut impl Chance) -> Result<Vec<Action>, Refusal> {
        match Frame::parse(bytes).ok_or(Refusal::Malformed)? {
            Frame::Offer(offer) if !self.is_initiator() => self.take_offer(&offer, bytes, now, chance),
            Frame::Answer(answer, mac) if self.is_initiator() => self.take_answer(&answer, &mac, bytes, chance),
            Frame::Confirm { number, indices, mac } if !self.is_initiator() => {
                self.take_confirm(number, &indices, &mac, bytes)
            }
            Frame::Ack { number, mac } if self.is_initiator() => self.take_ack(number, &mac),
            Frame::Close { number, mac } => match self.completed.take_if(|completed| completed.close == bytes) {
                Some(completed) => Ok(vec![Action::Abandon(completed.generation)]),
                None => self.take_close(number, &mac, now, chance),
            },
            Frame::Hello { boot } => Ok(self.take_hello(boot)),
            Frame::Request if self.is_initiator() => {
                self.asked = true;
                Ok(self.want(now, chance).into_iter().collect())
            }
            _ => Err(Refusal::Unexpected),
        }
    }

    /// The receivers of this generation are ready.
    pub fn installed(&mut self, generation: u64, now: Duration) -> Option<Action> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Installing { agreed, reply } if generation == self.generation => {
                self.state = State::Replied { agreed, reply: reply.clone() };
                self.resend_from(now);
                Some(Action::Send(reply))
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// An authentic packet came on an association of this generation: the peer has the Confirm, whatever became of the
    /// Ack.
    pub fn heard(&mut self, generation: u64) -> Option<Action> {
        let waits = self.is_initiator() && matches!(self.state, State::Replied { .. });
        if !waits || generation != self.generation {
            return None;
        }
        self.complete()
    }

    /// Sends again what was not answered, gives up what took too long, and begins what was asked for in a pause.
    pub fn tick(&mut self, now: Duration, chance: &mut impl Chance) -> Vec<Action> {
        if !self.is_busy() {
            return if self.asked { self.want(now, chance).into_iter().collect() } else { Vec::new() };
        }
        if now >= self.deadline {
            return self.fail(now, chance);
        }
        if now < self.resend {
            return Vec::new();
        }
        self.pause *= 2;
        self.resend = now + self.pause;
        match &self.state {
            State::Offered(_) => vec![Action::Send(self.offer.clone())],
            // The responder only repeats an Answer when it is asked again.
            State::Replied { reply, .. } if self.is_initiator() => vec![Action::Send(reply.clone())],
            _ => Vec::new(),
        }
    }

    /// Whatever the peer says, it gets one exchange a second.
    fn is_too_soon(&self, now: Duration) -> bool {
        self.begun.is_some_and(|begun| now < begun + SPACING)
    }

    fn begin(&mut self, now: Duration) {
        (self.asked, self.requests) = (false, 0);
        self.begun = Some(now);
        self.deadline = now + PATIENCE;
        self.resend_from(now);
    }

    fn resend_from(&mut self, now: Duration) {
        self.pause = RESEND;
        self.resend = now + RESEND;
    }

    fn take_offer(
        &mut self,
        offer: &frame::Offer,
        bytes: &[u8],
        now: Duration,
        chance: &mut impl Chance,
    ) -> Result<Vec<Action>, Refusal> {
        if self.offer_boot == Some(offer.boot) && offer.number <= self.number {
            return self.repeat_answer(offer, bytes);
        }
        if self.is_too_soon(now) {
            return Err(Refusal::TooSoon);
        }
        let (agreed, reply, ends) = match steps::answer(&self.terms, offer, bytes, self.generation + 1, chance) {
            Err(Refusal::Suite) => {
                self.failure = Some(Failure::NoSuite);
                return Ok(vec![Action::Send(frame::with_mac(frame::close(offer.number), [0; MAC]))]);
            }
            agreed => agreed?,
        };
        let mut actions = self.abandon();
        (self.number, self.offer_boot) = (offer.number, Some(offer.boot));
        self.offer = bytes.to_vec();
        self.generation = ends.generation;
        self.state = State::Installing { agreed: Box::new(agreed), reply };
        self.begin(now);
        actions.push(Action::Receive(ends));
        Ok(actions)
    }

    /// The same Offer again: the same Answer, if it has left already.
    fn repeat_answer(&self, offer: &frame::Offer, bytes: &[u8]) -> Result<Vec<Action>, Refusal> {
        if offer.number < self.number || self.offer != bytes {
            return Err(Refusal::Stale);
        }
        match &self.state {
            State::Replied { reply, .. } => Ok(vec![Action::Send(reply.clone())]),
            State::Installing { .. } => Ok(Vec::new()),
            _ => Err(Refusal::Stale),
        }
    }

    fn take_answer(
        &mut self,
        answer: &frame::Answer,
        mac: &[u8; MAC],
        bytes: &[u8],
        chance: &mut impl Chance,
    ) -> Result<Vec<Action>, Refusal> {
        let (State::Offered(offered), true) = (&self.state, answer.number == self.number) else {
            return Err(Refusal::Unexpected);
        };
        let seen = steps::Seen { answer, bytes: without_mac(bytes), mac };
        let (agreed, reply, ends) = offered.confirm(&self.terms, &self.offer, &seen, self.generation + 1, chance)?;
        self.generation = ends.generation;
        self.state = State::Installing { agreed: Box::new(agreed), reply };
        Ok(vec![Action::Receive(ends)])
    }

    fn take_confirm(
        &mut self,
        number: u64,
        indices: &[u32],
        mac: &[u8; MAC],
        bytes: &[u8],
    ) -> Result<Vec<Action>, Refusal> {
        if let Some(completed) = self.completed.as_ref().filter(|completed| completed.confirm == bytes) {
            return Ok(vec![Action::Send(completed.ack.clone())]);
        }
        let (State::Replied { agreed, .. }, true) = (&mut self.state, number == self.number) else {
            return Err(Refusal::Unexpected);
        };
        let ack = agreed.take_confirm(number, indices, without_mac(bytes), mac)?;
        let (close, generation) = (agreed.close(number), self.generation);
        self.proven = (self.number, self.offer_boot);
        self.completed = Some(Completed { confirm: bytes.to_vec(), ack: ack.clone(), close, generation });
        Ok(self.complete().into_iter().chain([Action::Send(ack)]).collect())
    }

    fn take_ack(&mut self, number: u64, mac: &[u8; MAC]) -> Result<Vec<Action>, Refusal> {
        let (State::Replied { agreed, .. }, true) = (&self.state, number == self.number) else {
            return Err(Refusal::Unexpected);
        };
        agreed.check_ack(mac)?;
        Ok(self.complete().into_iter().collect())
    }

    fn take_close(
        &mut self,
        number: u64,
        mac: &[u8; MAC],
        now: Duration,
        chance: &mut impl Chance,
    ) -> Result<Vec<Action>, Refusal> {
        if number != self.number {
            return Err(Refusal::Unexpected);
        }
        let mut failure = Failure::Unanswered;
        match &self.state {
            State::Idle => return Err(Refusal::Unexpected),
            // Without a MAC it is said of the Offer itself.
            State::Offered(_) if *mac == [0; MAC] => failure = Failure::NoSuite,
            State::Offered(_) => {}
            State::Installing { agreed, .. } | State::Replied { agreed, .. } => agreed.check_close(number, mac)?,
        }
        self.pause_after(failure, now, chance);
        Ok(self.abandon())
    }

    /// The tunnel says who sent it. One of an older start was held back and says nothing any more; should the peer's clock
    /// have gone back instead, its next exchange proves the new start, or silence tells.
    fn take_hello(&mut self, boot: u64) -> Vec<Action> {
        // What is under way proves that very start, and voids what is older then.
        if self.pending_boot() == Some(boot) {
            return Vec::new();
        }
        if self.peer_boot.take_if(|known| *known < boot).is_none() {
            return Vec::new();
        }
        (self.not_before, self.failure) = (Duration::ZERO, None);
        self.abandon().into_iter().chain([Action::Purge]).collect()
    }

    /// The start with which keys are being agreed on.
    fn pending_boot(&self) -> Option<u64> {
        match &self.state {
            State::Installing { agreed, .. } | State::Replied { agreed, .. } => Some(agreed.peer_boot()),
            State::Idle | State::Offered(_) => None,
        }
    }

    /// Both sides are ready.
    fn complete(&mut self) -> Option<Action> {
        let State::Replied { agreed, .. } = std::mem::replace(&mut self.state, State::Idle) else { return None };
        (self.failures, self.failure, self.asked) = (0, None, false);
        self.not_before = Duration::ZERO;
        let boot = agreed.peer_boot();
        let reborn = self.peer_boot.replace(boot).is_some_and(|known| known != boot);
        Some(Action::SendOn { ends: agreed.into_senders(self.generation), reborn })
    }

    fn fail(&mut self, now: Duration, chance: &mut impl Chance) -> Vec<Action> {
        let close = match &self.state {
            State::Replied { agreed, .. } => Some(agreed.close(self.number)),
            _ => None,
        };
        self.pause_after(Failure::Unanswered, now, chance);
        let mut actions = self.abandon();
        actions.extend(close.map(Action::Send));
        actions
    }

    fn pause_after(&mut self, failure: Failure, now: Duration, chance: &mut impl Chance) {
        self.failure = Some(failure);
        self.not_before = now + jittered(doubled(self.failures).min(RETRY_MAX), chance);
        self.failures = self.failures.saturating_add(1);
    }

    fn abandon(&mut self) -> Vec<Action> {
        if !self.is_initiator() && self.is_busy() {
            (self.number, self.offer_boot) = self.proven;
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Installing { .. } | State::Replied { .. } => vec![Action::Abandon(self.generation)],
            State::Idle | State::Offered(_) => Vec::new(),
        }
    }
}

/// The pause after so many tries.
fn doubled(tries: u32) -> Duration {
    RETRY.saturating_mul(1 << tries.min(8))
}

/// Between half of it and the whole.
fn jittered(pause: Duration, chance: &mut impl Chance) -> Duration {
    let mut jitter = [0; 2];
    chance.fill(&mut jitter);
    pause / 2 + pause.mul_f64(f64::from(u16::from_le_bytes(jitter)) / 65_536.0) / 2
}
