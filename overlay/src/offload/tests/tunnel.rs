//! Superpackets of flows inside of UDP tunnels.

use proptest::prelude::*;

use super::*;

/// A datagram of a VXLAN tunnel with this packet in it.
fn vxlan(inner: &[u8], v6: bool, id: u16, checksum: bool) -> Vec<u8> {
    let mut payload = vec![0x08, 0, 0, 0, 0, 0, 42, 0];
    payload.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    payload.extend_from_slice(if inner[0] >> 4 == 6 { &[0x86, 0xdd] } else { &[0x08, 0] });
    payload.extend_from_slice(inner);
    let tunnel = Flow { v6, protocol: UDP, options: 0, sequence: 0, flags: 0 };
    let mut packet = tunnel.packet(&payload, 0, id, 0);
    if !checksum {
        packet[tunnel.ip_len() + 6..tunnel.header_len()].fill(0);
    }
    packet
}

/// The vnet header of a superpacket of `flow` inside of a VXLAN tunnel.
fn vxlan_vnet(flow: &Flow, size: usize, v6: bool, checksum: bool) -> VnetHeader {
    let outer_transport = if v6 { 40 } else { 20 };
    let inner_network = outer_transport + 8 + 8 + 14;
    let tunnel = Some(Tunnel { outer_transport, inner_network, checksum });
    let plain = flow.vnet(size);
    VnetHeader { csum_start: inner_network + plain.csum_start, tunnel, ..plain }
}

fn unpadded(pieces: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let trim = |mut piece: Vec<u8>| {
        piece.truncate(View::parse(&piece).unwrap().len);
        piece
    };
    pieces.into_iter().map(trim).collect()
}

/// The packets that a frame stands for which is written to the kernel: it is told of an Ethernet header that is not there.
fn cut_as_written((mut vnet, bytes, _): Frame) -> Vec<Vec<u8>> {
    if vnet[1] & 0x60 != 0 {
        vnet[20] -= 14;
    }
    unpadded(cut(&bytes, VnetHeader::parse(&vnet).unwrap(), 65_535).unwrap())
}

/// With right checksums, the outer one where there is one; nothing when it is no longer TCP in a datagram of the tunnel.
fn repaired(mut packet: Vec<u8>, v6: bool, checksum: bool) -> Option<Vec<u8>> {
    let start = if v6 { 40 } else { 20 } + 30;
    let whole = |view: View, len: usize| (view.len == len && !view.fragment).then_some(view);
    let inner = whole(View::parse(&packet[start..]).ok()?, packet.len() - start).filter(|view| view.protocol == TCP)?;
    put_checksums(&mut packet[start..], &inner, 16);
    let outer = whole(View::parse(&packet).ok()?, packet.len()).filter(|view| view.protocol == UDP)?;
    put_checksums(&mut packet, &outer, 6);
    if !checksum {
        packet[outer.transport + 6..outer.transport + 8].fill(0);
    }
    Some(packet)
}

fn put_checksums(packet: &mut [u8], view: &View, offset: usize) {
    if view.source.is_ipv4() {
        packet[10..12].fill(0);
        let sum = Sum::default().add_bytes(&packet[..view.transport]).finish();
        packet[10..12].copy_from_slice(&sum);
    }
    let (len, field) = (packet.len() - view.transport, view.transport + offset);
    packet[field..field + 2].fill(0);
    let pseudo = Sum::default().add_pseudo(view.source, view.destination, view.protocol).add_u16(len as u16);
    let sum = pseudo.add_bytes(&packet[view.transport..]).finish();
    packet[field..field + 2].copy_from_slice(&if offset == 6 && sum == [0, 0] { [0xff; 2] } else { sum });
}

/// A packet without what a superpacket does not say of each of its segments: identification, PSH, and so checksums.
fn said(packet: &[u8], v6: bool) -> Vec<u8> {
    let mut said = packet.to_vec();
    let outer = if v6 { 40 } else { 20 };
    let start = outer + 30;
    let inner = if said[start] >> 4 == 6 { 40 } else { 20 };
    for (at, length) in [(0, outer), (start, inner)] {
        if length == 20 {
            said[at + 4..at + 6].fill(0);
            said[at + 10..at + 12].fill(0);
        }
    }
    said[outer + 6..outer + 8].fill(0);
    said[start + inner + 16..start + inner + 18].fill(0);
    said[start + inner + 13] &= !0x08;
    said
}

