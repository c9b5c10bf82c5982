//! Every way that data can take, and the reason for it.

use std::time::Duration;

use warren_crypto::PrivateKey;
use warren_crypto::association::Suite;

use super::*;
use crate::dataplane::{Association, PeerCounters};

fn report(association: Result<usize, Obstacle>) -> PeerReport {
    let agreed = |lanes| Association { suite: Suite::Aes256Gcm, lanes, own_ports: 0, age: Duration::from_secs(7) };
    PeerReport {
        name: "b".parse().expect("a name"),
        public_key: PrivateKey::generate().public_key(),
        endpoint: None,
        handshake_age: Some(Duration::from_secs(1)),
        handshake_time: None,
        connecting: false,
        unanswered: None,
        counters: PeerCounters::default(),
        association: association.map(agreed),
        speaks_associations: true,
    }
}

/// On a node with two workers.
fn carriage(stance: Associations, report: &PeerReport) -> Carriage<'_> {
    Carriage { stance, workers: 2, origin: Origin::Registry, report }
}

#[test]
fn only_data_that_goes_nowhere_but_in_associations_is_called_post_quantum() {
    for (stance, lanes, post_quantum) in [
        (Associations::Prefer, 2, true),
        (Associations::Prefer, 1, false),
        (Associations::Require, 2, true),
        (Associations::Require, 1, true),
    ] {
        let report = report(Ok(lanes));
        let association = carriage(stance, &report).association().expect("there is one");
        assert_eq!(association.post_quantum, post_quantum, "{stance:?}, {lanes} of 2 lanes");
        assert_eq!((association.suite.as_str(), association.lanes, association.age), ("aes-256-gcm", lanes, 7));
    }
}

#[test]
fn what_becomes_of_data_without_an_association_depends_on_the_stance() {
    for (stance, data, dropped) in [
        (Associations::Off, "tunnel", false),
        (Associations::Prefer, "tunnel", false),
        (Associations::Require, "dropped", true),
    ] {
        let report = report(Err(Obstacle::NoSuite));
        let carriage = carriage(stance, &report);
        assert_eq!((carriage.data(), carriage.is_dropped()), (data, dropped), "{stance:?}");
        assert_eq!(carriage.association(), None);
    }
}

#[test]
fn the_lanes_that_are_missing_are_said_with_what_becomes_of_their_data() {
    let (whole, part) = (report(Ok(2)), report(Ok(1)));
    for (stance, dropped, words) in [
        (Associations::Prefer, false, "1 of 2 workers: what the others send goes in the tunnel"),
        (Associations::Require, true, "is dropped"),
    ] {
        let why = |report| carriage(stance, report).why_tunnel();
        assert_eq!(why(&whole), None);
        assert!(why(&part).is_some_and(|why| why.contains(words)), "{stance:?}: {:?}", why(&part));
        assert_eq!(carriage(stance, &part).is_dropped(), dropped, "{stance:?}");
        assert_eq!(carriage(stance, &part).data(), "associations");
    }
}

#[test]
fn every_obstacle_has_a_reason_of_its_own() {
    let obstacles = [
        (Obstacle::Unwanted, "nothing was sent"),
        (Obstacle::Agreeing, "being agreed on"),
        (Obstacle::Trying, "being tried"),
        (Obstacle::Silent, "do not arrive"),
        (Obstacle::Unanswered, "does not answer"),
        (Obstacle::NoSuite, "no suite in common"),
    ];
    for (obstacle, words) in obstacles {
        let mut report = report(Err(obstacle));
        let why = |report: &PeerReport| carriage(Associations::Prefer, report).why_tunnel().expect("a reason");
        assert!(why(&report).contains(words), "{obstacle:?}: {}", why(&report));
        assert!(carriage(Associations::Off, &report).why_tunnel().is_some_and(|why| why.contains("off here")));
        report.handshake_age = None;
        assert_eq!(why(&report), "there is no session", "before anything else can be in the way");
    }
}

#[test]
fn a_peer_that_does_not_speak_them_is_told_by_where_it_is_known_from() {
    let report = PeerReport { speaks_associations: false, ..report(Err(Obstacle::Unwanted)) };
    for (origin, words) in [(Origin::Static, "peer.associations"), (Origin::Registry, "off there")] {
        let carriage = Carriage { origin, ..carriage(Associations::Prefer, &report) };
        assert!(carriage.why_tunnel().is_some_and(|why| why.contains(words)), "{origin:?}");
    }
}
