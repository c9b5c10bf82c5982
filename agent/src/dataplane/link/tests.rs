//! Two links with each other, in made-up time: what one has to do is done to the other.

use std::time::Duration;

use warren_crypto::PrivateKey;
use warren_crypto::association::{AssociationKey, Suite};
use warren_crypto::exchange::Terms;

use super::*;
use crate::dataplane::chance::Dice;

/// As the clerk does.
const TICK: Duration = Duration::from_millis(250);

/// Sending ends with the numbers of their lanes for indices.
pub(super) fn ends(generation: u64, lanes: usize) -> Ends {
    let end = |lane: u16| End { lane, index: u32::from(lane), key: AssociationKey::new([lane as u8; 32]) };
    Ends { generation, suite: Suite::Aes256Gcm, ends: (0..lanes as u16).map(end).collect() }
}

struct Pair {
    links: [Link; 2],
    dice: [Dice; 2],
    passed: [Passed; 2],
    /// What each node receives on: generation and the period in which it was heard, by index.
    receivers: [BTreeMap<u32, (u64, Option<u64>)>; 2],
    /// What each node sends on, by lane.
    senders: [BTreeMap<usize, u32>; 2],
    /// Whether associations carry: each node's packets arrive at the other.
    carries: [bool; 2],
    now: Duration,
    /// Every order and handshake so far.
    orders: [Vec<Order>; 2],
    handshakes: [usize; 2],
}

fn pair(workers: [usize; 2]) -> Pair {
    let keys = [PrivateKey::generate(), PrivateKey::generate()];
    let link = |which: usize| {
        let terms = Terms {
            own: keys[which].clone(),
            peer: keys[1 - which].public_key(),
            preshared_key: None,
            boot: which as u64,
            workers: workers[which] as u16,
            suites: Suite::ALL.to_vec(),
        };
        Link::new(PeerId { slot: 0, serial: 0 }, Exchange::new(terms), workers[which])
    };
    Pair {
        links: [link(0), link(1)],
        dice: workers.map(|workers| Dice { workers, used: Default::default() }),
        passed: Default::default(),
        receivers: Default::default(),
        senders: Default::default(),
        carries: [true; 2],
        now: Duration::from_secs(1000),
        orders: Default::default(),
        handshakes: [0; 2],
    }
}

