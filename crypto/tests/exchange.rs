//! Two ends of the exchange with a hostile middle, in made-up time.
//!
//! What must hold under every schedule of loss, repetition, delay, forgery and restart: a key makes one sender, ever; and
//! once the middle behaves, both ends soon may send, to a peer that can receive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use warren_crypto::association::{Receiver, Sender, Suite};
use warren_crypto::exchange::{Action, Chance, End, Ends, Exchange, Refusal, Terms};
use warren_crypto::{PresharedKey, PrivateKey};

/// Pseudo-random bytes of a seed (SplitMix64), and indices that never repeat.
struct Dice {
    state: u64,
    used: u32,
}

impl Chance for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }

    fn index(&mut self, lane: u16) -> u32 {
        self.used += 1;
        1 << 31 | self.used << 8 | u32::from(lane)
    }
}

/// One agent: the exchange, and what it told its workers.
struct Side {
    exchange: Exchange,
    receivers: BTreeMap<u32, (u64, Receiver)>,
    senders: Option<(u64, Vec<Sender>)>,
    /// Receivers that the workers were told of and have not confirmed yet.
    installing: Option<u64>,
    boot: u64,
}

struct World {
    sides: [Side; 2],
    /// Frames under way to each side.
    wires: [VecDeque<Vec<u8>>; 2],
    /// Everything that was ever sent to each side.
    history: [Vec<Vec<u8>>; 2],
    dice: Dice,
    now: Duration,
    /// Every sending key that was ever handed out, by what it seals.
    sending: BTreeSet<Vec<u8>>,
    psk: Option<[u8; 32]>,
}

fn private(byte: u8) -> PrivateKey {
    base64_key(&[byte; 32]).parse().unwrap()
}

fn base64_key(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([&0; 2]).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for digit in 0..=chunk.len() {
            text.push(DIGITS[(word >> (18 - 6 * digit) & 63) as usize] as char);
        }
    }
    text + "="
}

fn terms(side: usize, boot: u64, psk: Option<[u8; 32]>) -> Terms {
    let keys = [private(17), private(99)];
    Terms {
        peer: keys[1 - side].public_key(),
        own: keys[side].clone(),
        preshared_key: psk.map(|bytes| base64_key(&bytes).parse::<PresharedKey>().unwrap()),
        boot,
        workers: [2, 3][side],
        suites: Suite::ALL.to_vec(),
    }
}

