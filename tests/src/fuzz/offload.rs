//! The segment cutter and the coalescer against a naive implementation that shares no line with them.
//!
//! Cutting gives, byte for byte, what the naive one gives, or is refused where it refuses. What was coalesced, cut again
//! naively, is the packets that came, in their order: but for what a receiver does not read. A bare packet arrives with
//! the checksum that it went without, whoever had to make it.

mod flow;
mod naive;

use warren_overlay::drops::DropReason;
use warren_overlay::offload::{Coalescer, Cutter, Opened, Takes, VNET_HDR_LEN, VnetHeader, Write, may_be_bare, unmark};
use warren_overlay::packet::View;

use self::flow::Flow;
use super::{Feed, Seen};

/// The part of the vnet header that is not about tunnels.
const PLAIN: usize = 10;

const EVERYTHING: Takes = Takes { checksums: true, tcp: true, udp: true, tunnels: true };

/// A packet on its way, and whether it goes without its checksum.
#[derive(Clone)]
struct Packet {
    bytes: Vec<u8>,
    bare: bool,
}

/// Between whom it goes, from the bits of the first byte that do not say what is done.
#[derive(Clone, Copy)]
struct Ends {
    /// The other end makes the checksums that the kernel left out.
    marks: bool,
    /// What its device takes.
    takes: Takes,
}

impl Ends {
    fn read(byte: u8) -> Self {
        let takes = match byte >> 3 & 3 {
            0 => EVERYTHING,
            1 => Takes { udp: false, ..EVERYTHING },
            2 => Takes { tcp: false, udp: false, tunnels: false, ..EVERYTHING },
            _ => Takes { checksums: false, tcp: false, udp: false, tunnels: false },
        };
        Self { marks: byte & 4 != 0, takes }
    }
}

/// The body.
pub(super) fn run(input: &[u8], seen: &mut Seen) {
    let mut feed = Feed::new(input);
    let first = feed.byte();
    let ends = Ends::read(first);
    match first % 4 {
        0 => cut_anything(&mut feed, ends, seen),
        1 => cut_a_superpacket(&mut feed, ends, seen),
        2 => join_anything(&mut feed, ends, seen),
        _ => join_a_train(&mut feed, ends, seen),
    }
}

fn cut_anything(feed: &mut Feed<'_>, ends: Ends, seen: &mut Seen) {
    let mut vnet = [0; VNET_HDR_LEN];
    vnet[..PLAIN].iter_mut().for_each(|byte| *byte = feed.byte());
    let (mtu, packet) = (feed.below(2000), feed.bytes().to_vec());
    compare_cuts(&packet, (&vnet, mtu), ends, seen);
}

/// A superpacket such as a kernel hands over, perhaps with a few bytes changed.
fn cut_a_superpacket(feed: &mut Feed<'_>, ends: Ends, seen: &mut Seen) {
    let flow = Flow::read(feed);
    let (size, len) = (feed.below(3000), feed.below(60_000));
    let mut packet = flow.packet(&flow::payload(len), 0, 100, flow.flags);
    let mut vnet = flow.vnet(size as u16);
    let mtu = (flow.header_len() + size + feed.below(40)).saturating_sub(feed.below(8));
    while !feed.is_empty() {
        let (at, by) = (feed.below(PLAIN + 100), feed.byte());
        let byte = if at < PLAIN { vnet.get_mut(at) } else { packet.get_mut(at - PLAIN) };
        byte.into_iter().for_each(|byte| *byte ^= by);
    }
    compare_cuts(&packet, (&vnet, mtu), ends, seen);
}

