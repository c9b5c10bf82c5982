//! Cutting and joining against a naive segmentation, and against each other.

mod tunnel;

use proptest::prelude::*;

use super::*;
use crate::checksum::Sum;
use crate::packet::{TCP, UDP, View};

/// A flow's headers.
#[derive(Clone, Debug)]
struct Flow {
    v6: bool,
    protocol: u8,
    options: usize,
    sequence: u32,
    flags: u8,
}

impl Flow {
    fn ip_len(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    fn header_len(&self) -> usize {
        self.ip_len() + if self.protocol == TCP { 20 + self.options } else { 8 }
    }

    /// One whole packet with right checksums.
    fn packet(&self, payload: &[u8], offset: usize, id: u16, flags: u8) -> Vec<u8> {
        let t = self.ip_len();
        let len = self.header_len() + payload.len();
        let mut packet = vec![0u8; self.header_len()];
        if self.v6 {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&[self.protocol, 64]);
            packet[8] = 0xfd;
            packet[23] = 1;
            packet[24] = 0xfd;
            packet[39] = 2;
        } else {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[6] = 0x40;
            packet[8..10].copy_from_slice(&[64, self.protocol]);
            packet[12..20].copy_from_slice(&[10, 1, 0, 2, 10, 2, 0, 2]);
            let sum = Sum::default().add_bytes(&packet[..20]).finish();
            packet[10..12].copy_from_slice(&sum);
        }
        packet[t..t + 4].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
        if self.protocol == TCP {
            packet[t + 4..t + 8].copy_from_slice(&self.sequence.wrapping_add(offset as u32).to_be_bytes());
            packet[t + 8..t + 12].copy_from_slice(&7u32.to_be_bytes());
            packet[t + 12] = (((20 + self.options) / 4) as u8) << 4;
            packet[t + 13] = flags;
            packet[t + 14..t + 16].copy_from_slice(&512u16.to_be_bytes());
            packet[t + 20..].fill(1);
        } else {
            packet[t + 4..t + 6].copy_from_slice(&((len - t) as u16).to_be_bytes());
        }
        packet.extend_from_slice(payload);
        let view = View::parse(&packet).unwrap();
        let sum = Sum::default()
            .add_pseudo(view.source, view.destination, self.protocol)
            .add_u16((len - t) as u16)
            .add_bytes(&packet[t..])
            .finish();
        let field = t + if self.protocol == TCP { 16 } else { 6 };
        packet[field..field + 2].copy_from_slice(&if self.protocol == UDP && sum == [0, 0] { [0xff; 2] } else { sum });
        packet
    }

    /// What the network would carry: the definition that both sides are measured against.
    fn segments(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let last = payload.len().div_ceil(size).max(1) - 1;
        payload
            .chunks(size)
            .enumerate()
            .map(|(i, chunk)| {
                let mut flags = self.flags;
                if i != last {
                    flags &= !0x09;
                }
                if i != 0 {
                    flags &= !0x80;
                }
                self.packet(chunk, i * size, 100 + i as u16, flags)
            })
            .collect()
    }

    fn vnet(&self, size: usize) -> VnetHeader {
        VnetHeader {
            needs_csum: true,
            gso: if self.protocol == TCP { Gso::Tcp } else { Gso::Udp },
            gso_size: size as u16,
            csum_start: self.ip_len() as u16,
            csum_offset: if self.protocol == TCP { 16 } else { 6 },
            tunnel: None,
        }
    }
}

fn flow() -> impl Strategy<Value = Flow> {
    (
        any::<bool>(),
        prop_oneof![Just(TCP), Just(UDP)],
        0usize..=10,
        any::<u32>(),
        prop_oneof![Just(0x10u8), Just(0x18), Just(0x99)],
    )
        .prop_map(|(v6, protocol, words, sequence, flags)| Flow {
            v6,
            protocol,
            options: words * 4,
            sequence,
            flags,
        })
}

