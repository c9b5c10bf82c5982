//! Hours of a tunnel's life in seconds, in virtual time.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod pair;
#[path = "pair/path.rs"]
mod path;

use std::time::Duration;

use mock_instant::MockClock;
use pair::{Outcome, Setup};
use path::World;
use warren_crypto::message::{COOKIE_LEN, INITIATION_LEN, RESPONSE_LEN};
use warren_crypto::tunnel::Initiator;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const CUT: [u64; 2] = [1000, 1000];

fn talking() -> World {
    let mut world = World::new(Setup::default(), 1);
    world.send(0);
    world.wait(SECOND, |w| w.ends.iter().all(|end| end.tunnel.has_session())).expect("a first handshake");
    world
}

/// No two initiations of one end closer than five seconds.
fn assert_paced(world: &World) {
    for seen in &world.seen {
        for pair in seen.initiations.windows(2) {
            assert!(pair[1] - pair[0] >= 5 * SECOND, "initiations at {pair:?}");
        }
    }
}

fn comes_back_after_silence(first: usize) {
    let mut world = talking();
    world.loss = CUT;
    world.run(15 * MINUTE);
    assert!(world.ends.iter().all(|end| !end.tunnel.has_session()));
    world.loss = [0; 2];
    world.observe();
    world.send(first);
    let took = world.wait(MINUTE, |w| w.seen[first].delivered.len() == 1).expect("it comes back");
    assert!(took <= SECOND, "took {took:?}");
    assert_talks_for_long(&mut world);
}

/// Traffic both ways, with rekeys, without a loss.
fn assert_talks_for_long(world: &mut World) {
    world.pace = [4, 4];
    world.run(SECOND);
    world.observe();
    world.run(20 * MINUTE);
    world.pace = [0; 2];
    world.run(SECOND);
    for seen in &world.seen {
        assert!(seen.longest_stall < SECOND, "{:?}", seen.longest_stall);
        // Those in flight when observation began count on one side only.
        assert!(seen.delivered.len() as u64 >= seen.sent, "{} of {}", seen.delivered.len(), seen.sent);
    }
    let initiations: usize = world.seen.iter().map(|seen| seen.initiations.len()).sum();
    assert!((9..=22).contains(&initiations), "{initiations} rekeys in twenty minutes");
    assert_paced(world);
}

#[test]
fn a_peer_absent_for_fifteen_minutes_without_traffic_comes_back_when_we_initiate() {
    comes_back_after_silence(0);
}

#[test]
fn a_peer_absent_for_fifteen_minutes_without_traffic_comes_back_when_it_initiates() {
    comes_back_after_silence(1);
}

#[test]
fn an_idle_tunnel_sends_nothing_at_all() {
    let mut world = talking();
    world.run(MINUTE);
    world.observe();
    world.run(HOUR);
    assert!(world.seen.iter().all(|seen| seen.initiations.is_empty()));
}

#[test]
fn a_peer_unreachable_under_traffic_is_called_at_a_bounded_pace_and_comes_back() {
    for minutes in [2, 15, 61] {
        let mut world = talking();
        world.pace = [4, 0];
        world.loss = CUT;
        world.observe();
        world.run(minutes * MINUTE);
        assert_paced(&world);
        let most = u64::from(minutes) * 12;
        assert!((world.seen[0].initiations.len() as u64) <= most);
        assert!(world.seen[0].initiations.len() >= 4);
        world.loss = [0; 2];
        world.observe();
        let took = world.wait(2 * MINUTE, |w| !w.seen[0].delivered.is_empty()).expect("it comes back");
        assert!(took <= 61 * SECOND, "took {took:?} after {minutes} minutes");
        assert_talks_for_long(&mut world);
    }
}

