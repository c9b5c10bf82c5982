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
    /// Whose lane does not, all the same.
    cut: Option<(usize, usize)>,
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
        passed: workers.map(|workers| Passed { sent: vec![0; workers].into(), taken: 0 }),
        receivers: Default::default(),
        senders: Default::default(),
        carries: [true; 2],
        cut: None,
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
            Order::Probe { index, .. } if self.carries[who] && self.cut != Some((who, worker)) => {
                if let Some((generation, _)) = self.receivers[1 - who].get(index).copied() {
                    let probe = (Probe { port: 1, own: false }, 1);
                    let deeds = self.links[1 - who].probed((generation, *index), probe, self.now);
                    self.perform(1 - who, deeds);
                }
            }
            Order::Carry { index, .. } => drop(self.senders[who].insert(worker, *index)),
            Order::Rest { index, .. } => self.senders[who].retain(|_, of| of != index),
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
        for (lane, index) in self.senders[who].clone() {
            self.passed[who].sent[lane] += 1;
            if self.carries[who] && self.cut != Some((who, lane)) && self.receivers[1 - who].contains_key(&index) {
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
                let (now, passed) = (self.now, self.passed[who].clone());
                let deeds = self.links[who].tick(now, passed, talks[who], true, &mut self.dice[who]);
                self.perform(who, deeds);
            }
        }
    }

    fn sent(&self, who: usize) -> u64 {
        self.passed[who].sent.iter().sum()
    }

    fn generation(&self, who: usize) -> Option<u64> {
        self.links[who].in_use().map(|ways| ways.generation)
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
    assert_eq!([0, 1].map(|who: usize| pair.links[who].in_use().map(Ways::carrying)), [Some(2), Some(3)]);
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
    assert!(pair.links.iter().all(|link| link.in_use().is_some() && link.receiving.len() <= 2));
    assert_eq!((pair.rests(0), pair.rests(1)), (0, 0), "nobody ever went back to the tunnel");
}

