//! Two tunnels over a path that loses, repeats, reorders, forges and cuts.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod pair;

use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use pair::{End, FROM, Outcome, Setup, ipv4, preshared, shake};
use proptest::prelude::*;
use proptest::sample::Index;
use warren_crypto::message::{COOKIE_LEN, COUNTER_LIMIT, DATA_HEADER_LEN, DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN};
use warren_crypto::tunnel::{Identity, Initiator, Opened, Tunnel, TunnelConfig, TunnelError};
use warren_crypto::{PrivateKey, PublicKey};

/// mac1 and mac2, at the end of a handshake message.
const MACS_LEN: usize = 32;
/// mac2 counts only under load.
const MAC2_LEN: usize = 16;

/// Puts in the mac1 that the node with this public key expects; it takes no secret.
fn sign(message: &mut [u8], to: PublicKey) {
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(to.as_bytes()).finalize();
    let at = message.len() - MACS_LEN;
    let mut mac: Blake2sMac<blake2::digest::consts::U16> = Blake2sMac::new_from_slice(&key).unwrap();
    mac.update(&message[..at]);
    message[at..at + 16].copy_from_slice(&mac.finalize_fixed());
}

fn ipv6(payload: usize) -> Vec<u8> {
    let mut packet = vec![7u8; 40 + payload];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    packet
}

fn ready() -> [End; 2] {
    let [mut a, mut b] = Setup::default().build();
    shake(&mut a, &mut b);
    [a, b]
}

/// The tunnels still carry traffic both ways.
fn assert_talk(a: &mut End, b: &mut End) {
    let packet = ipv4(0xfeed, 100);
    let datagram = a.seal(&packet).unwrap();
    assert_eq!(b.open(&datagram), Ok(Outcome::Packet(packet.clone())));
    let datagram = b.seal(&packet).unwrap();
    assert_eq!(a.open(&datagram), Ok(Outcome::Packet(packet)));
}