/// The datagrams of a tunnel around a flow.
fn datagrams(flow: &Flow, payload: &[u8], size: usize, v6: bool, checksum: bool) -> Vec<Vec<u8>> {
    let within = |(at, inner): (usize, &Vec<u8>)| vxlan(inner, v6, 500 + at as u16, checksum);
    flow.segments(payload, size).iter().enumerate().map(within).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn where_vxlan_is_taken_apart_the_tcp_inside_is_joined_and_cut_again_it_is_the_same(
        flow in flow(), payload in proptest::collection::vec(any::<u8>(), 1..20000), size in 200usize..1400,
        v6 in any::<bool>(), checksum in any::<bool>(), damage in proptest::option::of((any::<usize>(), any::<usize>(), 1u8..))
    ) {
        let flow = Flow { flags: flow.flags & !0x81, ..flow };
        let mut came = datagrams(&flow, &payload, size, v6, checksum);
        if let Some((which, at, by)) = damage {
            let which = which % came.len();
            let at = at % came[which].len();
            came[which][at] ^= by;
            prop_assume!(View::parse(&came[which]).is_ok_and(|view| view.len == came[which].len()));
        }
        let frames = join_at(&came, ALL, true);
        if flow.protocol == TCP && damage.is_none() {
            let joined = frames.iter().filter(|(vnet, ..)| vnet[1] & 0x60 != 0).count();
            prop_assert_eq!(joined, usize::from(came.len() > 1));
        }
        let again: Vec<_> = frames.into_iter().flat_map(cut_as_written).collect();
        // Datagrams that are joined as such get a checksum.
        if flow.protocol == TCP && (checksum || damage.is_none()) {
            prop_assert_eq!(again, came);
        } else {
            prop_assert_eq!(again.len(), came.len());
        }
    }

    #[test]
    fn what_differs_in_more_than_a_superpacket_can_say_is_not_joined(
        inner_v6 in any::<bool>(), v6 in any::<bool>(), checksum in any::<bool>(), which in 1usize..5,
        at in 0usize..150, by in 1u8.., payload in proptest::collection::vec(any::<u8>(), 2500..3000)
    ) {
        let flow = Flow { v6: inner_v6, protocol: TCP, options: 12, sequence: 1, flags: 0x10 };
        let mut came = datagrams(&flow, &payload, 500, v6, checksum);
        let mut other = came[which].clone();
        let header_len = if v6 { 40 } else { 20 } + 30 + flow.header_len();
        other[at % header_len] ^= by;
        let Some(other) = repaired(other, v6, checksum) else { return Ok(()) };
        came[which] = other;
        let again: Vec<_> = join_at(&came, ALL, true).into_iter().flat_map(cut_as_written).collect();
        let said = |packets: &[Vec<u8>]| packets.iter().map(|packet| said(packet, v6)).collect::<Vec<_>>();
        prop_assert_eq!(said(&again), said(&came));
    }

    #[test]
    fn bare_datagrams_and_others_are_joined_into_one(
        payload in proptest::collection::vec(any::<u8>(), 500..9000), bare in any::<[bool; 64]>(), v6 in any::<bool>()
    ) {
        let flow = Flow { v6: false, protocol: TCP, options: 12, sequence: 1, flags: 0x10 };
        let whole = vxlan(&flow.packet(&payload, 0, 100, flow.flags), v6, 500, true);
        let vnet = vxlan_vnet(&flow, 200, v6, true);
        let [undressed, dressed] = [true, false].map(|marks| cut_for(&whole, vnet, 9999, marks).unwrap());
        let pick = |((bare, undressed), dressed): ((&bool, &Vec<u8>), &Vec<u8>)| {
            if *bare { undressed.clone() } else { dressed.clone() }
        };
        let came: Vec<_> = bare.iter().zip(&undressed).zip(&dressed).map(pick).collect();
        let frames: Vec<_> = join_at(&came, ALL, true);
        prop_assert_eq!(frames.len(), 1);
        let again: Vec<_> = frames.into_iter().flat_map(cut_as_written).collect();
        prop_assert_eq!(again, datagrams(&flow, &payload, 200, v6, true)[..came.len()].to_vec());
    }

    #[test]
    fn bare_datagrams_of_a_tunnel_are_joined_where_it_ends(
        payload in proptest::collection::vec(any::<u8>(), 1..20000), size in 200usize..1400, v6 in any::<bool>(),
        inner_v6 in any::<bool>(), checksum in any::<bool>()
    ) {
        let flow = Flow { v6: inner_v6, protocol: TCP, options: 12, sequence: 1, flags: 0x10 };
        let whole = vxlan(&flow.packet(&payload, 0, 100, flow.flags), v6, 500, checksum);
        let pieces = cut_for(&whole, vxlan_vnet(&flow, size, v6, checksum), 9999, true).unwrap();
        let frames: Vec<_> = join_at(&pieces, ALL, true).into_iter().map(completed).collect();
        prop_assert_eq!(frames.len(), 1);
        let again: Vec<_> = frames.into_iter().flat_map(cut_as_written).collect();
        prop_assert_eq!(again, datagrams(&flow, &payload, size, v6, true));
    }

    #[test]
    fn a_cut_superpacket_inside_of_a_tunnel_is_what_the_network_would_carry(
        flow in flow(), payload in proptest::collection::vec(any::<u8>(), 1..9000), size in 1usize..1400,
        v6 in any::<bool>(), checksum in any::<bool>()
    ) {
        let whole = vxlan(&flow.packet(&payload, 0, 100, flow.flags), v6, 500, checksum);
        let vnet = vxlan_vnet(&flow, size, v6, checksum);
        let pieces = unpadded(cut(&whole, vnet, 9999).unwrap());
        let expected = flow.segments(&payload, size);
        prop_assert_eq!(pieces.len(), expected.len());
        for (at, (piece, inner)) in pieces.iter().zip(&expected).enumerate() {
            prop_assert_eq!(piece, &vxlan(inner, v6, 500 + at as u16, checksum));
        }
        let mtu = vxlan(&expected[0], v6, 0, true).len();
        prop_assert!(cut(&whole, vnet, mtu).is_ok());
        prop_assert_eq!(cut(&whole, vnet, mtu - 1), Err(DropReason::TooBig));
    }

    #[test]
    fn a_superpacket_inside_of_a_tunnel_arrives_as_superpackets_of_its_datagrams(
        payload in proptest::collection::vec(any::<u8>(), 1..20000), size in 200usize..1400,
        v6 in any::<bool>(), checksum in any::<bool>(), marks in any::<bool>()
    ) {
        let flow = Flow { v6: false, protocol: TCP, options: 12, sequence: 1, flags: 0x10 };
        let whole = vxlan(&flow.packet(&payload, 0, 100, flow.flags), v6, 500, checksum);
        let pieces = cut_for(&whole, vxlan_vnet(&flow, size, v6, checksum), 9999, marks).unwrap();
        let frames: Vec<_> = join_for(&pieces, ALL).into_iter().map(completed).collect();
        prop_assert_eq!(frames.len(), pieces.len().div_ceil(64));
        let mut again = Vec::new();
        for (vnet, bytes, _) in frames {
            let vnet = VnetHeader::parse(&vnet).unwrap();
            prop_assert!(vnet.gso != Gso::Tcp);
            again.extend(unpadded(cut(&bytes, vnet, 9999).unwrap()));
        }
        let made = |(at, inner): (usize, &Vec<u8>)| vxlan(inner, v6, 500 + at as u16, true);
        let expected: Vec<_> = flow.segments(&payload, size).iter().enumerate().map(made).collect();
        // One that passes alone keeps the checksum that it came with, or none.
        if checksum || marks || pieces.len() % 64 != 1 {
            prop_assert_eq!(again, expected);
        }
    }

    #[test]
    fn what_a_frame_says_of_its_tunnel_is_never_believed(
        payload in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..400, by in any::<u8>(),
        outer_transport in 0u16..100, inner_network in 0u16..400, csum_start in 0u16..400
    ) {
        let flow = Flow { v6: false, protocol: TCP, options: 0, sequence: 1, flags: 0x10 };
        let mut whole = vxlan(&flow.packet(&payload, 0, 100, 0x10), false, 1, true);
        let at = at % whole.len();
        whole[at] ^= by;
        let tunnel = Some(Tunnel { outer_transport, inner_network, checksum: true });
        for vnet in [VnetHeader { csum_start, tunnel, ..flow.vnet(100) }, vxlan_vnet(&flow, 100, false, true)] {
            let _ = cut(&whole, vnet, 9999);
        }
    }
}