fn cut(packet: &[u8], vnet: VnetHeader, mtu: usize) -> Result<Vec<Vec<u8>>, DropReason> {
    cut_for(packet, vnet, mtu, false)
}

/// With `marks` for a peer that completes checksums.
fn cut_for(packet: &[u8], vnet: VnetHeader, mtu: usize, marks: bool) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut buf = packet.to_vec();
    buf.extend_from_slice(&[0xee; 16]);
    let view = View::parse(packet)?;
    let mut cutter = Cutter::new(&mut buf, view, vnet, mtu, marks)?;
    let mut pieces = Vec::new();
    while let Some(piece) = cutter.next() {
        pieces.push(piece.to_vec());
    }
    Ok(pieces)
}

const ALL: Takes = Takes { checksums: true, tcp: true, udp: true, tunnels: true };

type Frame = ([u8; VNET_HDR_LEN], Vec<u8>, usize);

/// The frames that a train of these packets becomes.
fn join(packets: &[Vec<u8>]) -> Vec<Frame> {
    join_for(packets, ALL)
}

/// For a TUN that takes this; packets may be marked.
fn join_for(packets: &[Vec<u8>], takes: Takes) -> Vec<Frame> {
    join_at(packets, takes, false)
}

/// At a host that takes VXLAN apart, if so said.
fn join_at(packets: &[Vec<u8>], takes: Takes, to_vtep: bool) -> Vec<Frame> {
    let mut buf: Vec<u8> = packets.concat();
    let mut coalescer = Coalescer::new(takes);
    let mut frames = Vec::new();
    let mut write = |buf: &mut [u8], frame: &Write<'_>| {
        let bytes = frame.parts.iter().flat_map(|part| buf[part.clone()].to_vec()).collect();
        frames.push((frame.vnet, bytes, frame.segments));
    };
    let mut at = 0;
    for packet in packets {
        let bare = unmark(&mut buf[at..at + packet.len()]);
        let view = View::parse(&buf[at..at + packet.len()]).unwrap();
        coalescer.push(&mut buf, Opened { start: at, view, bare, to_vtep }, &mut write);
        at += packet.len();
    }
    coalescer.flush(&mut buf, &mut write);
    frames
}