fn side(which: usize, boot: u64, psk: Option<[u8; 32]>) -> Side {
    Side {
        exchange: Exchange::new(terms(which, boot, psk)),
        receivers: BTreeMap::new(),
        senders: None,
        installing: None,
        boot,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            sides: [side(0, 1, None), side(1, 2, None)],
            wires: Default::default(),
            history: Default::default(),
            dice: Dice { state: seed, used: 0 },
            now: Duration::from_secs(100),
            sending: BTreeSet::new(),
            psk: None,
        }
    }

    fn act(&mut self, who: usize, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            match action {
                Action::Send(frame) => {
                    self.history[1 - who].push(frame.clone());
                    self.wires[1 - who].push_back(frame);
                }
                Action::Receive(ends) => self.receive_on(who, ends),
                Action::SendOn { ends, reborn } => self.send_on(who, ends, reborn),
                Action::Purge => {
                    let side = &mut self.sides[who];
                    side.receivers.clear();
                    (side.senders, side.installing) = (None, None);
                }
                Action::Abandon(generation) => {
                    let side = &mut self.sides[who];
                    side.receivers.retain(|_, (of, _)| *of != generation);
                    side.senders.take_if(|(of, _)| *of == generation);
                    side.installing.take_if(|of| *of == generation);
                }
            }
        }
    }

    fn receive_on(&mut self, who: usize, Ends { generation, suite, ends }: Ends) {
        let side = &mut self.sides[who];
        for End { index, key, .. } in ends {
            let before = side.receivers.insert(index, (generation, Receiver::new(suite, &key, index)));
            assert!(before.is_none(), "an index was given twice");
        }
        side.installing = Some(generation);
    }

    fn send_on(&mut self, who: usize, Ends { generation, suite, ends }: Ends, reborn: bool) {
        let mut senders = Vec::new();
        for End { index, key, .. } in ends {
            // The first packet under a key says whether that key was ever used for sending.
            let mut probe = vec![0; 48];
            Sender::new(suite, &key, 0).seal(&[0; 16], &mut probe).unwrap();
            assert!(self.sending.insert(probe), "two senders under one key");
            senders.push(Sender::new(suite, &key, index));
        }
        let workers = [2, 3][who];
        assert_eq!(senders.len(), workers, "one lane for every sending worker");
        if reborn {
            self.sides[who].receivers.retain(|_, (of, _)| *of == generation);
        }
        self.sides[who].senders = Some((generation, senders));
    }

    fn installed(&mut self, who: usize) {
        if let Some(generation) = self.sides[who].installing.take() {
            let action = self.sides[who].exchange.installed(generation, self.now);
            self.act(who, action);
        }
    }

    fn deliver(&mut self, who: usize, frame: &[u8]) -> Result<(), Refusal> {
        let Self { sides, dice, now, .. } = self;
        let actions = sides[who].exchange.take(frame, *now, dice)?;
        self.act(who, actions);
        Ok(())
    }

    fn want(&mut self, who: usize) {
        let Self { sides, dice, now, .. } = self;
        let action = sides[who].exchange.want(*now, dice);
        self.act(who, action);
    }

    fn tick(&mut self, by: Duration) {
        self.now += by;
        for who in 0..2 {
            let Self { sides, dice, now, .. } = self;
            let actions = sides[who].exchange.tick(*now, dice);
            self.act(who, actions);
        }
    }

    fn restart(&mut self, who: usize) {
        let boot = self.sides[who].boot + 2;
        self.sides[who] = side(who, boot, self.psk);
        // The tunnel is made anew: nothing that was under way fits it.
        self.wires = Default::default();
        let hello = self.sides[who].exchange.hello();
        self.wires[1 - who].push_back(hello);
    }

    /// Everything that is under way arrives, workers answer at once.
    fn settle(&mut self) {
        for _ in 0..20 {
            for who in 0..2 {
                while let Some(frame) = self.wires[who].pop_front() {
                    let _ = self.deliver(who, &frame);
                }
                self.installed(who);
            }
        }
    }

    /// Packets of every lane of `who`; how many the peer opened.
    fn talk(&mut self, who: usize) -> (usize, usize) {
        let Some((_, mut senders)) = self.sides[who].senders.take() else { return (0, 0) };
        let mut opened = 0;
        for sender in &mut senders {
            let mut datagram = [0; 64];
            let len = sender.seal(b"sixteen bytes ok", &mut datagram).unwrap();
            let receiver = self.sides[1 - who].receivers.get_mut(&sender.index());
            let packet = receiver.and_then(|(_, receiver)| receiver.open(&mut datagram[..len]).ok());
            opened += usize::from(packet.is_some_and(|packet| packet == b"sixteen bytes ok"));
        }
        let sent = senders.len();
        self.sides[who].senders = Some((0, senders));
        (sent, opened)
    }
}

fn connected(seed: u64) -> World {
    let mut world = World::new(seed);
    world.want(0);
    world.want(1);
    world.settle();
    world
}

#[test]
fn one_exchange_gives_every_worker_of_both_sides_its_lane() {
    let mut world = connected(1);
    assert_eq!(world.talk(0), (2, 2));
    assert_eq!(world.talk(1), (3, 3));
    assert!(world.sides.iter().all(|side| !side.exchange.is_busy()));
}

#[test]
fn only_the_smaller_key_offers_and_the_other_requests() {
    let world = World::new(2);
    let initiators = world.sides.iter().filter(|side| side.exchange.is_initiator()).count();
    assert_eq!(initiators, 1);
    let mut world = World::new(2);
    let responder = usize::from(world.sides[0].exchange.is_initiator());
    world.want(responder);
    world.settle();
    assert_eq!((world.talk(0).1, world.talk(1).1), (2, 3));
}