impl Pair {
    fn perform(&mut self, who: usize, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Frame(frame) => {
                    let peer = 1 - who;
                    let deeds = self.links[peer].take(&frame, self.now, &mut self.dice[peer]).unwrap_or_default();
                    self.perform(peer, deeds);
                }
                Deed::Order(worker, order) => self.obey(who, worker, order),
                Deed::Handshake => self.handshakes[who] += 1,
            }
        }
    }

    /// As a worker does.
    fn obey(&mut self, who: usize, worker: usize, order: Order) {
        match &order {
            Order::Receive { generation, ends, .. } => {
                let generation = *generation;
                self.receivers[who].extend(ends.iter().map(|end| (end.index, (generation, None))));
                self.orders[who].push(order);
                let deeds = self.links[who].installed(generation, worker, self.now);
                return self.perform(who, deeds);
            }
            Order::Probe { index, .. } if self.carries[who] && self.receivers[1 - who].contains_key(index) => {
                self.arrive(who, *index);
                self.perform(1 - who, Link::probed(*index, Probe { port: 1, own: false }, 1));
            }
            Order::Carry { index, .. } => drop(self.senders[who].insert(worker, *index)),
            Order::Rest { .. } => drop(self.senders[who].remove(&worker)),
            Order::Drop { generation, .. } => self.receivers[who].retain(|_, (of, _)| of != generation),
            Order::Purge { keep, .. } => self.receivers[who].retain(|_, (of, _)| Some(*of) == *keep),
            _ => {}
        }
        self.orders[who].push(order);
    }

    /// Something authentic comes on an association of `who`.
    fn arrive(&mut self, who: usize, index: u32) {
        let period = self.now.as_secs() / 3;
        let Some((generation, heard)) = self.receivers[1 - who].get_mut(&index) else { return };
        if heard.replace(period) != Some(period) {
            let deeds = self.links[1 - who].heard(*generation, index, self.now);
            self.perform(1 - who, deeds);
        }
    }

    /// A packet on every lane of `who`.
    fn send(&mut self, who: usize) {
        let senders: Vec<u32> = self.senders[who].values().copied().collect();
        for index in senders {
            self.passed[who].sent += 1;
            if self.carries[who] && self.receivers[1 - who].contains_key(&index) {
                self.passed[1 - who].taken += 1;
                self.arrive(who, index);
            }
        }
    }

    /// Time passes; `talks`: who has something to say all the while.
    fn pass(&mut self, time: Duration, talks: [bool; 2]) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            for who in [0, 1].into_iter().filter(|who| talks[*who]) {
                self.send(who);
            }
            for who in [0, 1] {
                let (now, passed) = (self.now, self.passed[who]);
                let deeds = self.links[who].tick(now, passed, talks[who], true, &mut self.dice[who]);
                self.perform(who, deeds);
            }
        }
    }

    fn generation(&self, who: usize) -> Option<u64> {
        self.links[who].sending.as_ref().map(|ways| ways.generation)
    }

    fn rests(&self, who: usize) -> usize {
        self.orders[who].iter().filter(|order| matches!(order, Order::Rest { .. })).count()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const BOTH: [bool; 2] = [true, true];

#[test]
fn the_first_data_makes_a_generation_with_a_lane_for_every_worker() {
    let mut pair = pair([2, 3]);
    pair.pass(5 * SECOND, [false, false]);
    assert_eq!((pair.generation(0), pair.generation(1)), (None, None), "nothing without data");
    pair.pass(5 * SECOND, [true, false]);
    assert_eq!([0, 1].map(|who: usize| pair.links[who].sending.as_ref().map(Ways::carrying)), [Some(2), Some(3)]);
}

#[test]
fn a_generation_in_use_is_renewed_and_old_ones_end() {
    let mut pair = pair([1, 2]);
    pair.pass(5 * SECOND, BOTH);
    let first = pair.generation(0);
    pair.pass(100 * SECOND, BOTH);
    assert_eq!(pair.generation(0), first);
    pair.pass(20 * SECOND, BOTH);
    assert!(pair.generation(0) > first);
    pair.pass(3600 * SECOND, BOTH);
    assert!(pair.links.iter().all(|link| link.sending.is_some() && link.receiving.len() <= 2));
    assert_eq!((pair.rests(0), pair.rests(1)), (0, 0), "nobody ever went back to the tunnel");
}

#[test]
fn an_idle_generation_ends_and_is_not_renewed() {
    let mut pair = pair([1, 1]);
    pair.pass(5 * SECOND, BOTH);
    let first = pair.generation(0);
    assert!(first.is_some());
    pair.pass(180 * SECOND, [false, false]);
    assert_eq!((pair.generation(0), pair.links[0].indices().count()), (None, 0));
    pair.pass(5 * SECOND, [false, true]);
    assert!(pair.generation(0) > first);
}

#[test]
fn who_only_receives_says_that_it_takes() {
    let mut pair = pair([2, 2]);
    pair.pass(105 * SECOND, [true, false]);
    assert_eq!((pair.rests(0), pair.handshakes[0]), (0, 0));
}

#[test]
fn lanes_that_carry_nothing_from_the_start_are_never_sent_on() {
    let mut pair = pair([2, 2]);
    pair.carries = [false; 2];
    pair.pass(300 * SECOND, BOTH);
    assert_eq!((pair.passed[0].sent, pair.passed[1].sent), (0, 0));
}

#[test]
fn who_is_not_heard_is_sent_to_in_the_tunnel_within_fifteen_seconds() {
    let mut pair = pair([2, 2]);
    pair.pass(5 * SECOND, BOTH);
    pair.carries = [false; 2];
    pair.pass(14 * SECOND, BOTH);
    assert_eq!(pair.rests(0), 0);
    pair.pass(2 * SECOND, BOTH);
    assert!((0..2).any(|who| pair.rests(who) >= 2 && pair.handshakes[who] >= 1), "every worker is told");
}

#[test]
fn associations_that_carry_nothing_are_tried_ever_more_seldom() {
    let mut pair = pair([1, 1]);
    pair.pass(5 * SECOND, BOTH);
    pair.carries = [false; 2];
    let mut in_tunnel = 0;
    for _ in 0..1000 {
        pair.pass(SECOND, BOTH);
        in_tunnel += usize::from(pair.generation(0).is_none());
    }
    assert!(in_tunnel > 700, "{in_tunnel} of 1000 s in the tunnel");
    pair.carries = [true; 2];
    pair.pass(500 * SECOND, BOTH);
    assert!(pair.generation(0).is_some() && pair.links[0].silences == 0, "and trusted again");
}

#[test]
fn associations_that_carry_one_way_alone_are_used_that_way_alone() {
    for (dead, carries) in [(0, [false, true]), (1, [true, false])] {
        let mut pair = pair([1, 1]);
        pair.carries = carries;
        // What comes the other way proves nothing about this way.
        pair.pass(600 * SECOND, BOTH);
        assert_eq!((pair.passed[dead].sent, pair.rests(1 - dead)), (0, 0));
        assert!(pair.passed[1 - dead].sent > 2000);
        let tried = pair.rests(dead);
        assert!((2..=8).contains(&tried), "given up {tried} times");
    }
}

#[test]
fn silences_long_ago_do_not_keep_the_tunnel() {
    let mut pair = pair([1, 1]);
    for _ in 0..4 {
        pair.carries = [true; 2];
        // Too short to trust the way again.
        pair.pass(20 * SECOND, BOTH);
        pair.carries = [false; 2];
        pair.pass(20 * SECOND, BOTH);
        pair.carries = [true; 2];
        pair.pass(10 * SECOND, BOTH);
        assert!(pair.generation(0).is_some(), "as soon as after the first silence");
        // Not even a keepalive comes meanwhile.
        pair.carries = [false; 2];
        pair.pass(2_000 * SECOND, [false; 2]);
    }
}

#[test]
fn who_may_not_use_the_tunnel_keeps_no_pause() {
    let mut pair = pair([1, 1]);
    pair.links.iter_mut().for_each(|link| link.required = true);
    for _ in 0..6 {
        pair.carries = [false; 2];
        pair.pass(40 * SECOND, BOTH);
        pair.carries = [true; 2];
        pair.pass(12 * SECOND, BOTH);
        assert!(pair.generation(0).is_some());
    }
}

#[test]
fn silence_on_both_sides_is_no_fault() {
    let mut pair = pair([1, 1]);
    pair.pass(5 * SECOND, BOTH);
    pair.pass(60 * SECOND, [false, false]);
    assert_eq!((pair.rests(0), pair.rests(1)), (0, 0));
    assert!(pair.generation(0).is_some());
}

#[test]
fn a_peer_that_makes_exchange_after_exchange_holds_three_generations() {
    let mut pair = pair([1, 1]);
    for _ in 0..20 {
        pair.pass(SECOND, BOTH);
        for who in [0, 1] {
            let action = pair.links[who].exchange.want(pair.now, &mut pair.dice[who]);
            let deeds = pair.links[who].act(action, pair.now);
            pair.perform(who, deeds);
        }
    }
    assert!(pair.generation(0).is_some_and(|generation| generation > 5));
    assert!(pair.links.iter().all(|link| link.receiving.len() <= GENERATIONS));
}