#[test]
fn only_tcp_of_one_plain_vxlan_is_joined_as_such_and_only_where_the_kernel_takes_it() {
    let flow = Flow { v6: false, protocol: TCP, options: 12, sequence: 1, flags: 0x10 };
    let came = datagrams(&flow, &[7; 4000], 1000, false, false);
    let kinds = |came: &[Vec<u8>], takes, to_vtep| -> Vec<_> {
        join_at(came, takes, to_vtep).iter().map(|(vnet, _, segments)| (vnet[1], *segments)).collect()
    };
    assert_eq!(kinds(&came, ALL, true), [(0x21, 4)]);
    assert_eq!(kinds(&came, ALL, false), [(5, 4)], "no VXLAN of this host");
    assert_eq!(kinds(&came, Takes { tunnels: false, ..ALL }, true), [(5, 4)], "the kernel takes none");
    // Another network, one with a group policy, one that is not Ethernet; a frame with a tag.
    for (at, byte) in [(28 + 5, 1), (28, 0x88), (28, 0x0c), (28 + 8 + 12, 0x81)] {
        let mut came = came.clone();
        came[1..].iter_mut().for_each(|datagram| datagram[at] ^= byte);
        let found = kinds(&came, ALL, true);
        assert_ne!(found[0], (0x21, 4), "byte {at}");
        assert_eq!(found.iter().map(|(_, segments)| segments).sum::<usize>(), 4);
    }
    let mut other_way = came.clone();
    other_way[2][20] ^= 1;
    assert_eq!(kinds(&other_way, ALL, true), [(0x21, 2), (0, 1), (0, 1)], "from another port");
}