#[test]
fn one_direction_alone_makes_no_session_and_no_flood() {
    let mut world = World::new(Setup::default(), 3);
    world.loss = [0, 1000];
    world.pace = [4, 4];
    world.run(15 * MINUTE);
    assert!(!world.ends[0].tunnel.has_session());
    assert!(!world.ends[1].tunnel.has_session(), "the peer never proved that it got the response");
    assert_paced(&world);
    world.loss = [0; 2];
    world.run(61 * SECOND);
    assert!(world.ends.iter().all(|end| end.tunnel.has_session()));
}

#[test]
fn keys_are_renewed_under_traffic_for_many_generations_without_a_loss() {
    let mut world = talking();
    world.pace = [2, 5];
    world.run(SECOND);
    world.observe();
    world.run(3 * HOUR);
    world.pace = [0; 2];
    world.run(SECOND);
    let initiations: usize = world.seen.iter().map(|seen| seen.initiations.len()).sum();
    assert!((85..=190).contains(&initiations), "{initiations} rekeys in three hours");
    for seen in &world.seen {
        assert!(seen.delivered.len() as u64 >= seen.sent);
        assert!(seen.longest_stall < SECOND, "{:?}", seen.longest_stall);
    }
}

#[test]
fn traffic_in_one_direction_alone_is_renewed_whoever_began() {
    for direction in 0..2 {
        let mut world = talking();
        world.pace[direction] = 4;
        world.run(SECOND);
        world.observe();
        world.run(HOUR);
        assert!(world.seen[direction].longest_stall < SECOND, "{:?}", world.seen[direction].longest_stall);
    }
}

#[test]
fn random_loss_for_hours_never_stalls_for_long() {
    // Half of everything lost is three of four handshakes lost; a session may end before the next one stands.
    for (seed, loss, stall) in [(1, 10, 2), (2, 50, 3), (3, 200, 5), (4, 500, 90)] {
        let mut world = World::new(Setup::default(), seed);
        world.loss = [loss; 2];
        world.pace = [4, 6];
        world.run(MINUTE);
        world.observe();
        world.run(4 * HOUR);
        assert_paced(&world);
        for seen in &world.seen {
            println!("loss {loss}: longest stall {:?}", seen.longest_stall);
            let share = seen.delivered.len() as u64 * 1000 / seen.sent;
            assert!(share + loss + 30 >= 1000, "{share} of 1000 at loss {loss}");
            assert!(seen.longest_stall <= stall * SECOND, "{:?} at loss {loss}", seen.longest_stall);
        }
    }
}

#[test]
fn persistent_keepalive_holds_a_silent_path_open_and_revives_it() {
    let mut world = World::new(Setup { keepalive: [Some(25), None], ..Setup::default() }, 5);
    world.wait(SECOND, |w| w.ends[1].tunnel.has_session()).expect("a first tick begins");
    world.run(HOUR);
    world.observe();
    world.send(1);
    let took = world.wait(MINUTE, |w| w.seen[1].delivered.len() == 1).expect("a silent path stays open");
    assert!(took <= SECOND, "took {took:?}");
    world.loss = CUT;
    world.run(15 * MINUTE);
    world.loss = [0; 2];
    world.wait(61 * SECOND, |w| w.ends.iter().all(|end| end.tunnel.has_session())).expect("it revives without traffic");
}

#[test]
fn preshared_keys_that_differ_never_make_a_session() {
    let preshared = [[1u8; 32], [2u8; 32]].map(|bytes| Some(pair::preshared(bytes)));
    let mut world = World::new(Setup { preshared, ..Setup::default() }, 7);
    world.pace = [4, 4];
    for _ in 0..1200 {
        world.run(SECOND);
        assert!(world.ends.iter().all(|end| !end.tunnel.has_session()));
        assert!(world.ends.iter().all(|end| end.tunnel.status().handshake_age.is_none()));
    }
    assert!(world.seen.iter().all(|seen| seen.delivered.is_empty()));
    assert_paced(&world);
}

