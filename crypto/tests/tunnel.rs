//! Two tunnels over a path that does everything but deliver in order.

mod pair;

use pair::{End, Outcome, Setup, ipv4, shake};
use warren_crypto::tunnel::TunnelError;

fn ready() -> [End; 2] {
    let [mut a, mut b] = Setup::default().build();
    shake(&mut a, &mut b);
    [a, b]
}

#[test]
fn two_tunnels_talk_in_both_directions() {
    let [mut a, mut b] = ready();
    for size in [0, 1, 40, 1400, 8900, 60_000] {
        let packet = ipv4(size as u32, size);
        let datagram = a.seal(&packet).unwrap();
        assert_eq!(b.open(&datagram), Ok(Outcome::Packet(packet.clone())));
        let datagram = b.seal(&packet).unwrap();
        assert_eq!(a.open(&datagram), Ok(Outcome::Packet(packet)));
    }
}

#[test]
fn nothing_is_sealed_before_the_peer_has_proven_itself() {
    let [mut a, mut b] = Setup::default().build();
    let packet = ipv4(1, 10);
    assert_eq!(a.seal(&packet), Err(TunnelError::NoSession));
    let initiation = a.initiate().unwrap();
    let response = b.answer(&initiation);
    assert!(!b.tunnel.has_session());
    assert_eq!(b.seal(&packet), Err(TunnelError::NoSession));
    let confirmation = a.answer(&response);
    assert!(a.tunnel.has_session());
    b.open(&confirmation).unwrap();
    assert!(b.tunnel.has_session());
}