#[test]
fn two_tunnels_talk_in_both_directions() {
    let [mut a, mut b] = ready();
    for size in [0, 1, 40, 1400, 8900, 60_000] {
        let packet = ipv4(size as u32, size);
        let datagram = a.seal(&packet).unwrap();
        assert_eq!(datagram.len(), packet.len() + DATA_OVERHEAD);
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
    assert_eq!(b.tunnel.status().handshake_age, None);
    assert_eq!(b.seal(&packet), Err(TunnelError::NoSession));
    let confirmation = a.answer(&response);
    assert!(a.tunnel.has_session());
    b.open(&confirmation).unwrap();
    assert!(b.tunnel.has_session());
    assert!(b.tunnel.status().handshake_age.is_some());
}

#[test]
fn data_that_overtakes_the_confirmation_confirms_as_well() {
    let [mut a, mut b] = Setup::default().build();
    let response = b.answer(&a.initiate().unwrap());
    let confirmation = a.answer(&response);
    let packet = ipv4(1, 10);
    let datagram = a.seal(&packet).unwrap();
    assert_eq!(b.open(&datagram), Ok(Outcome::Packet(packet)));
    assert!(b.tunnel.has_session());
    assert_eq!(b.open(&confirmation), Ok(Outcome::Keepalive));
}

#[test]
fn two_initiations_that_cross_make_a_session() {
    let [mut a, mut b] = Setup::default().build();
    let [from_a, from_b] = [a.initiate().unwrap(), b.initiate().unwrap()];
    let [answer_a, answer_b] = [a.answer(&from_b), b.answer(&from_a)];
    let [last_a, last_b] = [a.answer(&answer_b), b.answer(&answer_a)];
    a.open(&last_b).unwrap();
    b.open(&last_a).unwrap();
    assert_talk(&mut a, &mut b);
}

#[test]
fn an_initiation_is_not_repeated_before_its_time() {
    let [mut a, _] = Setup::default().build();
    assert!(a.initiate().is_some());
    assert_eq!(a.initiate(), None);
    assert_eq!(a.tick(), None);
}

#[test]
fn a_tunnel_with_a_session_does_not_initiate_for_traffic() {
    let [mut a, mut b] = ready();
    assert_eq!(a.initiate(), None);
    assert_eq!(b.initiate(), None);
}

#[test]
fn a_peer_that_lost_its_memory_begins_anew() {
    let setup = Setup::default();
    let [mut a, mut b] = setup.build();
    shake(&mut a, &mut b);
    let [mut reborn, _] = setup.build();
    let stale = b.seal(&ipv4(1, 10)).unwrap();
    assert_eq!(reborn.open(&stale), Err(TunnelError::NoSession));
    shake(&mut reborn, &mut b);
    assert_talk(&mut reborn, &mut b);
}

#[test]
fn equal_preshared_keys_agree() {
    let key = Some(preshared([9; 32]));
    let [mut a, mut b] = Setup { preshared: [key.clone(), key], ..Setup::default() }.build();
    shake(&mut a, &mut b);
    assert_talk(&mut a, &mut b);
}

#[test]
fn preshared_keys_that_differ_or_are_missing_on_one_side_refuse_the_response() {
    for other in [None, Some(preshared([8; 32]))] {
        let [mut a, mut b] = Setup { preshared: [Some(preshared([9; 32])), other], ..Setup::default() }.build();
        let response = b.answer(&a.initiate().unwrap());
        assert_eq!(a.open(&response), Err(TunnelError::Forged));
        assert!(!a.tunnel.has_session() && !b.tunnel.has_session());
    }
}

#[test]
fn a_stranger_is_refused() {
    let [mut a, mut b] = Setup::default().build();
    let [mut stranger, _] = Setup::default().build();
    let initiation = stranger.initiate().unwrap();
    assert_eq!(b.open(&initiation), Err(TunnelError::Forged));
    assert_eq!(b.receive(&initiation), Err(TunnelError::Forged));
    shake(&mut a, &mut b);
}

#[test]
fn an_initiation_for_another_tunnel_of_the_node_is_refused() {
    let setup = Setup::default();
    let [_, mut b] = setup.build();
    let [mut other, _] = Setup { keys: [PrivateKey::generate(), setup.keys[1].clone()], ..Setup::default() }.build();
    let initiation = other.initiate().unwrap();
    assert_eq!(b.open(&initiation), Err(TunnelError::Malformed));
}

#[test]
fn an_initiation_names_its_sender() {
    let setup = Setup::default();
    let [mut a, b] = setup.build();
    let initiation = a.initiate().unwrap();
    let mut out = [0; COOKIE_LEN];
    match b.identity.identify(FROM, &initiation, &mut out) {
        Ok(Initiator::Peer(key)) => assert_eq!(key, setup.keys[0].public_key()),
        other => panic!("{other:?}"),
    }
    let mut forged = initiation.clone();
    forged[50] ^= 1;
    sign(&mut forged, b.identity.public);
    assert_eq!(b.identity.identify(FROM, &forged, &mut out).err(), Some(TunnelError::Forged));
    assert_eq!(b.identity.identify(FROM, &initiation, &mut out[1..]).err(), Some(TunnelError::Buffer));
    assert_eq!(b.identity.identify(FROM, &initiation[1..], &mut out).err(), Some(TunnelError::Malformed));
}

#[test]
fn handshake_messages_that_come_twice_are_refused() {
    let [mut a, mut b] = Setup::default().build();
    let initiation = a.initiate().unwrap();
    let response = b.answer(&initiation);
    assert_eq!(b.open(&initiation), Err(TunnelError::Handshake));
    let confirmation = a.answer(&response);
    assert_eq!(a.open(&response), Err(TunnelError::Handshake));
    b.open(&confirmation).unwrap();
    assert_eq!(b.open(&confirmation), Err(TunnelError::Replay));
    assert_eq!(b.open(&initiation), Err(TunnelError::Handshake));
    assert_talk(&mut a, &mut b);
}

/// Every bit flipped, as it comes and with a mac1 that fits again, which anyone can make.
fn flips(genuine: &[u8], to: PublicKey) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let signed = genuine.len() - MACS_LEN;
    (0..(genuine.len() - MAC2_LEN) * 8).flat_map(move |bit| {
        let mut flipped = genuine.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut fitted = flipped.clone();
        sign(&mut fitted, to);
        // The sender's index is covered by nothing else; whoever can change it could as well drop the message.
        let fitted = (bit / 8 < signed && !(4..8).contains(&(bit / 8))).then_some(fitted);
        [Some(flipped), fitted].into_iter().flatten().map(move |datagram| (bit, datagram))
    })
}

