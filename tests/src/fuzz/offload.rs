//! The segment cutter and the coalescer against a naive implementation that shares no line with them.
//!
//! Cutting gives, byte for byte, what the naive one gives, or is refused where it refuses. What was coalesced, cut again
//! naively, is the packets that came, in their order: but for what a receiver does not read.

mod flow;
mod naive;

use warren_overlay::offload::{Coalescer, Cutter, Takes, VNET_HDR_LEN, VnetHeader, Write};
use warren_overlay::packet::View;

use self::flow::Flow;
use super::{Feed, Seen};

/// The body.
pub(super) fn run(input: &[u8], seen: &mut Seen) {
    let mut feed = Feed::new(input);
    match feed.byte() % 4 {
        0 => cut_anything(&mut feed, seen),
        1 => cut_a_superpacket(&mut feed, seen),
        2 => join_anything(&mut feed, seen),
        _ => join_a_train(&mut feed, seen),
    }
}

fn cut_anything(feed: &mut Feed<'_>, seen: &mut Seen) {
    let mut vnet = [0; VNET_HDR_LEN];
    vnet.iter_mut().for_each(|byte| *byte = feed.byte());
    let (mtu, packet) = (feed.below(2000), feed.bytes().to_vec());
    compare_cuts(&packet, &vnet, mtu, seen);
}

/// A superpacket such as a kernel hands over, perhaps with a few bytes changed.
fn cut_a_superpacket(feed: &mut Feed<'_>, seen: &mut Seen) {
    let flow = Flow::read(feed);
    let (size, len) = (feed.below(3000), feed.below(60_000));
    let mut packet = flow.packet(&flow::payload(len), 0, 100, flow.flags);
    let mut vnet = flow.vnet(size as u16);
    let mtu = (flow.header_len() + size + feed.below(40)).saturating_sub(feed.below(8));
    while !feed.is_empty() {
        let (at, by) = (feed.below(VNET_HDR_LEN + 100), feed.byte());
        let byte = if at < VNET_HDR_LEN { vnet.get_mut(at) } else { packet.get_mut(at - VNET_HDR_LEN) };
        byte.into_iter().for_each(|byte| *byte ^= by);
    }
    compare_cuts(&packet, &vnet, mtu, seen);
}

fn compare_cuts(packet: &[u8], vnet: &[u8; VNET_HDR_LEN], mtu: usize, seen: &mut Seen) {
    let Ok(view) = View::parse(packet) else { return seen.note("no packet") };
    let expected = naive::cut(packet, vnet, mtu);
    let outcome = VnetHeader::parse(vnet).and_then(|vnet| cut(packet, view, vnet, mtu));
    match (outcome, expected) {
        (Ok(pieces), Some(expected)) => {
            seen.note(format!("cut, {:?} of {} segments", vnet[1] & 0x7f, pieces.len().min(3)));
            assert_eq!(pieces, expected, "the packets that this frame stands for");
        }
        (Err(reason), None) => seen.note(format!("not cut: {reason:?}")),
        (outcome, expected) => {
            let (cutter, naive) = (outcome.map(|pieces| pieces.len()), expected.map(|pieces| pieces.len()));
            panic!("the cutter says {cutter:?}, the naive one {naive:?}");
        }
    }
}

/// The packets that the cutter makes, checked for their padding and then without it.
fn cut(
    packet: &[u8],
    view: View,
    vnet: VnetHeader,
    mtu: usize,
) -> Result<Vec<Vec<u8>>, warren_overlay::drops::DropReason> {
    let mut buf = packet.to_vec();
    buf.extend_from_slice(&[0xee; 16]);
    let mut cutter = Cutter::new(&mut buf, view, vnet, mtu, false)?;
    let (mut pieces, announced) = (Vec::new(), cutter.segments());
    while let Some(piece) = cutter.next() {
        let len = naive::len(piece);
        assert!(piece[len..].iter().all(|byte| *byte == 0) && piece.len() - len < 16, "padding is zeros");
        assert!(piece.len().is_multiple_of(16) || piece.len() == mtu.max(len), "padded to 16 bytes or the MTU");
        pieces.push(piece[..len].to_vec());
    }
    assert_eq!(pieces.len(), announced);
    assert!(buf[packet.len()..].iter().all(|byte| *byte == 0xee), "what lies behind the packet is left as it was");
    Ok(pieces)
}

