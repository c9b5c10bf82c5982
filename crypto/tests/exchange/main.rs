//! Two ends of the exchange with a hostile middle, in made-up time.
//!
//! What must hold under every schedule of loss, repetition, delay, forgery and restart: a key makes one sender, ever; and
//! once the middle behaves, both ends soon may send, to a peer that can receive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on")]

mod schedules;
mod world;

use std::time::Duration;

use warren_crypto::association::Suite;
use warren_crypto::exchange::{Action, Exchange, Failure, Standing, Terms};

use self::world::{World, private, side, terms};

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
    assert!(world.sides.iter().all(|side| side.exchange.standing() == Standing::Failed(Failure::NoSuite)));
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