#[test]
fn a_lane_that_sealed_very_many_packets_is_renewed_before_its_time() {
    let mut pair = pair([2, 1]);
    pair.pass(5 * SECOND, BOTH);
    let first = pair.generation(0);
    pair.passed[0].sent[1] += PACKETS_RENEW - 1_000;
    pair.pass(10 * SECOND, BOTH);
    assert_eq!(pair.generation(0), first, "not yet");
    pair.passed[0].sent[1] += 1_000;
    pair.pass(5 * SECOND, BOTH);
    let second = pair.generation(0);
    assert!(second > first && pair.generation(1) > first);
    pair.pass(60 * SECOND, BOTH);
    assert_eq!(pair.generation(0), second, "its packets are counted from its own beginning");
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
    assert_eq!((pair.sent(0), pair.sent(1)), (0, 0));
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
        assert_eq!((pair.sent(dead), pair.rests(1 - dead)), (0, 0));
        assert!(pair.sent(1 - dead) > 2000);
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
        // Nothing is said meanwhile.
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
fn associations_that_stop_to_arrive_around_a_renewal_cost_fifteen_seconds_too() {
    for age in 100..130 {
        let mut pair = pair([1, 1]);
        pair.pass(Duration::from_secs(age), BOTH);
        pair.carries = [false; 2];
        let mut lost = [Duration::ZERO; 2];
        for _ in 0..400 {
            pair.pass(TICK, BOTH);
            for who in [0, 1] {
                lost[who] += if pair.senders[who].is_empty() { Duration::ZERO } else { TICK };
            }
        }
        assert!(lost.iter().all(|lost| *lost <= 15 * SECOND), "{lost:?} at {age} s");
    }
}

#[test]
fn a_lane_that_died_alone_comes_back_before_the_next_renewal() {
    let mut pair = pair([3, 3]);
    pair.pass(10 * SECOND, BOTH);
    pair.cut = Some((0, 1));
    pair.pass(20 * SECOND, BOTH);
    assert_eq!(pair.links[0].in_use().map(Ways::carrying), Some(2), "the others go on");
    pair.cut = None;
    pair.pass(20 * SECOND, BOTH);
    assert_eq!(pair.links[0].in_use().map(Ways::carrying), Some(3));
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

#[test]
fn a_frame_that_changes_nothing_says_what_it_is_counted_as() {
    let mut pair = pair([1, 1]);
    pair.pass(5 * SECOND, BOTH);
    let mut take = |frame: &[u8]| {
        let Pair { links: [link, _], dice: [dice, _], now, .. } = &mut pair;
        link.take(frame, *now, dice).map(|deeds| deeds.len())
    };
    for unknown in [&[1, 200, 0, 0][..], &[2, 6, 0, 0], &[1, 6, 1, 0], &[]] {
        assert_eq!(take(unknown), Err(DropReason::UnknownFrame), "{unknown:?}");
    }
    let close_of_nothing = [&[1, 5, 40, 0][..], &[0; 40]].concat();
    assert_eq!(take(&close_of_nothing), Err(DropReason::RefusedFrame));
    assert_eq!(take(&Seen { index: 7, probe: None }.to_bytes()), Ok(0), "a lane that has ended");
}

#[test]
fn an_answer_with_another_mac_is_counted_as_forged() {
    let mut pair = pair([1, 1]);
    let who = usize::from(!pair.links[0].exchange.is_initiator());
    let Some(Action::Send(offer)) = pair.links[who].exchange.want(pair.now, &mut pair.dice[who]) else {
        panic!("no Offer");
    };
    pair.links[1 - who].take(&offer, pair.now, &mut pair.dice[1 - who]).unwrap();
    let mut deeds = pair.links[1 - who].installed(1, 0, pair.now);
    let Some(Deed::Frame(mut answer)) = deeds.pop() else { panic!("no Answer") };
    *answer.last_mut().unwrap() ^= 1;
    let taken = pair.links[who].take(&answer, pair.now, &mut pair.dice[who]);
    assert!(matches!(taken, Err(DropReason::Forged)), "{taken:?}");
    *answer.last_mut().unwrap() ^= 1;
    assert!(pair.links[who].take(&answer, pair.now, &mut pair.dice[who]).is_ok(), "and the real one is taken after it");
}

#[test]
fn what_is_in_the_way_of_associations_is_said_by_name() {
    let mut pair = pair([2, 2]);
    let obstacle = |pair: &Pair| [0, 1].map(|who: usize| pair.links[who].obstacle());
    assert_eq!(obstacle(&pair), [Obstacle::Unwanted; 2]);
    pair.carries = [false; 2];
    pair.pass(2 * SECOND, [true, false]);
    assert_eq!(obstacle(&pair), [Obstacle::Trying; 2], "agreed on, and nothing came back yet");
    pair.pass(20 * SECOND, BOTH);
    assert_eq!(obstacle(&pair), [Obstacle::Silent; 2], "also while they are tried once more");
    pair.carries = [true; 2];
    pair.pass(60 * SECOND, BOTH);
    assert!(pair.links.iter().all(|link| link.association(pair.now).is_some()));
    pair.pass(200 * SECOND, [false; 2]);
    assert_eq!(obstacle(&pair), [Obstacle::Unwanted; 2], "idle, and no longer silent");
}

#[test]
fn an_end_that_nobody_answers_says_so_whichever_of_the_two_it_is() {
    for who in [0, 1] {
        let mut pair = pair([1, 1]);
        let ask = |pair: &mut Pair, seconds| {
            for _ in 0..4 * seconds {
                pair.now += TICK;
                let passed = pair.passed[who].clone();
                pair.links[who].tick(pair.now, passed, true, true, &mut pair.dice[who]);
            }
            pair.links[who].obstacle()
        };
        assert_eq!(ask(&mut pair, 1), Obstacle::Agreeing);
        assert_eq!(ask(&mut pair, 20), Obstacle::Unanswered);
    }
}

#[test]
fn lanes_are_counted_over_all_generations_in_use() {
    let mut pair = pair([2, 2]);
    pair.pass(5 * SECOND, BOTH);
    let lanes = |pair: &Pair| pair.links[0].association(pair.now).map(|association| association.lanes);
    assert_eq!(lanes(&pair), Some(2));
    pair.cut = Some((0, 1));
    pair.pass(20 * SECOND, BOTH);
    assert_eq!(lanes(&pair), Some(1), "the other lane's data goes in the tunnel");
    pair.cut = None;
    for _ in 0..1200 {
        let before = lanes(&pair);
        pair.pass(TICK, BOTH);
        assert!(before != Some(2) || lanes(&pair) == Some(2), "a renewal takes no lane away");
    }
    assert_eq!(lanes(&pair), Some(2));
}

#[test]
fn a_generation_that_one_worker_has_not_installed_is_not_answered() {
    let mut pair = pair([2, 2]);
    let who = usize::from(!pair.links[0].exchange.is_initiator());
    let Some(Action::Send(offer)) = pair.links[who].exchange.want(pair.now, &mut pair.dice[who]) else {
        panic!("no Offer");
    };
    let (now, link) = (pair.now, &mut pair.links[1 - who]);
    let told = link.take(&offer, now, &mut pair.dice[1 - who]).unwrap();
    assert_eq!(told.iter().filter(|deed| matches!(deed, Deed::Order(_, Order::Receive { .. }))).count(), 2);
    for (generation, worker) in [(1, 0), (1, 0), (2, 1)] {
        assert!(link.installed(generation, worker, now).is_empty(), "generation {generation}, worker {worker}");
    }
    let said = link.installed(1, 1, now);
    assert!(matches!(&said[..], [Deed::Frame(_)]), "{said:?}");
}
