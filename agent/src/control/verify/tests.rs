//! What is said of what was found.

use super::*;
use crate::status::{ASSOCIATIONS, AssociationStatus, TUNNEL};

/// All is well, in the tunnel.
fn found() -> Verify {
    Verify {
        via_tunnel: true,
        session: true,
        rtt_ms: Some(1.0),
        encrypted: true,
        data: TUNNEL.into(),
        why_tunnel: Some("for this reason".into()),
        workers: 2,
        ..Verify::default()
    }
}

fn associated(why: Option<&str>) -> Verify {
    let association = AssociationStatus { suite: "aes-256-gcm".into(), lanes: 1, ..AssociationStatus::default() };
    Verify { data: ASSOCIATIONS.into(), association: Some(association), why_tunnel: why.map(str::to_owned), ..found() }
}

#[test]
fn data_that_is_dropped_is_never_called_encrypted() {
    let dropped = Verify { data: DROPPED.into(), dropped: true, encrypted: false, ..found() };
    for rtt_ms in [Some(1.0), None] {
        let said = detail(&Verify { rtt_ms, ..dropped.clone() });
        assert!(said.contains("dropped here (no_association)") && said.contains("for this reason"), "{said}");
        assert!(!said.contains("ChaCha20"), "{said}");
    }
}

#[test]
fn each_way_is_said_with_its_cipher_and_what_is_missing_with_its_reason() {
    let tunnel = detail(&found());
    assert!(tunnel.contains("ChaCha20-Poly1305; no associations: for this reason"), "{tunnel}");
    let whole = detail(&associated(None));
    assert!(whole.contains("aes-256-gcm") && whole.ends_with("ML-KEM-768)"), "{whole}");
    let part = detail(&associated(Some("one lane is missing")));
    assert!(part.ends_with("; one lane is missing"), "{part}");
}

#[test]
fn what_never_reaches_the_peer_is_said_before_what_would_carry_it() {
    let astray = detail(&Verify { via_tunnel: false, ..associated(None) });
    assert!(astray.contains("not send this traffic into the tunnel"), "{astray}");
    let silent = detail(&Verify { session: false, dropped: true, data: DROPPED.into(), ..found() });
    assert!(silent.contains("does not answer"), "{silent}");
}