#[test]
fn the_samples_that_a_kernel_is_asked_about_are_superpackets_of_two_segments() {
    for sample in samples_of_tunnels() {
        let mut vnet: [u8; VNET_HDR_LEN] = sample[..VNET_HDR_LEN].try_into().unwrap();
        vnet[20] -= 14;
        let vnet = VnetHeader::parse(&vnet).unwrap();
        let (inner, headers) = (vnet.tunnel.unwrap().inner_network, vnet.csum_start + 20);
        assert_eq!((vnet.gso, vnet.gso_size, inner + 20), (Gso::Tcp, 1, vnet.csum_start));
        let (outer, kind) = if sample[VNET_HDR_LEN] == 0x60 { (40, 0x41) } else { (20, 0x21) };
        assert_eq!((vnet.tunnel.unwrap().outer_transport, sample[1]), (outer, kind));
        assert_eq!(inner, outer + 30);
        assert_eq!(sample.len(), VNET_HDR_LEN + usize::from(headers) + 2);
    }
}

#[test]
fn offsets_that_contradict_the_packet_are_refused() {
    let flow = Flow { v6: false, protocol: TCP, options: 0, sequence: 1, flags: 0x10 };
    let whole = vxlan(&flow.packet(&[1; 3000], 0, 1, 0x10), false, 1, true);
    let right = vxlan_vnet(&flow, 1000, false, true);
    assert_eq!(cut(&whole, right, 1500).unwrap().len(), 3);
    for (outer_transport, inner_network, csum_start) in
        [(24, 50, 70), (20, 27, 47), (20, 50, 50), (20, 54, 74), (20, 4000, 4020), (20, u16::MAX, u16::MAX)]
    {
        let tunnel = Some(Tunnel { outer_transport, inner_network, checksum: true });
        assert_eq!(cut(&whole, VnetHeader { csum_start, tunnel, ..right }, 1500), Err(DropReason::BadOffload));
    }
    assert_eq!(cut(&flow.packet(&[1; 3000], 0, 1, 0x10), right, 1500), Err(DropReason::BadOffload), "no UDP around it");
}

#[test]
fn a_header_that_speaks_of_a_tunnel_is_read_as_the_kernel_writes_it() {
    // As read from Linux 6.18: TCP of IPv4 in VXLAN of IPv4 with an outer checksum.
    let mut header = [0; VNET_HDR_LEN];
    header[..2].copy_from_slice(&[0x09, 0x21]);
    for (at, value) in [(2, 90u16), (4, 1330), (6, 70), (8, 16)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    header[20..].copy_from_slice(&[20, 0, 50, 0]);
    let tunnel = Some(Tunnel { outer_transport: 20, inner_network: 50, checksum: true });
    let expected =
        VnetHeader { needs_csum: true, gso: Gso::Tcp, gso_size: 1330, csum_start: 70, csum_offset: 16, tunnel };
    assert_eq!(VnetHeader::parse(&header), Ok(expected));
    header[1] = 0x20;
    assert_eq!(VnetHeader::parse(&header), Err(DropReason::BadOffload), "a tunnel around nothing");
}