#[test]
fn a_lost_ack_costs_nothing_once_the_peer_is_heard() {
    let mut world = World::new(3);
    let initiator = usize::from(!world.sides[0].exchange.is_initiator());
    world.want(initiator);
    let responder = 1 - initiator;
    let offer = world.wires[responder].pop_front().unwrap();
    world.deliver(responder, &offer).unwrap();
    world.installed(responder);
    let answer = world.wires[initiator].pop_front().unwrap();
    world.deliver(initiator, &answer).unwrap();
    world.installed(initiator);
    let confirm = world.wires[responder].pop_front().unwrap();
    world.deliver(responder, &confirm).unwrap();
    world.wires[initiator].clear();
    assert!(world.sides[responder].senders.is_some() && world.sides[initiator].senders.is_none());
    let action = world.sides[initiator].exchange.heard(1);
    world.act(initiator, action);
    assert!(world.sides[initiator].senders.is_some());
    assert!(world.sides[initiator].exchange.heard(1).is_none(), "once");
}

#[test]
fn a_repeated_frame_gets_the_same_bytes_again_and_no_second_association() {
    let mut world = World::new(4);
    let initiator = usize::from(!world.sides[0].exchange.is_initiator());
    world.want(initiator);
    world.settle();
    let before = world.sending.len();
    for who in 0..2 {
        for frame in world.history[who].clone() {
            let sent = world.history[1 - who].len();
            let _ = world.deliver(who, &frame);
            world.installed(who);
            for reply in &world.history[1 - who][sent..] {
                assert!(world.history[1 - who][..sent].contains(reply), "a reply that was never sent before");
            }
        }
    }
    assert_eq!(world.sending.len(), before);
}

#[test]
fn who_does_not_hold_the_static_key_completes_nothing() {
    let mut world = World::new(5);
    let initiator = usize::from(!world.sides[0].exchange.is_initiator());
    // The responder's place is taken by somebody with another key of his own.
    let stranger = Terms { own: private(55), ..terms(1 - initiator, 9, None) };
    world.sides[1 - initiator].exchange = Exchange::new(stranger);
    world.want(initiator);
    world.settle();
    world.tick(Duration::from_secs(1));
    world.settle();
    assert!(world.sides[initiator].senders.is_none());
}

#[test]
fn a_different_preshared_key_agrees_on_nothing() {
    let mut world = World::new(6);
    world.sides[1].exchange = Exchange::new(terms(1, 2, Some([3; 32])));
    world.want(0);
    world.want(1);
    world.settle();
    assert!(world.sides.iter().all(|side| side.senders.is_none()));
}

#[test]
fn no_suite_in_common_is_said_and_not_lowered() {
    let mut world = World::new(7);
    for (who, suite) in [(0, Suite::Aes256Gcm), (1, Suite::ChaCha20Poly1305)] {
        world.sides[who].exchange = Exchange::new(Terms { suites: vec![suite], ..terms(who, 1, None) });
    }
    world.want(0);
    world.want(1);
    world.settle();
    assert!(world.sides.iter().all(|side| side.senders.is_none() && !side.exchange.is_busy()));
}

#[test]
fn the_suite_is_the_one_that_suits_the_weaker_side() {
    let suite_of = |first: &[Suite], second: &[Suite]| {
        let mut world = World::new(8);
        for (who, suites) in [(0, first), (1, second)] {
            world.sides[who].exchange = Exchange::new(Terms { suites: suites.to_vec(), ..terms(who, 1, None) });
        }
        let initiator = usize::from(!world.sides[0].exchange.is_initiator());
        world.want(initiator);
        let offer = world.wires[1 - initiator].pop_front().unwrap();
        let World { sides, dice, now, .. } = &mut world;
        let actions = sides[1 - initiator].exchange.take(&offer, *now, dice).unwrap();
        let suite =
            actions.iter().find_map(|action| if let Action::Receive(ends) = action { Some(ends.suite) } else { None });
        suite.unwrap()
    };
    let (aes, chacha) = (Suite::Aes256Gcm, Suite::ChaCha20Poly1305);
    assert_eq!(suite_of(&[aes, chacha], &[aes, chacha]), aes);
    assert_eq!(suite_of(&[chacha, aes], &[aes, chacha]), chacha);
    assert_eq!(suite_of(&[aes, chacha], &[chacha, aes]), chacha);
    assert_eq!(suite_of(&[aes], &[chacha, aes]), aes);
}