#[test]
fn forged_handshakes_that_come_first_change_nothing() {
    let [mut a, mut b] = Setup::default().build();
    let initiation = a.initiate().unwrap();
    for (bit, forged) in flips(&initiation, b.identity.public) {
        assert!(b.open(&forged).is_err(), "bit {bit} of an initiation");
    }
    let response = b.answer(&initiation);
    for (bit, forged) in flips(&response, a.identity.public) {
        assert!(a.open(&forged).is_err(), "bit {bit} of a response");
        assert!(!a.tunnel.has_session());
    }
    let confirmation = a.answer(&response);
    b.open(&confirmation).unwrap();
    assert_talk(&mut a, &mut b);
}

#[test]
fn forged_data_changes_nothing() {
    let [mut a, mut b] = ready();
    let packet = ipv4(5, 40);
    let datagram = a.seal(&packet).unwrap();
    for bit in 0..datagram.len() * 8 {
        let mut forged = datagram.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(b.open(&forged).is_err(), "bit {bit}");
    }
    assert_eq!(b.open(&datagram), Ok(Outcome::Packet(packet)));
    assert_talk(&mut a, &mut b);
}

#[test]
fn what_is_cut_or_longer_changes_nothing() {
    let [mut a, mut b] = Setup::default().build();
    let longer = |datagram: &[u8]| [datagram, &[0]].concat();
    let initiation = a.initiate().unwrap();
    for len in 0..initiation.len() {
        assert_eq!(b.open(&initiation[..len]), Err(TunnelError::Malformed));
    }
    assert_eq!(b.open(&longer(&initiation)), Err(TunnelError::Malformed));
    let response = b.answer(&initiation);
    for len in 0..response.len() {
        assert_eq!(a.open(&response[..len]), Err(TunnelError::Malformed));
    }
    let confirmation = a.answer(&response);
    b.open(&confirmation).unwrap();
    let packet = ipv4(5, 40);
    let datagram = a.seal(&packet).unwrap();
    for len in 0..datagram.len() {
        assert!(b.open(&datagram[..len]).is_err());
    }
    assert_eq!(b.open(&longer(&datagram)), Err(TunnelError::Forged));
    assert_eq!(b.open(&datagram), Ok(Outcome::Packet(packet)));
}

#[test]
fn buffers_that_are_too_small_are_errors_and_change_nothing() {
    let [mut a, mut b] = Setup::default().build();
    let mut small = [0u8; INITIATION_LEN - 1];
    assert_eq!(a.tunnel.initiate(0, &mut small), None);
    assert_eq!(a.tunnel.tick(0, &mut small), None);
    let initiation = a.initiate().unwrap();
    for room in 0..INITIATION_LEN {
        assert_eq!(b.open_within(&initiation, room), Err(TunnelError::Buffer));
    }
    let response = b.answer(&initiation);
    for room in 0..INITIATION_LEN {
        assert_eq!(a.open_within(&response, room), Err(TunnelError::Buffer));
    }
    let confirmation = a.answer(&response);
    b.open(&confirmation).unwrap();
    let packet = ipv4(5, 400);
    for room in 0..packet.len() + DATA_OVERHEAD {
        assert_eq!(a.tunnel.seal(&packet, &mut vec![0; room]), Err(TunnelError::Buffer));
    }
    let datagram = a.seal(&packet).unwrap();
    for room in 0..datagram.len() - DATA_HEADER_LEN {
        assert_eq!(b.open_within(&datagram, room), Err(TunnelError::Buffer));
    }
    assert_eq!(b.open_within(&datagram, datagram.len()), Ok(Outcome::Packet(packet)));
}