fn join_anything(feed: &mut Feed<'_>, seen: &mut Seen) {
    let mut packets = Vec::new();
    while !feed.is_empty() {
        packets.push(feed.bytes().to_vec());
    }
    join_and_compare(packets, seen);
}

/// Segments of one to three flows, some of them changed, doubled, left out or cut short.
fn join_a_train(feed: &mut Feed<'_>, seen: &mut Seen) {
    let (mut packets, mut plain) = (Vec::new(), true);
    for _ in 0..1 + feed.below(3) {
        let flow = Flow::read(feed);
        plain &= flow.is_plain();
        let (len, size) = (feed.below(20_000), 1 + feed.below(1400));
        packets.extend(flow.segments(&flow::payload(len), size.max(len / 150)));
    }
    let clean = plain && feed.is_empty();
    while !feed.is_empty() && !packets.is_empty() {
        let at = feed.below(packets.len());
        match feed.byte() % 4 {
            0 => drop(packets.remove(at)),
            1 => packets.insert(at, packets[at].clone()),
            2 => packets.swap(0, at),
            _ => {
                let (byte, by) = (feed.below(packets[at].len().min(120)), feed.byte());
                packets[at][byte] ^= by;
            }
        }
    }
    let (came, frames) = (packets.len(), join_and_compare(packets, seen));
    if clean && came > 12 {
        assert!(frames < came, "{came} segments as a sender makes them, and none joined");
    }
}

/// Joins a train; how many frames it became.
fn join_and_compare(packets: Vec<Vec<u8>>, seen: &mut Seen) -> usize {
    let packets: Vec<_> = packets
        .into_iter()
        .filter_map(|packet| View::parse(&packet).ok().map(|view| packet[..view.len].to_vec()))
        .collect();
    let frames = join(&packets);
    let mut came = packets.iter();
    for (vnet, frame, segments) in &frames {
        if *segments == 1 {
            assert_eq!((*vnet, Some(frame)), ([0; VNET_HDR_LEN], came.next()), "what passes alone is untouched");
            seen.note("alone");
            continue;
        }
        let again = naive::cut(frame, vnet, 65_535).expect("a frame that can be cut again");
        assert_eq!(again.len(), *segments);
        seen.note(format!("joined, kind {} of {} segments", vnet[1], segments.min(&3)));
        for (at, piece) in again.iter().enumerate() {
            let packet = came.next().expect("as many packets as came");
            assert!(naive::is_intact(packet), "a damaged packet was joined: its checksum is lost");
            let last = at + 1 == *segments;
            assert_eq!(naive::essence(piece, last), naive::essence(packet, last), "the packet that came");
        }
    }
    assert_eq!(came.next(), None, "every packet goes on");
    frames.len()
}

/// The frames that the coalescer makes: vnet header, bytes, segments.
fn join(packets: &[Vec<u8>]) -> Vec<([u8; VNET_HDR_LEN], Vec<u8>, usize)> {
    let mut buf: Vec<u8> = packets.concat();
    let mut coalescer = Coalescer::new(Takes { checksums: true, tcp: true, udp: true });
    let mut frames = Vec::new();
    let mut write = |buf: &mut [u8], frame: &Write<'_>| {
        let bytes = frame.parts.iter().flat_map(|part| buf[part.clone()].to_vec()).collect();
        frames.push((frame.vnet, bytes, frame.segments));
    };
    let mut at = 0;
    for packet in packets {
        let Ok(view) = View::parse(packet) else { continue };
        coalescer.push(&mut buf, (at, view, false), &mut write);
        at += packet.len();
    }
    coalescer.flush(&mut buf, &mut write);
    frames
}