#[test]
fn an_exchange_without_an_answer_ends_and_is_begun_again_after_a_pause() {
    let mut world = World::new(9);
    let initiator = usize::from(!world.sides[0].exchange.is_initiator());
    world.want(initiator);
    for _ in 0..16 {
        world.tick(Duration::from_secs(1));
    }
    assert!(!world.sides[initiator].exchange.is_busy());
    let sent = world.history[1 - initiator].len();
    assert!((2..8).contains(&sent), "{sent} Offers in 15 s");
    world.wires = Default::default();
    world.want(initiator);
    assert_eq!(world.history[1 - initiator].len(), sent, "not at once");
    world.tick(Duration::from_secs(5));
    world.want(initiator);
    world.settle();
    assert_eq!((world.talk(0).1, world.talk(1).1), (2, 3));
}

#[test]
fn a_request_that_comes_in_a_pause_is_met_when_the_pause_ends() {
    let mut world = World::new(11);
    let initiator = usize::from(!world.sides[0].exchange.is_initiator());
    world.want(initiator);
    (0..16).for_each(|_| world.tick(Duration::from_secs(1)));
    world.wires = Default::default();
    world.want(1 - initiator);
    world.settle();
    assert_eq!(world.talk(0), (0, 0), "it was not a pause");
    world.tick(Duration::from_secs(4));
    world.settle();
    assert_eq!((world.talk(0).1, world.talk(1).1), (2, 3));
}

#[test]
fn requests_that_are_lost_are_repeated_every_sixteen_seconds_at_the_latest() {
    let mut world = World::new(12);
    let responder = usize::from(world.sides[0].exchange.is_initiator());
    let mut last = 0;
    for second in 1..=300 {
        world.tick(Duration::from_secs(1));
        world.want(responder);
        if !world.wires[1 - responder].is_empty() {
            assert!(second - last <= 17, "nothing was asked for {} s", second - last);
            last = second;
            world.wires[1 - responder].clear();
        }
    }
    assert!(last > 280);
}

#[test]
fn a_peer_that_was_restarted_is_noticed() {
    let mut world = connected(10);
    world.restart(1);
    world.tick(Duration::from_secs(30));
    for _ in 0..2 {
        world.want(0);
        world.want(1);
        world.settle();
        world.tick(Duration::from_secs(1));
    }
    assert_eq!((world.talk(0).1, world.talk(1).1), (2, 3));
}

#[test]
fn a_hello_of_a_new_start_voids_everything_and_one_of_the_same_start_nothing() {
    let mut world = connected(11);
    let same = world.sides[1].exchange.hello();
    world.deliver(0, &same).unwrap();
    assert_eq!(world.talk(0), (2, 2));
    world.restart(1);
    let new = world.sides[1].exchange.hello();
    world.deliver(0, &new).unwrap();
    assert!(world.sides[0].senders.is_none() && world.sides[0].receivers.is_empty());
    world.tick(Duration::from_secs(1));
    world.want(0);
    world.want(1);
    world.settle();
    assert_eq!((world.talk(0).1, world.talk(1).1), (2, 3));
}

#[test]
fn a_hello_of_an_older_start_that_was_held_back_evicts_nothing() {
    let mut world = World::new(13);
    let old = world.sides[1].exchange.hello();
    world.restart(1);
    world.want(0);
    world.want(1);
    world.settle();
    world.deliver(0, &old).unwrap();
    assert_eq!((world.talk(0), world.talk(1)), ((2, 2), (3, 3)));
}

#[test]
fn a_hello_does_not_break_off_the_exchange_that_proves_its_start() {
    let mut world = connected(15);
    let responder = usize::from(world.sides[0].exchange.is_initiator());
    let initiator = 1 - responder;
    world.restart(initiator);
    let hello = world.wires[responder].pop_front().unwrap();
    world.tick(Duration::from_secs(2));
    world.want(initiator);
    let offer = world.wires[responder].pop_front().unwrap();
    world.deliver(responder, &offer).unwrap();
    world.installed(responder);
    world.deliver(responder, &hello).unwrap();
    world.settle();
    assert!(world.talk(initiator).1 > 0 && world.talk(responder).1 > 0, "no second exchange was needed");
}

#[test]
fn a_start_whose_clock_went_back_is_believed_when_it_proves_itself() {
    let mut world = connected(14);
    world.sides[1] = side(1, 1, None);
    world.tick(Duration::from_secs(30));
    world.want(0);
    world.want(1);
    world.settle();
    assert_eq!((world.talk(0), world.talk(1)), ((2, 2), (3, 3)));
}