/// A frame as it is once whoever has to has made the checksum that it leaves open.
fn completed((vnet, mut bytes, segments): Frame) -> Frame {
    let header = VnetHeader::parse(&vnet).unwrap();
    if header.needs_csum && header.gso == Gso::None {
        bytes = cut(&bytes, header, bytes.len()).unwrap().remove(0);
        return ([0; VNET_HDR_LEN], bytes, segments);
    }
    (vnet, bytes, segments)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_cut_superpacket_is_what_the_network_would_carry(
        flow in flow(), payload in proptest::collection::vec(any::<u8>(), 1..9000), size in 1usize..1400, spare in 0usize..40
    ) {
        let whole = flow.packet(&payload, 0, 100, flow.flags);
        let mtu = flow.header_len() + size + spare;
        let pieces = cut(&whole, flow.vnet(size), mtu).unwrap();
        let expected = flow.segments(&payload, size);
        prop_assert_eq!(pieces.len(), expected.len());
        for (piece, expected) in pieces.iter().zip(&expected) {
            prop_assert_eq!(&piece[..expected.len()], &expected[..]);
            prop_assert!(piece[expected.len()..].iter().all(|byte| *byte == 0));
            prop_assert!(piece.len() % 16 == 0 || piece.len() == mtu);
        }
    }

    #[test]
    fn joined_segments_cut_again_are_the_same_segments(
        flow in flow(), payload in proptest::collection::vec(any::<u8>(), 1..20000), size in 200usize..1400
    ) {
        let mut flow = flow;
        flow.flags &= !0x80;
        let segments = flow.segments(&payload, size);
        let mut again = Vec::new();
        for (vnet, bytes, _) in join(&segments) {
            let vnet = VnetHeader::parse(&vnet).unwrap();
            again.extend(cut(&bytes, vnet, 65_535).unwrap().into_iter().map(|mut piece| {
                piece.truncate(View::parse(&piece).unwrap().len);
                piece
            }));
        }
        prop_assert_eq!(again, segments);
    }

    #[test]
    fn bare_segments_arrive_as_if_their_checksums_had_been_made(
        flow in flow(), payload in proptest::collection::vec(any::<u8>(), 1..20000), size in 200usize..1400,
        checksums in any::<bool>(), large in any::<bool>()
    ) {
        let whole = flow.packet(&payload, 0, 100, flow.flags);
        let bare = cut_for(&whole, flow.vnet(size), 65_535, true).unwrap();
        let made = cut(&whole, flow.vnet(size), 65_535).unwrap();
        prop_assert!(bare.iter().all(|piece| piece[0] & 0x80 != 0));
        let large = large && checksums;
        let takes = Takes { checksums, tcp: large, udp: large, tunnels: large };
        let arrived: Vec<_> = join_for(&bare, takes).into_iter().map(completed).collect();
        prop_assert_eq!(arrived, join_for(&made, takes));
    }

    #[test]
    fn any_bytes_and_any_vnet_header_are_cut_or_refused(
        packet in proptest::collection::vec(any::<u8>(), 0..300), header in any::<[u8; VNET_HDR_LEN]>(), mtu in 0usize..2000
    ) {
        if let Ok(vnet) = VnetHeader::parse(&header) {
            let _ = cut(&packet, vnet, mtu);
            let _ = cut_for(&packet, vnet, mtu, true);
        }
    }

    #[test]
    fn damaged_segments_are_never_joined_into_something_valid(
        payload in proptest::collection::vec(any::<u8>(), 3000..4000), at in 0usize..4000, bit in 0u8..8
    ) {
        let flow = Flow { v6: false, protocol: TCP, options: 12, sequence: 1, flags: 0x10 };
        let mut segments = flow.segments(&payload, 1000);
        let at = at % segments.iter().map(Vec::len).sum::<usize>();
        let (mut index, mut offset) = (0, at);
        while offset >= segments[index].len() {
            offset -= segments[index].len();
            index += 1;
        }
        segments[index][offset] ^= 1 << bit;
        prop_assume!(View::parse(&segments[index]).is_ok_and(|view| view.len == segments[index].len()));
        let damaged = segments[index].clone();
        let frames = join(&segments);
        prop_assert!(frames.iter().any(|(vnet, bytes, n)| *n == 1 && *vnet == [0; VNET_HDR_LEN] && *bytes == damaged));
    }
}

#[test]
fn what_follows_a_pushed_segment_joins_it_and_the_whole_is_pushed() {
    let write = |sequence, flags| Flow { v6: false, protocol: TCP, options: 12, sequence, flags };
    for (first, second, whole) in [(0x18, 0x10, 0x18), (0x10, 0x18, 0x18), (0x10, 0x10, 0x10)] {
        let mut segments = write(1, first).segments(&[7; 3000], 1000);
        segments.extend(write(3001, second).segments(&[8; 2000], 1000));
        let frames = join(&segments);
        assert_eq!(frames.len(), 1);
        let (_, bytes, joined) = &frames[0];
        assert_eq!((*joined, bytes[20 + 13]), (5, whole), "{first:#x} {second:#x}");
    }
}

#[test]
fn a_pure_acknowledgement_passes_alone_and_keeps_its_place() {
    let flow = Flow { v6: false, protocol: TCP, options: 12, sequence: 1, flags: 0x10 };
    let mut packets = flow.segments(&[7; 2000], 1000);
    packets.insert(1, flow.packet(&[], 0, 5, 0x10));
    let frames = join(&packets);
    assert_eq!(frames.iter().map(|(_, bytes, _)| bytes.clone()).collect::<Vec<_>>(), packets);
}

