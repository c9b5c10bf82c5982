//! Lanes on networks that carry some ports and not others.

use warren_crypto::exchange::Probe;

use super::*;
use crate::dataplane::link::tests::ends;

const TICK: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);
const ONE: u16 = 51_840;

/// What of one node's packets arrives.
struct Network {
    /// By the one port, and by own ports.
    shared: bool,
    own: bool,
    /// Own ports arrive as others.
    translates: bool,
    /// One lane of which nothing arrives.
    cut: Option<usize>,
    /// The peer's word arrives.
    answers: bool,
}

const CLEAR: Network = Network { shared: true, own: true, translates: false, cut: None, answers: true };

struct Run {
    ways: Ways,
    network: Network,
    now: Duration,
    moves: Vec<Move>,
    /// How each lane's data goes: `None` in the tunnel.
    carries: Vec<Option<bool>>,
    /// For how long each lane's data was lost.
    lost: Vec<Duration>,
}

fn run(ports: &[Option<u16>], network: Network) -> Run {
    let now = 1000 * SECOND;
    let ways = Ways::new(&ends(7, ports.len()), ports, now);
    Run {
        ways,
        network,
        now,
        moves: Vec::new(),
        carries: vec![None; ports.len()],
        lost: vec![Duration::ZERO; ports.len()],
    }
}

impl Run {
    fn arrives(&self, lane: usize, own: bool) -> bool {
        self.network.cut != Some(lane) && if own { self.network.own } else { self.network.shared }
    }

    fn act(&mut self, moves: Vec<Move>) {
        for one in moves {
            self.moves.push(one);
            match one {
                Move::Carry { lane, own, .. } => self.carries[lane] = Some(own),
                Move::Rest { lane, .. } => self.carries[lane] = None,
                Move::Forsake { .. } => {}
                Move::Probe { lane, index, own } if self.arrives(lane, own) && self.network.answers => {
                    let port = if own { 40_000 + lane as u16 } else { ONE };
                    let from = if self.network.translates { port + 7 } else { port };
                    let seen = Seen { index, probe: Some((Probe { port, own }, from)) };
                    let moves = self.ways.seen(&seen, self.now).unwrap();
                    self.act(moves);
                }
                Move::Probe { .. } => {}
            }
        }
    }

    /// Time passes while data is sent, and the peer tells every three seconds what it took.
    fn pass(&mut self, time: Duration, sent: bool) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            let moves = self.ways.tick(self.now, |lane| sent && self.carries[lane].is_some());
            self.act(moves);
            for lane in 0..self.carries.len() {
                let Some(own) = self.carries[lane] else { continue };
                if !self.arrives(lane, own) {
                    self.lost[lane] += if sent { TICK } else { Duration::ZERO };
                } else if sent && self.now.as_millis().is_multiple_of(3000) && self.network.answers {
                    let index = self.ways.ways[lane].index;
                    let moves = self.ways.seen(&Seen { index, probe: None }, self.now).unwrap();
                    self.act(moves);
                }
            }
        }
    }
}

fn ports(count: usize) -> Vec<Option<u16>> {
    (0..count).map(|lane| (lane > 0).then_some(40_000 + lane as u16)).collect()
}

#[test]
fn every_lane_carries_by_its_own_port_where_the_network_lets_it() {
    let mut run = run(&ports(3), CLEAR);
    assert_eq!(run.ways.carrying(), 0, "nothing before it is seen");
    run.pass(SECOND, true);
    assert_eq!(run.carries, [Some(false), Some(true), Some(true)]);
    run.pass(600 * SECOND, true);
    assert_eq!((run.carries, run.lost), (vec![Some(false), Some(true), Some(true)], vec![Duration::ZERO; 3]));
}

#[test]
fn a_network_that_wants_the_known_port_gets_it() {
    let mut run = run(&ports(2), Network { own: false, ..CLEAR });
    run.pass(SECOND, true);
    assert_eq!(run.carries, [Some(false), Some(false)]);
}

#[test]
fn a_network_that_writes_other_ports_keeps_the_one_port() {
    let mut run = run(&ports(2), Network { translates: true, ..CLEAR });
    run.pass(SECOND, true);
    assert_eq!(run.carries, [Some(false), Some(false)]);
}

#[test]
fn a_port_of_its_own_that_dies_is_replaced_by_the_one_port() {
    let mut run = run(&ports(2), CLEAR);
    run.pass(10 * SECOND, true);
    run.network.own = false;
    run.pass(60 * SECOND, true);
    assert_eq!(run.carries, [Some(false), Some(false)]);
    assert!(run.lost[1] <= 12 * SECOND, "{:?}", run.lost);
}

#[test]
fn a_lane_that_dies_costs_its_own_data_alone_and_fifteen_seconds_at_most() {
    for dies in [0, 1] {
        let mut run = run(&ports(2), CLEAR);
        run.pass(10 * SECOND, true);
        run.network.cut = Some(dies);
        run.pass(60 * SECOND, true);
        assert_eq!((run.carries[dies], run.lost[1 - dies]), (None, Duration::ZERO));
        assert!(run.lost[dies] <= 15 * SECOND, "{:?}", run.lost);
        assert!(!run.ways.is_dead() && run.ways.carrying() == 1);
    }
}

#[test]
fn lanes_that_never_arrive_never_carry() {
    let mut run = run(&ports(2), Network { shared: false, own: false, ..CLEAR });
    run.pass(14 * SECOND, true);
    assert!(!run.ways.is_dead());
    run.pass(SECOND, true);
    assert!(run.ways.is_dead() && run.lost == [Duration::ZERO; 2]);
    assert!(!run.moves.iter().any(|one| matches!(one, Move::Carry { .. })));
}

#[test]
fn a_peer_that_falls_silent_costs_fifteen_seconds_at_most() {
    let mut run = run(&ports(2), CLEAR);
    run.pass(11 * SECOND, true);
    run.network = Network { shared: false, own: false, answers: false, ..CLEAR };
    run.pass(60 * SECOND, true);
    assert!(run.ways.is_dead() && run.lost.iter().all(|lost| *lost <= 15 * SECOND), "{:?}", run.lost);
}

#[test]
fn lanes_that_are_not_used_are_left_alone() {
    let mut run = run(&ports(2), CLEAR);
    run.pass(10 * SECOND, true);
    run.network = Network { shared: false, own: false, answers: false, ..CLEAR };
    // What was sent last may still be unseen, and is asked about.
    let moves = run.moves.len();
    run.ways.ways.iter_mut().for_each(|way| way.unseen = None);
    run.pass(3600 * SECOND, false);
    assert_eq!((run.moves.len(), run.ways.carrying()), (moves, 2));
}

#[test]
fn a_lane_that_arrives_by_neither_way_is_not_carried_on_a_way_that_was_never_seen() {
    // Its own port arrives as another one, the one port not at all.
    let mut run = run(&ports(2), Network { shared: false, translates: true, ..CLEAR });
    run.pass(30 * SECOND, true);
    assert!(!run.moves.iter().any(|one| matches!(one, Move::Carry { .. })), "{:?}", run.moves);
}

#[test]
fn a_lane_of_a_newer_generation_ends_the_older_one_alone() {
    let mut run = run(&ports(2), CLEAR);
    run.pass(SECOND, true);
    run.ways.supersede(1);
    assert_eq!((run.ways.carrying(), run.ways.is_dead()), (1, false));
    run.ways.supersede(0);
    assert!(run.ways.is_dead());
}
