//! Hours of a tunnel's life in seconds, in virtual time.

mod pair;
#[path = "pair/path.rs"]
mod path;

use std::time::Duration;

use pair::Setup;
use path::World;

const SECOND: Duration = Duration::from_secs(1);
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
    for (seed, loss) in [(1, 10), (2, 50), (3, 200), (4, 500)] {
        let mut world = World::new(Setup::default(), seed);
        world.loss = [loss; 2];
        world.pace = [4, 6];
        world.run(MINUTE);
        world.observe();
        world.run(4 * HOUR);
        for seen in &world.seen {
            eprintln!("loss {loss}: stall {:?} of {} delivered {}", seen.longest_stall, seen.sent, seen.delivered.len());
            let share = seen.delivered.len() as u64 * 1000 / seen.sent;
            assert!(share + loss + 30 >= 1000, "{share} of 1000 at loss {loss}");
            assert!(seen.longest_stall <= 20 * SECOND, "{:?} at loss {loss}", seen.longest_stall);
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