#[test]
fn counters_at_the_limit_are_refused_unread() {
    let [mut a, mut b] = ready();
    let datagram = a.seal(&ipv4(1, 40)).unwrap();
    let with_counter = |counter: u64| [&datagram[..8], &counter.to_le_bytes()[..], &datagram[16..]].concat();
    for counter in [COUNTER_LIMIT, COUNTER_LIMIT + 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(b.open(&with_counter(counter)), Err(TunnelError::Replay));
    }
    assert_eq!(b.open(&with_counter(COUNTER_LIMIT - 1)), Err(TunnelError::Forged));
    assert_talk(&mut a, &mut b);
}

#[test]
fn a_message_for_another_number_is_refused() {
    let [mut a, mut b] = ready();
    let mut datagram = a.seal(&ipv4(1, 40)).unwrap();
    datagram[5] ^= 1;
    assert_eq!(b.open(&datagram), Err(TunnelError::Malformed));
}

#[test]
fn packets_as_old_as_the_window_pass_and_older_ones_do_not() {
    let [mut a, mut b] = ready();
    let sealed: Vec<_> = (0..1026).map(|id| a.seal(&ipv4(id, 0)).unwrap()).collect();
    assert_eq!(b.open(&sealed[1025]), Ok(Outcome::Packet(ipv4(1025, 0))));
    assert_eq!(b.open(&sealed[0]), Err(TunnelError::Replay));
    assert_eq!(b.open(&sealed[2]), Ok(Outcome::Packet(ipv4(2, 0))));
    assert_eq!(b.open(&sealed[2]), Err(TunnelError::Replay));
}

#[test]
fn an_inner_packet_whose_length_is_a_lie_is_refused_by_name() {
    let [mut a, mut b] = ready();
    let mut too_long = ipv4(1, 0);
    too_long[3] += 1;
    let mut no_header = ipv4(1, 0);
    no_header[3] = 19;
    let mut six = vec![0u8; 40];
    six[0] = 0x60;
    six[5] = 1;
    let liars = [vec![0x45], vec![0x60; 39], vec![0x50; 60], ipv4(1, 0)[..19].to_vec(), too_long, no_header, six];
    for liar in liars {
        let datagram = a.seal(&liar).unwrap();
        assert_eq!(b.open(&datagram), Err(TunnelError::Malformed), "{liar:?}");
        assert_eq!(b.open(&datagram), Err(TunnelError::Replay));
    }
    assert_talk(&mut a, &mut b);
}