#[test]
fn a_run_ends_behind_a_shorter_segment() {
    let flow = Flow { v6: true, protocol: UDP, options: 0, sequence: 0, flags: 0 };
    let mut packets = flow.segments(&[7; 2500], 1000);
    packets.extend(flow.segments(&[8; 1000], 1000));
    assert_eq!(join(&packets).iter().map(|(_, _, n)| *n).collect::<Vec<_>>(), [3, 1]);
}

#[test]
fn a_checksum_that_the_kernel_left_open_is_completed() {
    let flow = Flow { v6: false, protocol: TCP, options: 0, sequence: 1, flags: 0x02 };
    let right = flow.packet(&[], 0, 1, 0x02);
    let mut open = right.clone();
    let view = View::parse(&right).unwrap();
    let partial = Sum::default().add_pseudo(view.source, view.destination, TCP).add_u16(20).partial();
    open[36..38].copy_from_slice(&partial);
    let vnet = VnetHeader { gso: Gso::None, gso_size: 0, ..flow.vnet(1) };
    assert_eq!(cut(&open, vnet, 1500).unwrap()[0][..right.len()], right[..]);
    let bare = cut_for(&open, vnet, 40, true).unwrap();
    assert_eq!(bare[0][0], 0xc5);
    for checksums in [true, false] {
        let frames = join_for(&bare, Takes { checksums, tcp: false, udp: false, tunnels: false });
        assert_eq!(frames[0].0[0], u8::from(checksums), "left to the kernel, if it takes it");
        assert_eq!(frames.into_iter().map(completed).next().unwrap().1, right);
    }
}

#[test]
fn only_a_checksum_that_the_kernel_left_open_is_left_to_the_other_end() {
    let flow = Flow { v6: false, protocol: UDP, options: 0, sequence: 1, flags: 0 };
    let right = flow.packet(&[1; 100], 0, 1, 0);
    let made = VnetHeader { needs_csum: false, gso: Gso::None, gso_size: 0, ..flow.vnet(1) };
    assert_eq!(cut_for(&right, made, 128, true).unwrap(), std::slice::from_ref(&right));
    // The checksum of a packet inside of this one.
    let inner = VnetHeader { csum_start: 28 + 34, ..VnetHeader { needs_csum: true, ..made } };
    assert_eq!(cut_for(&right, inner, 128, true).unwrap()[0][0], 0x45);
}

#[test]
fn a_superpacket_with_segments_beyond_the_mtu_is_too_big() {
    let flow = Flow { v6: false, protocol: TCP, options: 0, sequence: 1, flags: 0x10 };
    let whole = flow.packet(&[1; 5000], 0, 1, 0x10);
    assert_eq!(cut(&whole, flow.vnet(1400), 1439), Err(DropReason::TooBig));
    assert!(cut(&whole, flow.vnet(1400), 1440).is_ok());
}

#[test]
fn a_checksum_field_outside_the_packet_is_refused() {
    let flow = Flow { v6: false, protocol: TCP, options: 0, sequence: 1, flags: 0x10 };
    let whole = flow.packet(&[1; 10], 0, 1, 0x10);
    for (csum_start, csum_offset) in [(0, 16), (20, 40), (u16::MAX, 16), (20, u16::MAX)] {
        let vnet = VnetHeader { needs_csum: true, gso: Gso::None, gso_size: 0, csum_start, csum_offset, tunnel: None };
        assert_eq!(cut(&whole, vnet, 1500), Err(DropReason::BadOffload));
    }
}

#[test]
fn no_more_datagrams_are_joined_than_every_kernel_takes() {
    let flow = Flow { v6: false, protocol: UDP, options: 0, sequence: 0, flags: 0 };
    let packets = flow.segments(&[7; 100 * 100], 100);
    assert_eq!(join(&packets).iter().map(|(_, _, n)| *n).collect::<Vec<_>>(), [64, 36]);
}