fn compare_cuts(packet: &[u8], (vnet, mtu): (&[u8; VNET_HDR_LEN], usize), ends: Ends, seen: &mut Seen) {
    let Ok(view) = View::parse(packet) else { return seen.note("no packet") };
    let expected = naive::cut(packet, vnet, mtu);
    let outcome = VnetHeader::parse(vnet).and_then(|vnet| cut(packet, view, vnet, (mtu, ends.marks)));
    match (outcome, expected) {
        (Ok(pieces), Some(expected)) => {
            let bare = ends.marks && naive::is_left_open(packet, vnet);
            let how = if bare { "cut bare" } else { "cut" };
            seen.note(format!("{how}, {:?} of {} segments", vnet[1] & 0x7f, pieces.len().min(3)));
            assert!(pieces.iter().all(|piece| piece.bare == bare), "who makes the checksums");
            let stripped = |bytes: &Vec<u8>| if bare { naive::without_checksum(bytes) } else { bytes.clone() };
            let (is, should): (Vec<_>, Vec<_>) =
                (pieces.iter().map(|piece| stripped(&piece.bytes)).collect(), expected.iter().map(stripped).collect());
            assert_eq!(is, should, "the packets that this frame stands for");
            if bare {
                join_and_compare(pieces, ends.takes, seen);
            }
        }
        (Err(reason), None) => seen.note(format!("not cut: {reason:?}")),
        (outcome, expected) => {
            let (cutter, naive) = (outcome.map(|pieces| pieces.len()), expected.map(|pieces| pieces.len()));
            panic!("the cutter says {cutter:?}, the naive one {naive:?}");
        }
    }
}

/// The packets that the cutter makes, without their mark, checked for their padding and then without it.
fn cut(packet: &[u8], view: View, vnet: VnetHeader, (mtu, marks): (usize, bool)) -> Result<Vec<Packet>, DropReason> {
    let mut buf = packet.to_vec();
    buf.extend_from_slice(&[0xee; 16]);
    let mut cutter = Cutter::new(&mut buf, view, vnet, mtu, marks)?;
    let (mut pieces, announced) = (Vec::new(), cutter.segments());
    while let Some(piece) = cutter.next() {
        let mut bytes = piece.to_vec();
        let bare = bytes[0] & 0x80 != 0;
        bytes[0] &= 0x7f;
        let len = naive::len(&bytes);
        assert!(bytes[len..].iter().all(|byte| *byte == 0) && bytes.len() - len < 16, "padding is zeros");
        assert!(bytes.len().is_multiple_of(16) || bytes.len() == mtu.max(len), "padded to 16 bytes or the MTU");
        bytes.truncate(len);
        pieces.push(Packet { bytes, bare });
    }
    assert_eq!(pieces.len(), announced);
    assert!(buf[packet.len()..].iter().all(|byte| *byte == 0xee), "what lies behind the packet is left as it was");
    Ok(pieces)
}

fn join_anything(feed: &mut Feed<'_>, ends: Ends, seen: &mut Seen) {
    let mut packets = Vec::new();
    while !feed.is_empty() {
        packets.push(Packet { bytes: feed.bytes().to_vec(), bare: ends.marks });
    }
    join_and_compare(packets, ends.takes, seen);
}

/// Segments of one to three flows, some of them changed, doubled, left out, cut short, or bare where others are not.
fn join_a_train(feed: &mut Feed<'_>, ends: Ends, seen: &mut Seen) {
    let (mut packets, mut plain) = (Vec::new(), true);
    for _ in 0..1 + feed.below(3) {
        let flow = Flow::read(feed);
        plain &= flow.is_plain();
        let (len, size) = (feed.below(20_000), 1 + feed.below(1400));
        let segments = flow.segments(&flow::payload(len), size.max(len / 150)).into_iter();
        packets.extend(segments.map(|bytes| Packet { bytes, bare: false }));
    }
    if ends.marks {
        packets.iter_mut().for_each(undress);
    }
    let clean = plain && feed.is_empty() && ends.takes == EVERYTHING;
    while !feed.is_empty() && !packets.is_empty() {
        let at = feed.below(packets.len());
        match feed.byte() % 5 {
            0 => drop(packets.remove(at)),
            1 => packets.insert(at, packets[at].clone()),
            2 => packets.swap(0, at),
            3 => {
                let (byte, by) = (feed.below(packets[at].bytes.len().min(120)), feed.byte());
                packets[at].bytes[byte] ^= by;
            }
            _ => undress(&mut packets[at]),
        }
    }
    let (came, frames) = (packets.len(), join_and_compare(packets, ends.takes, seen));
    if clean && came > 12 {
        assert!(frames < came, "{came} segments as a sender makes them, and none joined");
    }
}

/// Makes a bare packet: its checksum field means nothing.
fn undress(packet: &mut Packet) {
    packet.bare = true;
    naive::spoil_checksum(&mut packet.bytes);
}

