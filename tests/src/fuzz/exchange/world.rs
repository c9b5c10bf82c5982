//! Both agents, the frames between them, and the time.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use warren_crypto::exchange::{Action, FRAME_MAX, Refusal};

use super::side::{Likeness, Side};
use super::{Dice, WORKERS, act_name};
use crate::fuzz::Seen;

/// Everything.
pub(super) struct World {
    sides: [Side; 2],
    /// Frames under way to each side.
    wires: [VecDeque<Vec<u8>>; 2],
    /// Everything that was ever sent to each side.
    history: [Vec<Vec<u8>>; 2],
    dice: Dice,
    now: Duration,
    /// Keys that each side ever made receivers for, in all its lives.
    received: [BTreeSet<Likeness>; 2],
    /// Keys that anybody ever sent under.
    sent: BTreeSet<Likeness>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            sides: [Side::new(0, 1), Side::new(1, 2)],
            wires: Default::default(),
            history: Default::default(),
            dice: Dice::new(seed),
            now: Duration::from_secs(100),
            received: Default::default(),
            sent: BTreeSet::new(),
        }
    }

    pub(super) fn want(&mut self, who: usize, seen: &mut Seen) {
        let action = self.sides[who].exchange.want(self.now, &mut self.dice);
        self.act(who, action, seen);
    }

    pub(super) fn deliver_next(&mut self, who: usize, seen: &mut Seen) {
        if let Some(frame) = self.wires[who].pop_front() {
            self.deliver(who, &frame, "came", seen);
        }
    }

    pub(super) fn lose(&mut self, who: usize) {
        self.wires[who].pop_front();
    }

    pub(super) fn delay(&mut self, who: usize) {
        let first = self.wires[who].pop_front();
        self.wires[who].extend(first);
    }

    /// Something that was sent before, again: also to whom it was not meant for.
    pub(super) fn repeat(&mut self, who: usize, at: usize, seen: &mut Seen) {
        let all: Vec<_> = self.history[who].iter().chain(&self.history[1 - who]).cloned().collect();
        if let Some(frame) = all.get(at % all.len().max(1)) {
            self.deliver(who, frame, "came again", seen);
        }
    }

    pub(super) fn alter_next(&mut self, who: usize, at: usize, by: u8, seen: &mut Seen) {
        if let Some(mut frame) = self.wires[who].pop_front() {
            let at = at % frame.len();
            frame[at] ^= by;
            self.deliver(who, &frame, "altered", seen);
        }
    }

    pub(super) fn make_up(&mut self, who: usize, frame: &[u8], seen: &mut Seen) {
        self.deliver(who, frame, "made up", seen);
    }

    pub(super) fn workers_ready(&mut self, who: usize, seen: &mut Seen) {
        if let Some(generation) = self.sides[who].installing.take() {
            let action = self.sides[who].exchange.installed(generation, self.now);
            self.act(who, action, seen);
        }
    }

    /// The agent of this side is started anew, and says so.
    pub(super) fn restart(&mut self, who: usize, seen: &mut Seen) {
        let boot = self.sides[who].boot + 2;
        self.sides[who] = Side::new(who, boot);
        let hello = self.sides[who].exchange.hello();
        self.act(who, [Action::Send(hello)], seen);
    }

    pub(super) fn pass(&mut self, time: Duration, seen: &mut Seen) {
        self.now += time;
        for who in 0..2 {
            let actions = self.sides[who].exchange.tick(self.now, &mut self.dice);
            self.act(who, actions, seen);
        }
    }

    /// A packet of the peer's newest senders arrives: an empty one.
    pub(super) fn hear(&mut self, who: usize, seen: &mut Seen) {
        let [first, second] = &mut self.sides;
        let (side, peer) = if who == 0 { (first, second) } else { (second, first) };
        let Some(sender) = peer.senders.first_mut() else { return };
        let mut datagram = [0; 32];
        sender.seal(&[], &mut datagram).unwrap();
        let Some((generation, receiver)) = side.receivers.get_mut(&sender.index()) else { return };
        if receiver.open(&mut datagram).is_ok() {
            let action = side.exchange.heard(*generation);
            self.act(who, action, seen);
        }
    }

    /// Data on every lane of `who`: whether all of it arrives.
    pub(super) fn talk(&mut self, who: usize, seen: &mut Seen) -> bool {
        let [first, second] = &mut self.sides;
        let (side, peer) = if who == 0 { (first, second) } else { (second, first) };
        let mut arrived = 0;
        for sender in &mut side.senders {
            let mut datagram = [0; 48];
            let len = sender.seal(b"sixteen bytes ok", &mut datagram).unwrap();
            let receiver = peer.receivers.get_mut(&sender.index());
            let opened = receiver.and_then(|(_, receiver)| receiver.open(&mut datagram[..len]).ok());
            arrived += u16::from(opened.is_some_and(|packet| packet == b"sixteen bytes ok"));
        }
        let all = arrived == WORKERS[who];
        seen.note(if all { "data arrives" } else { "data is lost" });
        all
    }

    fn deliver(&mut self, who: usize, frame: &[u8], how: &str, seen: &mut Seen) {
        let outcome: Result<Vec<Action>, Refusal> = self.sides[who].exchange.take(frame, self.now, &mut self.dice);
        let kind = frame.get(1).filter(|kind| **kind < 9).copied().unwrap_or(9);
        match outcome {
            Ok(actions) => {
                let names: Vec<_> = actions.iter().map(act_name).collect();
                seen.note(format!("{kind} {how}: {}", names.join(", ")));
                self.act(who, actions, seen);
            }
            Err(refusal) => seen.note(format!("{kind} {how}: {refusal:?}")),
        }
    }

    fn act(&mut self, who: usize, actions: impl IntoIterator<Item = Action>, seen: &mut Seen) {
        let actions: Vec<_> = actions.into_iter().collect();
        assert!(actions.len() <= 3, "one event, {} actions", actions.len());
        for action in actions {
            seen.note(act_name(&action));
            match action {
                Action::Send(frame) => {
                    assert!(frame.len() <= FRAME_MAX);
                    self.history[1 - who].push(frame.clone());
                    self.wires[1 - who].push_back(frame);
                }
                Action::Receive(ends) => {
                    let keys = self.sides[who].receive_on(ends);
                    self.received[who].extend(keys);
                }
                Action::SendOn { ends, reborn } => {
                    let keys = self.sides[who].send_on(ends, reborn);
                    assert_eq!(keys.len(), usize::from(WORKERS[who]), "one lane for every sending worker");
                    for key in keys {
                        assert!(self.received[1 - who].contains(&key), "a key that the peer never made receivers for");
                        assert!(self.sent.insert(key), "a counter that starts again under a key that was used");
                    }
                }
                Action::Abandon(generation) => self.sides[who].abandon(generation),
                Action::Purge => self.sides[who].purge(),
            }
        }
    }

    /// The middle behaves: what was begun ends, and what is begun anew completes.
    pub(super) fn behaves_again(&mut self) {
        let mut seen = Seen::default();
        for _ in 0..60 {
            self.settle(&mut seen);
            self.pass(Duration::from_secs(5), &mut seen);
        }
        self.sides.iter_mut().for_each(|side| side.senders.clear());
        self.want(0, &mut seen);
        self.want(1, &mut seen);
        for _ in 0..15 {
            self.settle(&mut seen);
            self.pass(Duration::from_secs(1), &mut seen);
        }
        for who in 0..2 {
            assert!(self.talk(who, &mut seen), "side {who} cannot reach the other though nothing is in the way");
        }
    }

    /// Everything that is under way arrives; workers are ready at once.
    fn settle(&mut self, seen: &mut Seen) {
        for _ in 0..200 {
            for who in 0..2 {
                self.deliver_next(who, seen);
                self.workers_ready(who, seen);
            }
            if self.wires.iter().all(VecDeque::is_empty) {
                return;
            }
        }
        panic!("frames make frames without end");
    }
}
