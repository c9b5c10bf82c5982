//! What the mailbox takes, and why it does not.

use super::*;

#[test]
fn a_frame_is_lost_for_the_reason_that_it_was_lost_for() {
    let (letters, read) = sync_channel(1);
    let mailbox = Mailbox { letters, handshakes: Arc::default() };
    let peer = Some(PeerId { slot: 0, serial: 0 });
    assert_eq!(mailbox.control(None, &[0; 60]), Err(DropReason::ReservedAddress));
    assert_eq!(mailbox.control(peer, &[0; PACKET_MAX + 1]), Err(DropReason::UnknownFrame));
    assert_eq!(mailbox.control(peer, &[0; PACKET_MAX]), Ok(()));
    assert_eq!(mailbox.control(peer, &[0; 60]), Err(DropReason::QueueFull));
    drop(read.recv());
    assert_eq!(mailbox.control(peer, &[0; 60]), Ok(()));
}