#[test]
fn replays_and_overtaking_for_hours_deliver_nothing_twice_and_stall_nothing() {
    for seed in 11..14 {
        let mut world = World::new(Setup::default(), seed);
        world.replays = 300;
        world.lateness = 20;
        world.loss = [20; 2];
        world.pace = [4, 4];
        world.run(MINUTE);
        world.observe();
        world.run(2 * HOUR);
        assert_paced(&world);
        for seen in &world.seen {
            assert!(seen.longest_stall <= 6 * SECOND, "{:?}", seen.longest_stall);
            assert!(seen.delivered.len() as u64 * 100 >= seen.sent * 95);
        }
    }
}

#[test]
fn a_handshake_cut_off_by_nine_minutes_of_silence_is_begun_again() {
    let mut world = talking();
    world.run(9 * MINUTE - 4 * SECOND);
    world.loss = CUT;
    world.observe();
    world.send(0);
    world.run(4500 * MILLISECOND);
    assert_eq!(world.seen[0].initiations.len(), 1);
    world.loss = [0; 2];
    let took = world.wait(MINUTE, |w| w.seen[0].delivered.len() == 1).expect("it is begun again");
    assert!(took <= SECOND, "took {took:?}");
    assert_paced(&world);
}

#[test]
fn a_node_under_load_lets_in_whoever_shows_a_cookie() {
    let mut world = World::new(Setup { handshakes_per_second: [pair::UNLIMITED, 0], ..Setup::default() }, 9);
    world.send(0);
    let took = world.wait(MINUTE, |w| w.seen[0].delivered.len() == 1).expect("the cookie opens");
    assert!((5 * SECOND..=6 * SECOND).contains(&took), "took {took:?}: the first initiation only earns a cookie");
    world.pace = [4, 4];
    world.run(SECOND);
    world.observe();
    world.run(20 * MINUTE);
    assert!(world.seen.iter().all(|seen| seen.longest_stall < SECOND));
    assert_paced(&world);
}

#[test]
fn a_cookie_is_good_for_its_address_alone() {
    let [mut a, mut b] = Setup { handshakes_per_second: [pair::UNLIMITED, 0], ..Setup::default() }.build();
    let Ok(Outcome::Reply(cookie)) = b.receive(&a.initiate().unwrap()) else { panic!("no cookie") };
    for bit in 32..cookie.len() * 8 {
        let mut forged = cookie.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(a.open(&forged).is_err(), "bit {bit}");
    }
    assert_eq!(a.open(&cookie), Ok(Outcome::Keepalive));
    MockClock::advance(6 * SECOND);
    let initiation = a.tick().unwrap();
    let mut out = [0; COOKIE_LEN];
    let elsewhere = "192.0.2.2".parse().unwrap();
    assert!(matches!(b.identity.identify(elsewhere, &initiation, &mut out), Ok(Initiator::Cookie(_))));
    assert!(matches!(b.identity.identify(pair::FROM, &initiation, &mut out), Ok(Initiator::Peer(_))));
}

#[test]
fn cookies_start_at_the_given_rate_and_end_a_second_later() {
    let setup = Setup { handshakes_per_second: [pair::UNLIMITED, 10], ..Setup::default() };
    let [_, mut b] = setup.build();
    let whole_handshakes = |b: &mut pair::End| {
        (0..20)
            .filter(|_| {
                // Each as after a restart, so that none is held back at its own end.
                MockClock::advance(Duration::from_millis(1));
                let initiation = setup.build()[0].initiate().unwrap();
                b.receive(&initiation)
                    .is_ok_and(|outcome| matches!(outcome, Outcome::Reply(r) if r.len() == RESPONSE_LEN))
            })
            .count()
    };
    MockClock::advance(SECOND);
    b.identity.reset_limiter();
    assert_eq!(whole_handshakes(&mut b), 10);
    assert_eq!(whole_handshakes(&mut b), 0);
    MockClock::advance(SECOND);
    b.identity.reset_limiter();
    assert_eq!(whole_handshakes(&mut b), 10);
}