#[test]
fn data_passes_without_an_allocation() {
    let [mut a, mut b] = ready();
    let packet = ipv4(1, 1400);
    let (mut sealed, mut opened) = (vec![0; 2048], vec![0; 2048]);
    let info = allocation_counter::measure(|| {
        for _ in 0..1000 {
            let len = a.tunnel.seal(&packet, &mut sealed).unwrap();
            assert!(matches!(b.tunnel.open(FROM, &sealed[..len], &mut opened), Ok(Opened::Packet(_))));
            assert!(b.tunnel.open(FROM, &sealed[..len], &mut opened).is_err());
        }
    });
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn a_packet_without_a_session_is_not_queued_on_the_heap() {
    let [mut a, _] = Setup::default().build();
    let packet = ipv4(1, 1400);
    let mut out = vec![0; 2048];
    let info =
        allocation_counter::measure(|| assert_eq!(a.tunnel.seal(&packet, &mut out), Err(TunnelError::NoSession)));
    assert_eq!(info.count_total, 0);
}

#[test]
fn secrets_are_not_printed() {
    let setup = Setup { preshared: [Some(preshared([9; 32])), None], ..Setup::default() };
    let [a, _] = setup.build();
    let config = TunnelConfig {
        peer: setup.keys[1].public_key(),
        preshared_key: setup.preshared[0].clone(),
        persistent_keepalive: None,
        number: 1,
    };
    let printed = format!("{:?} {:?} {config:?}", a.tunnel, a.identity);
    let list = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    let private = &setup.keys[0];
    for secret in [private.to_base64().to_string(), list(private.as_bytes()), list(&[9; 32]), list(&[9; 4])] {
        assert!(!printed.contains(&secret), "{printed}");
    }
    assert!(printed.contains(&a.identity.public.to_string()));
}

#[test]
fn a_tunnel_may_move_between_threads_and_an_identity_may_be_shared() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Tunnel>();
    is_send::<Identity>();
    is_sync::<Identity>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_path_does_each_packet_is_delivered_at_most_once_and_as_it_was(
        sent in proptest::collection::vec((any::<bool>(), 0usize..300), 1..120),
        arrivals in proptest::collection::vec(any::<Index>(), 0..400),
    ) {
        let mut ends = ready();
        let mut flight = Vec::new();
        for (id, (back, size)) in sent.into_iter().enumerate() {
            let packet = ipv4(id as u32, size);
            flight.push((usize::from(back), ends[usize::from(back)].seal(&packet).unwrap(), Some(packet)));
        }
        for arrival in arrivals {
            let at = arrival.index(flight.len());
            let (from, datagram, packet) = &mut flight[at];
            let expected = packet.take().map_or(Err(TunnelError::Replay), |packet| Ok(Outcome::Packet(packet)));
            prop_assert_eq!(ends[1 - *from].open(datagram), expected);
        }
        let [a, b] = &mut ends;
        assert_talk(a, b);
    }

    #[test]
    fn padding_is_cut_off(size in 0usize..1400, padding in 0usize..16, six: bool) {
        let [mut a, mut b] = ready();
        let packet = if six { ipv6(size) } else { ipv4(3, size) };
        let datagram = a.seal(&[packet.clone(), vec![0; padding]].concat()).unwrap();
        prop_assert_eq!(b.open(&datagram), Ok(Outcome::Packet(packet)));
    }

    #[test]
    fn no_inner_bytes_make_opening_panic(inner in proptest::collection::vec(any::<u8>(), 0..100)) {
        let [mut a, mut b] = ready();
        let datagram = a.seal(&inner).unwrap();
        match b.open(&datagram) {
            Ok(Outcome::Packet(packet)) => prop_assert!(inner.starts_with(&packet)),
            Ok(Outcome::Keepalive) => prop_assert!(inner.is_empty()),
            other => prop_assert_eq!(other, Err(TunnelError::Malformed)),
        }
    }

    #[test]
    fn no_datagram_makes_a_tunnel_panic_or_change(
        datagrams in proptest::collection::vec((0u8..6, proptest::collection::vec(any::<u8>(), 0..200), 0usize..200), 0..40),
        fit: bool,
    ) {
        let [mut a, mut b] = ready();
        for (kind, mut datagram, room) in datagrams {
            if fit {
                datagram.resize([INITIATION_LEN, RESPONSE_LEN, COOKIE_LEN, 80][usize::from(kind) % 4], 0);
                datagram[..4].copy_from_slice(&[kind % 4 + 1, 0, 0, 0]);
                // Sessions of this tunnel.
                datagram[5..8].copy_from_slice(&[8, 0, 0]);
                if kind % 4 < 2 {
                    sign(&mut datagram, b.identity.public);
                }
            }
            prop_assert!(b.open_within(&datagram, room).is_err());
            prop_assert!(b.identity.identify(FROM, &datagram, &mut vec![0; room]).is_err());
        }
        assert_talk(&mut a, &mut b);
    }
}
