//! Superpackets of flows inside of UDP tunnels.

use proptest::prelude::*;

use super::*;

/// A datagram of a VXLAN tunnel with this packet in it.
fn vxlan(inner: &[u8], v6: bool, id: u16, checksum: bool) -> Vec<u8> {
    let mut payload = vec![0x08, 0, 0, 0, 0, 0, 42, 0];
    payload.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0]);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

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
