//! What people read of the peers, to the letter.

use super::*;
use crate::status::{ASSOCIATIONS, DROPPED, TUNNEL};

fn peer(name: &str, data: &str, association: Option<AssociationStatus>, why: Option<&str>) -> PeerStatus {
    PeerStatus {
        name: name.into(),
        state: "up".into(),
        endpoint: Some("10.77.0.2:51840".into()),
        handshake_age: Some(5),
        data: data.into(),
        association,
        why_tunnel: why.map(str::to_owned),
        cidrs: vec!["10.42.2.0/24".into()],
        ..PeerStatus::default()
    }
}

fn association(lanes: usize, post_quantum: bool) -> AssociationStatus {
    AssociationStatus { suite: "aes-256-gcm".into(), lanes, age: 7, post_quantum, ..AssociationStatus::default() }
}

#[test]
fn every_peer_has_a_line_of_how_data_travels_and_why_not_better() {
    let status = Status {
        workers: 2,
        peers: vec![
            peer("node2", ASSOCIATIONS, Some(association(2, true)), None),
            peer("node3", ASSOCIATIONS, Some(association(1, false)), Some("one lane is missing")),
            peer("node4", TUNNEL, None, Some("nothing was sent lately")),
            peer("node5", DROPPED, None, Some("no suite in common")),
        ],
        ..Status::default()
    };
    let screen = screen(&status);
    let shown = "\
PEER   DATA         LANES   AGE  POST-QUANTUM  WHY NOT
node2  aes-256-gcm  2 of 2  7 s  yes
node3  aes-256-gcm  1 of 2  7 s  no            one lane is missing
node4  tunnel       -       -    no            nothing was sent lately
node5  dropped      -       -    no            no suite in common
";
    assert!(screen.contains(shown), "{screen}");
    assert!(
        screen.contains("node2  up     10.77.0.2:51840  5 s ago    0 B       0 B   0      10.42.2.0/24\n"),
        "{screen}"
    );
    assert!(!super::screen(&Status::default()).contains("DATA"), "no peers, no tables");
}

#[test]
fn a_verified_peer_is_shown_with_how_data_travels_and_what_is_dropped_fails() {
    let found = Verify {
        peer: "node2".into(),
        encrypted: true,
        data: ASSOCIATIONS.into(),
        association: Some(association(2, true)),
        workers: 2,
        detail: "said for people".into(),
        ..Verify::default()
    };
    let text = verified(&found);
    for line in [
        "data          associations: aes-256-gcm, 2 of 2 lanes, 7 s old\n",
        "post-quantum  yes\nencrypted     yes\nsaid",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(verify(&found, Output::Json), Ok(OK));
    assert_eq!(verify(&Verify { dropped: true, ..found.clone() }, Output::Json), Ok(DEGRADED));
    let why_tunnel = Some("no suite in common".to_owned());
    let dropped =
        Verify { encrypted: false, dropped: true, data: DROPPED.into(), association: None, why_tunnel, ..found };
    let text = verified(&dropped);
    let lines = "data          dropped\npost-quantum  no\nwhy not       no suite in common\nencrypted     NO\n";
    assert!(text.contains(lines), "{text}");
    assert_eq!(verify(&dropped, Output::Json), Ok(FAILED));
}

#[test]
fn what_is_wrong_stands_apart_and_one_is_not_many() {
    let status = Status {
        workers: 1,
        strays: 1,
        repairs: 1,
        problems: vec!["it leaks".into(), "it rains".into()],
        ..Status::default()
    };
    let shown = screen(&status);
    assert!(shown.ends_with("no peers\n\nproblem: it leaks\nproblem: it rains\n"), "{shown}");
    assert!(shown.contains("1 worker, 1 stray, ") && shown.contains(", 1 repair\n"), "{shown}");
    assert!(screen(&Status::default()).ends_with("no peers\n"), "nothing stands below where nothing is wrong");
}
