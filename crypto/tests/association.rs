//! Associations against libraries of another kind, and against everything that a network may do to a datagram.

use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use proptest::prelude::*;
use warren_crypto::association::{AssociationError, AssociationKey, Receiver, Sender, Suite, index_of};

const KEY: [u8; 32] = [7; 32];
const INDEX: u32 = 0x8123_4501;

fn ends(suite: Suite) -> (Sender, Receiver) {
    let key = AssociationKey::new(KEY);
    (Sender::new(suite, &key, INDEX), Receiver::new(suite, &key, INDEX))
}

fn seal(sender: &mut Sender, plaintext: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plaintext.len() + 32];
    assert_eq!(sender.seal(plaintext, &mut out), Ok(out.len()));
    out
}

fn open(receiver: &mut Receiver, datagram: &[u8]) -> Result<Vec<u8>, AssociationError> {
    receiver.open(&mut datagram.to_vec()).map(|packet| packet.to_vec())
}

/// What another library makes of header, counter and plaintext.
fn oracle(suite: Suite, header: &[u8], counter: u64, plaintext: &[u8]) -> Vec<u8> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let payload = Payload { msg: plaintext, aad: header };
    match suite {
        Suite::Aes256Gcm => Aes256Gcm::new(&KEY.into()).encrypt(&nonce.into(), payload),
        Suite::ChaCha20Poly1305 => ChaCha20Poly1305::new(&KEY.into()).encrypt(&nonce.into(), payload),
    }
    .unwrap_or_default()
}

fn suites() -> impl Strategy<Value = Suite> {
    prop_oneof![Just(Suite::Aes256Gcm), Just(Suite::ChaCha20Poly1305)]
}

proptest! {
    #[test]
    fn another_library_seals_the_same_bytes(suite in suites(), packets in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..2000), 1..4)) {
        let (mut sender, _) = ends(suite);
        for (counter, plaintext) in packets.iter().enumerate() {
            let datagram = seal(&mut sender, plaintext);
            let expected = oracle(suite, &datagram[..16], counter as u64, plaintext);
            prop_assert_eq!(&datagram[..4], &[4, 0, 0, 0]);
            prop_assert_eq!(index_of(&datagram), Some(INDEX));
            prop_assert_eq!(&datagram[8..16], &(counter as u64).to_le_bytes());
            prop_assert_eq!(&datagram[16..], &expected);
        }
    }

    #[test]
    fn every_packet_is_taken_once_in_whatever_order_it_comes(
        suite in suites(), order in proptest::collection::vec(0usize..40, 1..200)) {
        let (mut sender, mut receiver) = ends(suite);
        let datagrams: Vec<_> = (0u8..40).map(|n| seal(&mut sender, &[n; 20])).collect();
        let mut taken = [false; 40];
        for at in order {
            let expected = if taken[at] { Err(AssociationError::Replay) } else { Ok(vec![at as u8; 20]) };
            prop_assert_eq!(open(&mut receiver, &datagrams[at]), expected);
            taken[at] = true;
        }
    }

    #[test]
    fn any_changed_bit_is_refused_and_changes_nothing(suite in suites(), at in 0usize..64, bit in 0u8..8) {
        let (mut sender, mut receiver) = ends(suite);
        let datagram = seal(&mut sender, &[9; 32]);
        let mut changed = datagram.clone();
        changed[at] ^= 1 << bit;
        prop_assert!(open(&mut receiver, &changed).is_err());
        prop_assert_eq!(open(&mut receiver, &datagram), Ok(vec![9; 32]));
    }

    #[test]
    fn any_bytes_are_refused(suite in suites(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (_, mut receiver) = ends(suite);
        prop_assert!(open(&mut receiver, &bytes).is_err());
        let _ = index_of(&bytes);
    }
}

#[test]
fn a_forged_packet_from_far_ahead_does_not_move_the_window() {
    let (mut sender, mut receiver) = ends(Suite::Aes256Gcm);
    let datagram = seal(&mut sender, b"first");
    let mut forged = seal(&mut sender, b"second");
    forged[8..16].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    assert_eq!(open(&mut receiver, &forged), Err(AssociationError::Forged));
    assert_eq!(open(&mut receiver, &datagram), Ok(b"first".to_vec()));
}

#[test]
fn a_buffer_that_is_too_small_is_an_error_and_uses_no_counter() {
    let (mut sender, mut receiver) = ends(Suite::ChaCha20Poly1305);
    assert_eq!(sender.seal(&[0; 10], &mut [0; 41]), Err(AssociationError::Buffer));
    assert_eq!(sender.sealed(), 0);
    let datagram = seal(&mut sender, &[1; 10]);
    assert_eq!(open(&mut receiver, &datagram), Ok(vec![1; 10]));
}

#[test]
fn nothing_is_allocated_where_packets_pass() {
    for suite in Suite::ALL {
        let (mut sender, mut receiver) = ends(suite);
        let mut datagram = [0; 1452];
        let allocated = allocation_counter::measure(|| {
            for _ in 0..100 {
                let len = sender.seal(&[5; 1420], &mut datagram).unwrap();
                assert_eq!(receiver.open(&mut datagram[..len]).map(|packet| packet.len()), Ok(1420));
            }
        });
        assert_eq!(allocated.count_total, 0, "{suite:?}");
    }
}

#[test]
fn a_key_is_never_printed() {
    assert_eq!(format!("{:?}", AssociationKey::new([0x41; 32])), "AssociationKey(..)");
}
