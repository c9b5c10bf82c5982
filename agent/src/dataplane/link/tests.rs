//! Two links with each other, in made-up time: what one has to do is done to the other.

use std::time::Duration;

use warren_crypto::PrivateKey;
use warren_crypto::exchange::Terms;

use super::*;
use crate::dataplane::chance::Dice;

/// As the clerk does.
const TICK: Duration = Duration::from_millis(250);

struct Pair {
    links: [Link; 2],
    dice: [Dice; 2],
    passed: [Passed; 2],
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
                Deed::Order(worker, order) => {
                    let installed = match &order {
                        Order::Receive { generation, .. } => Some(*generation),
                        Order::Keepalive { .. } => {
                            self.send(who, 0);
                            None
                        }
                        _ => None,
                    };
                    self.orders[who].push(order);
                    if let Some(generation) = installed {
                        let deeds = self.links[who].installed(generation, worker, self.now);
                        self.perform(who, deeds);
                    }
                }
                Deed::Handshake => self.handshakes[who] += 1,
            }
        }
    }

    /// `data` packets, or one empty one, on the associations of `who`.
    fn send(&mut self, who: usize, data: u64) {
        if self.links[who].sending.is_none() {
            return;
        }
        self.passed[who].sent += data;
        if self.carries[who] {
            self.passed[1 - who].data += data;
            self.passed[1 - who].heard += data.max(1);
        }
    }

    /// Time passes; `talks`: who has something to say all the while.
    fn pass(&mut self, time: Duration, talks: [bool; 2]) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            for who in [0, 1] {
                self.send(who, u64::from(talks[who]));
            }
            for who in [0, 1] {
                let (now, passed) = (self.now, self.passed[who]);
                let deeds = self.links[who].tick(now, passed, talks[who], true, &mut self.dice[who]);
                self.perform(who, deeds);
            }
        }
    }

    fn generation(&self, who: usize) -> Option<u64> {
        self.links[who].sending.map(|sending| sending.generation)
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
    assert_eq!(
        (pair.links[0].sending.map(|one| one.lanes), pair.links[1].sending.map(|one| one.lanes)),
        (Some(2), Some(3))
    );
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
fn who_only_receives_says_that_it_lives() {
    let mut pair = pair([2, 2]);
    pair.pass(5 * SECOND, [true, false]);
    pair.pass(100 * SECOND, [true, false]);
    assert!(pair.orders[1].iter().any(|order| matches!(order, Order::Keepalive { .. })));
    assert_eq!((pair.rests(0), pair.handshakes[0]), (0, 0));
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
fn associations_that_carry_one_way_alone_are_tried_ever_more_seldom_too() {
    for carries in [[false, true], [true, false]] {
        let mut pair = pair([1, 1]);
        pair.carries = carries;
        // What comes the other way while the tunnel carries proves nothing about this way.
        pair.pass(600 * SECOND, BOTH);
        let tried = (0..2).map(|who| pair.rests(who)).min().unwrap_or_default();
        assert!((2..=6).contains(&tried), "given up {} and {} times", pair.rests(0), pair.rests(1));
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