/// The packets that reach the coalescer: what is none, or may not be bare and is, was dropped before.
fn that_pass(packets: Vec<Packet>, seen: &mut Seen) -> Vec<Packet> {
    let mut passed = Vec::new();
    for Packet { mut bytes, bare } in packets {
        let Ok(view) = View::parse(&bytes) else { continue };
        bytes.truncate(view.len);
        assert_eq!(may_be_bare(&view), naive::may_be_bare(&bytes), "whether this packet may be bare: {bytes:02x?}");
        if !bare || may_be_bare(&view) {
            passed.push(Packet { bytes, bare });
        } else {
            seen.note("may not be bare");
        }
    }
    passed
}

/// Joins a train; how many frames it became.
fn join_and_compare(packets: Vec<Packet>, takes: Takes, seen: &mut Seen) -> usize {
    let packets = that_pass(packets, seen);
    let frames = join(&packets, takes);
    let mut came = packets.iter();
    for (vnet, frame, segments) in &frames {
        if *segments == 1 {
            alone(came.next().expect("as many packets as came"), (vnet, frame), takes, seen);
            continue;
        }
        let fits = if vnet[1] == 5 { takes.udp } else { takes.tcp };
        assert!(fits, "a frame of kind {} for a device that takes none", vnet[1]);
        let again = naive::cut(frame, vnet, 65_535).expect("a frame that can be cut again");
        assert_eq!(again.len(), *segments);
        let (mut bare, mut dressed) = (false, false);
        for (at, piece) in again.iter().enumerate() {
            let packet = came.next().expect("as many packets as came");
            assert!(
                packet.bare || naive::is_intact(&packet.bytes),
                "a damaged packet was joined: its checksum is lost"
            );
            (bare, dressed) = (bare | packet.bare, dressed | !packet.bare);
            let last = at + 1 == *segments;
            assert_eq!(naive::essence(piece, last), naive::essence(&packet.bytes, last), "the packet that came");
        }
        let how = if bare && dressed {
            "joined, mixed"
        } else if bare {
            "joined, bare"
        } else {
            "joined"
        };
        seen.note(format!("{how}, kind {} of {} segments", vnet[1], segments.min(&3)));
    }
    assert!(came.next().is_none(), "every packet goes on");
    frames.len()
}

/// What passes alone is untouched, but for the checksum of a bare packet, which is left to the kernel if it takes that.
fn alone(packet: &Packet, (vnet, frame): (&[u8; VNET_HDR_LEN], &[u8]), takes: Takes, seen: &mut Seen) {
    if !packet.bare {
        assert_eq!((*vnet, frame), ([0; VNET_HDR_LEN], &packet.bytes[..]), "what passes alone is untouched");
        return seen.note("alone");
    }
    let (whole, asking) = naive::dressed(&packet.bytes);
    if takes.checksums {
        assert_eq!(*vnet, asking, "the kernel is asked for the checksum");
        assert_eq!(naive::cut(frame, vnet, 65_535), Some(vec![whole]), "the packet, once the kernel made it");
        seen.note("alone, bare, left to the kernel");
    } else {
        assert_eq!(
            (*vnet, frame),
            ([0; VNET_HDR_LEN], &whole[..]),
            "a whole packet for a device without a vnet header"
        );
        seen.note("alone, bare, made here");
    }
}

/// The frames that the coalescer makes: vnet header, bytes, segments.
fn join(packets: &[Packet], takes: Takes) -> Vec<([u8; VNET_HDR_LEN], Vec<u8>, usize)> {
    let mut buf: Vec<u8> = packets.iter().flat_map(marked).collect();
    let mut coalescer = Coalescer::new(takes);
    let mut frames = Vec::new();
    let mut write = |buf: &mut [u8], frame: &Write<'_>| {
        let bytes = frame.parts.iter().flat_map(|part| buf[part.clone()].to_vec()).collect();
        frames.push((frame.vnet, bytes, frame.segments));
    };
    let mut at = 0;
    for Packet { bytes, bare } in packets {
        let end = at + bytes.len();
        assert_eq!(unmark(&mut buf[at..end]), *bare);
        let Ok(view) = View::parse(&buf[at..end]) else { panic!("it was one without its mark") };
        coalescer.push(&mut buf, Opened { start: at, view, bare: *bare, to_vtep: false }, &mut write);
        at = end;
    }
    coalescer.flush(&mut buf, &mut write);
    frames
}

/// A packet as it lies in an association.
fn marked(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.bytes.clone();
    bytes[0] |= if packet.bare { 0x80 } else { 0 };
    bytes
}