#[test]
fn an_offer_that_is_never_confirmed_does_not_outlast_its_exchange() {
    let mut world = World::new(12);
    let initiator = usize::from(!world.sides[0].exchange.is_initiator());
    world.want(initiator);
    let mut altered = world.wires[1 - initiator].pop_front().unwrap();
    // The highest byte of its number: every honest one is smaller.
    altered[11] = 0xff;
    world.deliver(1 - initiator, &altered).unwrap();
    for _ in 0..40 {
        world.settle();
        world.tick(Duration::from_secs(1));
        world.want(initiator);
    }
    assert_eq!((world.talk(0), world.talk(1)), ((2, 2), (3, 3)));
}

#[derive(Clone, Debug)]
enum Step {
    Want(usize),
    Deliver(usize),
    Lose(usize),
    Swap(usize),
    /// Something that was sent long ago, again.
    Replay(usize, usize),
    /// The next frame with a changed byte.
    Alter(usize, usize, u8),
    Installed(usize),
    Restart(usize),
    Tick(u64),
    Heard(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 0usize..2;
    prop_oneof![
        3 => who.clone().prop_map(Step::Want),
        9 => who.clone().prop_map(Step::Deliver),
        2 => who.clone().prop_map(Step::Lose),
        1 => who.clone().prop_map(Step::Swap),
        2 => (who.clone(), any::<usize>()).prop_map(|(who, at)| Step::Replay(who, at)),
        1 => (who.clone(), any::<usize>(), 1u8..).prop_map(|(who, at, by)| Step::Alter(who, at, by)),
        6 => who.clone().prop_map(Step::Installed),
        1 => who.clone().prop_map(Step::Restart),
        3 => (100u64..6000).prop_map(Step::Tick),
        1 => who.prop_map(Step::Heard),
    ]
}

fn step(world: &mut World, step: &Step) {
    match *step {
        Step::Want(who) => world.want(who),
        Step::Deliver(who) => {
            if let Some(frame) = world.wires[who].pop_front() {
                let _ = world.deliver(who, &frame);
            }
        }
        Step::Lose(who) => drop(world.wires[who].pop_front()),
        Step::Swap(who) => {
            if world.wires[who].len() > 1 {
                world.wires[who].swap(0, 1);
            }
        }
        Step::Replay(who, at) => {
            let len = world.history[who].len();
            if let Some(frame) = world.history[who].get(at % len.max(1)).cloned() {
                let _ = world.deliver(who, &frame);
            }
        }
        Step::Alter(who, at, by) => {
            if let Some(mut frame) = world.wires[who].pop_front() {
                let at = at % frame.len();
                frame[at] ^= by;
                let _ = world.deliver(who, &frame);
            }
        }
        Step::Installed(who) => world.installed(who),
        Step::Restart(who) => world.restart(who),
        Step::Tick(millis) => world.tick(Duration::from_millis(millis)),
        // The peer really sent on this generation.
        Step::Heard(who) => {
            if let Some((_, senders)) = &world.sides[1 - who].senders {
                let index = senders[0].index();
                let generation = world.sides[who].receivers.get(&index).map(|(generation, _)| *generation);
                let action = generation.and_then(|generation| world.sides[who].exchange.heard(generation));
                world.act(who, action);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_reuses_a_key_or_keeps_the_ends_apart(
        seed in any::<u64>(), schedule in proptest::collection::vec(steps(), 0..80)) {
        let mut world = World::new(seed);
        for one in &schedule {
            step(&mut world, one);
        }
        // The middle behaves again: whatever was begun ends, then a new exchange completes within one patience more.
        world.settle();
        for _ in 0..300 {
            world.tick(Duration::from_secs(1));
            world.settle();
        }
        for side in &mut world.sides {
            side.senders = None;
        }
        world.want(0);
        world.want(1);
        for _ in 0..15 {
            world.settle();
            world.tick(Duration::from_secs(1));
        }
        prop_assert_eq!(world.talk(0), (2, 2));
        prop_assert_eq!(world.talk(1), (3, 3));
    }

    #[test]
    fn any_bytes_are_refused(seed in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut world = World::new(seed);
        prop_assert!(world.deliver(0, &bytes).is_err());
        prop_assert!(world.deliver(1, &bytes).is_err());
    }
}