#[test]
fn the_age_of_a_session_is_counted_from_its_proof_and_ends_with_it() {
    let mut world = talking();
    world.run(100 * SECOND);
    let age = world.ends[1].tunnel.status().handshake_age.expect("a session");
    assert!((100 * SECOND..=101 * SECOND).contains(&age), "{age:?}");
    world.run(100 * SECOND);
    assert_eq!(world.ends[1].tunnel.status().handshake_age, None);
}

#[test]
fn persistent_keepalives_are_sent_in_silence_and_not_beside_traffic() {
    let mut world = World::new(Setup { keepalive: [Some(10), Some(10)], ..Setup::default() }, 5);
    world.run(SECOND);
    world.observe();
    world.run(100 * SECOND);
    let sent: u64 = world.seen.iter().map(|seen| seen.keepalives).sum();
    assert!((8..=20).contains(&sent), "{sent} keepalives in a hundred seconds of silence");
    world.pace = [20, 20];
    world.observe();
    world.run(10 * SECOND);
    assert!(world.seen.iter().all(|seen| seen.keepalives == 0));
}

/// One packet from the first end passes; nothing that follows does, but what the second end throws.
fn pass_one_and_cut(world: &mut World) {
    let before = world.seen[0].delivered.len();
    world.loss = [0; 2];
    world.send(0);
    world.loss = [1000, 0];
    world.wait(SECOND, |w| w.seen[0].delivered.len() > before).expect("the packet passes");
}

#[test]
fn a_keepalive_that_fell_due_without_a_session_is_sent_with_the_next_one() {
    let mut world = talking();
    // Packets pass in the session's last seconds, initiations do not: the last one comes when it is too late to
    // keep alive within the session.
    world.run(171 * SECOND);
    pass_one_and_cut(&mut world);
    world.send(1);
    world.run(2 * SECOND);
    pass_one_and_cut(&mut world);
    world.observe();
    world.run(10 * SECOND);
    assert!(!world.ends[1].tunnel.has_session());
    assert_eq!(world.seen[1].initiations.len(), 1, "the keepalive asks for a session");
    world.loss = [0; 2];
    world.wait(6 * SECOND, |w| w.ends[1].tunnel.has_session()).expect("a session");
    world.run(SECOND);
    assert_eq!(world.seen[1].keepalives, 2, "one confirms the handshake, one was waiting");
}

#[test]
fn a_node_that_was_just_called_does_not_call_back_at_once() {
    let [mut a, mut b] = Setup::default().build();
    b.answer(&a.initiate().unwrap());
    assert_eq!(b.initiate(), None);
    MockClock::advance(SECOND);
    assert!(b.tick().is_some_and(|datagram| datagram.len() == INITIATION_LEN), "the answer may have been lost");
}

#[test]
fn a_peer_that_came_back_with_another_preshared_key_ends_the_session_instead_of_swallowing_traffic() {
    let keys = Setup::default().keys;
    let with = |byte: u8| Setup {
        keys: keys.clone(),
        preshared: [Some(pair::preshared([byte; 32])), Some(pair::preshared([1; 32]))],
        ..Setup::default()
    };
    let [mut a, mut b] = with(1).build();
    pair::shake(&mut a, &mut b);
    let mut ended_after = None;
    for attempt in 1..=8 {
        MockClock::advance(6 * SECOND);
        b.tick();
        let response = b.answer(&with(2).build()[0].initiate().unwrap());
        assert_eq!(response.len(), RESPONSE_LEN);
        if !b.tunnel.has_session() {
            ended_after.get_or_insert(attempt);
        }
    }
    assert_eq!(ended_after, Some(8), "boringtun's ring holds eight sessions");
    assert_eq!(b.tunnel.status().handshake_age, None);
}
