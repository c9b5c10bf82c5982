//! The forwarder from end to end in memory: frames in, datagrams, frames out, with a session that only counts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use warren_overlay::checksum::Sum;
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Batch, Inbound, Open, Seal, Table, seal_frame};
use warren_overlay::offload::{Takes, VNET_HDR_LEN, VnetHeader};
use warren_overlay::packet::View;

const MTU: usize = 1440;
const PEER: u32 = 3;
const ALL: Takes = Takes { checksums: true, tcp: true, udp: true, tunnels: true };

/// A session without secrets: 16 bytes of header, the packet, 16 bytes of tag.
#[derive(Default)]
struct Plain {
    refuse: bool,
    /// It opens into the bytes behind the train, as a tunnel does.
    elsewhere: bool,
}

impl Seal for Plain {
    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        if self.refuse {
            return Err(DropReason::NoSession);
        }
        out[16..16 + plaintext.len()].copy_from_slice(plaintext);
        Ok(plaintext.len() + 32)
    }
}

impl Open for Plain {
    fn open(&mut self, arena: &mut [u8], datagram: Range<usize>, spare: usize) -> Result<Range<usize>, DropReason> {
        let packet = datagram.start + 16..datagram.end - 16;
        if self.elsewhere {
            arena.copy_within(packet.clone(), spare);
            return Ok(spare..spare + packet.len());
        }
        Ok(packet)
    }
}

fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Node A has 10.1.0.0/24, node B (slot 3 at A) has 10.2.0.0/24.
fn table_a() -> Table {
    Table::new([(prefix("10.2.0.0/24"), PEER), (prefix("10.9.0.0/16"), 4)], [prefix("10.1.0.0/24")])
}

fn table_b() -> Table {
    Table::new([(prefix("10.1.0.0/24"), PEER)], [prefix("10.2.0.0/24")])
}

/// A TCP superpacket from a Pod on A to a Pod on B, with the vnet header that the kernel gives it.
fn frame(payload: usize, size: u16) -> Vec<u8> {
    let len = 40 + payload;
    let mut packet = vec![0x5a; len];
    packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2]);
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    let sum = Sum::default().add_bytes(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum);
    packet[20..40].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
    let mut frame = vec![0u8; VNET_HDR_LEN];
    frame[0] = 1;
    frame[1] = 1;
    frame[4..6].copy_from_slice(&size.to_ne_bytes());
    frame[6..8].copy_from_slice(&20u16.to_ne_bytes());
    frame[8..10].copy_from_slice(&16u16.to_ne_bytes());
    frame.extend_from_slice(&packet);
    frame
}

/// Everything that a worker keeps.
struct Pipeline {
    stage: Vec<u8>,
    batch: Batch,
    inbound: Inbound,
    out: Vec<u8>,
    elsewhere: bool,
}

impl Pipeline {
    fn new() -> Self {
        Self {
            stage: vec![0; 70_000],
            batch: Batch::default(),
            inbound: Inbound::new(ALL),
            out: Vec::with_capacity(1 << 20),
            elsewhere: false,
        }
    }

    /// One frame from A's TUN to B's TUN; gives how many trains and frames it took.
    fn pass(&mut self, a: &Table, b: &Table, frame: &[u8]) -> (usize, usize) {
        let vnet = VnetHeader::parse(frame).unwrap();
        let packet = &frame[VNET_HDR_LEN..];
        self.stage[..packet.len()].copy_from_slice(packet);
        let view = View::parse(packet).unwrap();
        let slot = a.egress(view.source, view.destination).unwrap();
        let buf = (&mut self.stage[..packet.len() + 16], view, vnet);
        seal_frame(buf, (slot, MTU), &mut Plain::default(), &mut self.batch, |_| panic!("lost"), |_| panic!("full"))
            .unwrap();
        let (mut trains, mut frames) = (0, 0);
        let Self { inbound, out, elsewhere, .. } = self;
        out.clear();
        self.batch.drain(|_, segment, payload| {
            trains += 1;
            inbound.room()[..payload.len()].copy_from_slice(payload);
            let train = inbound.arrived(payload.len());
            for start in train.clone().step_by(segment) {
                let datagram = start..(start + segment).min(train.end);
                inbound.open(b, PEER, datagram, &mut Plain { elsewhere: *elsewhere, ..Plain::default() }).unwrap();
            }
            inbound.deliver(|buf, write| {
                frames += 1;
                for part in write.parts {
                    out.extend_from_slice(&buf[part.clone()]);
                }
            });
        });
        (trains, frames)
    }
}

#[test]
fn a_superpacket_crosses_as_two_trains_and_arrives_as_superpackets() {
    let mut pipeline = Pipeline::new();
    for elsewhere in [false, true] {
        pipeline.elsewhere = elsewhere;
        let (trains, frames) = pipeline.pass(&table_a(), &table_b(), &frame(64_000, 1400));
        assert_eq!((trains, frames), (2, 2));
        assert_eq!(pipeline.out.iter().filter(|byte| **byte == 0x5a).count(), 64_000);
    }
}

#[test]
fn the_packet_path_allocates_nothing() {
    let (a, b, frame) = (table_a(), table_b(), frame(64_000, 1400));
    let mut pipeline = Pipeline::new();
    pipeline.pass(&a, &b, &frame);
    let info = allocation_counter::measure(|| {
        for _ in 0..10 {
            pipeline.pass(&a, &b, &frame);
        }
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn a_full_batch_is_sent_before_the_next_packet_and_nothing_is_lost() {
    let frame = frame(60_000, 8);
    let vnet = VnetHeader::parse(&frame).unwrap();
    let mut stage = frame[VNET_HDR_LEN..].to_vec();
    let view = View::parse(&stage).unwrap();
    stage.extend_from_slice(&[0; 16]);
    let (mut batch, mut sent) = (Batch::default(), 0);
    let (packets, _) = seal_frame(
        (&mut stage, view, vnet),
        (PEER, MTU),
        &mut Plain::default(),
        &mut batch,
        |reason| panic!("{reason:?}"),
        |batch| batch.drain(|_, segment, payload| sent += payload.len() / segment),
    )
    .unwrap();
    batch.drain(|_, segment, payload| sent += payload.len().div_ceil(segment));
    assert_eq!(packets, 7_500);
    assert_eq!(sent, 7_500);
}

#[test]
fn a_session_that_refuses_loses_every_packet_by_name() {
    let frame = frame(2_800, 1400);
    let vnet = VnetHeader::parse(&frame).unwrap();
    let mut stage = frame[VNET_HDR_LEN..].to_vec();
    let view = View::parse(&stage).unwrap();
    stage.extend_from_slice(&[0; 16]);
    let mut lost = Vec::new();
    let sealed = seal_frame(
        (&mut stage, view, vnet),
        (PEER, MTU),
        &mut Plain { refuse: true, ..Plain::default() },
        &mut Batch::default(),
        |reason| lost.push(reason),
        |_| (),
    );
    assert_eq!(sealed, Ok((0, 0)));
    assert_eq!(lost, [DropReason::NoSession; 2]);
}

#[test]
fn trains_keep_equal_datagrams_together_and_never_mix_peers() {
    let mut batch = Batch::default();
    let mut session = Plain::default();
    for (slot, len) in [(1, 100), (1, 100), (1, 60), (1, 60), (2, 60), (1, 60), (1, 70)] {
        batch.seal(slot, &vec![0; len], &mut session).unwrap();
    }
    let mut trains = Vec::new();
    batch.drain(|slot, segment, payload| trains.push((slot, segment, payload.len())));
    assert_eq!(trains, [(1, 132, 356), (1, 92, 92), (2, 92, 92), (1, 92, 92), (1, 102, 102)]);
    assert!(batch.is_empty());
}

#[test]
fn what_is_over_from_one_superpacket_leaves_in_a_full_train_with_the_next() {
    let (mut batch, mut session) = (Batch::default(), Plain::default());
    let mut number = 0;
    let mut seal = |batch: &mut Batch, count: u8| {
        for _ in 0..count {
            batch.seal(PEER, &[number; 1400], &mut session).unwrap();
            number += 1;
        }
    };
    let numbers = |payload: &[u8]| payload.chunks(1432).map(|datagram| datagram[16]).collect::<Vec<_>>();
    seal(&mut batch, 47);
    assert_eq!(batch.complete(), 1, "two that may still be joined are left");
    batch.sent(1);
    seal(&mut batch, 47);
    let sent: Vec<_> = batch.trains().map(|(_, _, payload)| numbers(payload)).collect();
    assert_eq!(sent, [(45..90).collect::<Vec<_>>(), (90..94).collect()], "in their order, each once");
    batch.sent(batch.complete());
    assert_eq!((batch.complete(), batch.is_empty()), (0, false));
    batch.seal(PEER, &[0; 100], &mut session).unwrap();
    assert_eq!(batch.complete(), 1, "nothing may follow a shorter one");
    batch.sent(1);
    assert!(batch.is_empty());
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_source_must_route_back_to_the_peer_that_sent_it() {
    let table = table_a();
    assert_eq!(table.ingress(PEER, ip("10.2.0.9"), ip("10.1.0.2")), Ok(()));
    assert_eq!(table.ingress(4, ip("10.2.0.9"), ip("10.1.0.2")), Err(DropReason::SourceSpoofed));
    assert_eq!(table.ingress(PEER, ip("10.1.0.7"), ip("10.1.0.2")), Err(DropReason::SourceSpoofed));
    assert_eq!(table.ingress(PEER, ip("10.2.0.9"), ip("10.9.0.1")), Err(DropReason::DestinationNotOurs));
    assert_eq!(table.ingress(PEER, ip("127.0.0.1"), ip("10.1.0.2")), Err(DropReason::ReservedAddress));
}

#[test]
fn a_source_that_the_peer_would_refuse_never_leaves() {
    let table = table_a();
    assert_eq!(table.egress(ip("10.1.0.2"), ip("10.2.0.9")), Ok(PEER));
    assert_eq!(table.egress(ip("10.7.0.2"), ip("10.2.0.9")), Err(DropReason::SourceNotOurs));
    assert_eq!(table.egress(ip("10.1.0.2"), ip("10.77.0.9")), Err(DropReason::NoRoute));
    assert_eq!(table.egress(ip("10.1.0.2"), ip("169.254.169.254")), Err(DropReason::ReservedAddress));
}

#[test]
fn a_control_frame_never_reaches_the_device_and_nothing_near_one_does() {
    use warren_overlay::frame::{PACKET_MAX, write};
    let mut packet = [0; PACKET_MAX];
    let len = write(1, b"offer", 0, &mut packet).unwrap();
    let seal = |packet: &[u8]| {
        let mut datagram = vec![0; packet.len() + 32];
        Plain::default().seal(packet, &mut datagram).unwrap();
        datagram
    };
    // Even where a route leads to its addresses.
    let table = Table::new([(prefix("fe80::/10"), PEER)], [prefix("fe80::/10"), prefix("10.2.0.0/24")]);
    let mut inbound = Inbound::new(ALL);
    let datagram = inbound.place(&seal(&packet[..len])).unwrap();
    assert_eq!(inbound.open(&table, PEER, datagram, &mut Plain::default()), Ok(0));
    assert_eq!(inbound.take_frame(), Some(&packet[..len]));
    assert_eq!(inbound.take_frame(), None, "once");
    for at in [23, 39, 41, 43] {
        let mut near = packet[..len].to_vec();
        near[at] ^= 1;
        let datagram = inbound.place(&seal(&near)).unwrap();
        let opened = inbound.open(&table, PEER, datagram, &mut Plain::default());
        assert_eq!(opened, Err(DropReason::ReservedAddress), "byte {at}");
    }
    inbound.deliver(|_, _| panic!("something was delivered"));
}

#[test]
fn a_mark_on_a_packet_of_a_session_without_marks_is_malformed() {
    let mut packet = frame(100, 100).split_off(VNET_HDR_LEN);
    packet[0] |= 0x80;
    let mut inbound = Inbound::new(ALL);
    let mut datagram = vec![0; packet.len() + 32];
    Plain::default().seal(&packet, &mut datagram).unwrap();
    let datagram = inbound.place(&datagram).unwrap();
    assert_eq!(inbound.open(&table_b(), PEER, datagram, &mut Plain::default()), Err(DropReason::Malformed));
}

#[test]
fn a_full_arena_asks_to_be_delivered_and_loses_nothing_of_a_train() {
    let packet = frame(10, 10).split_off(VNET_HDR_LEN);
    let mut datagram = vec![0; packet.len() + 32];
    Plain::default().seal(&packet, &mut datagram).unwrap();
    let (mut inbound, mut delivered, mut opened) = (Inbound::new(ALL), 0, 0);
    for _ in 0..1000 {
        if inbound.is_full() || inbound.room().len() < datagram.len() {
            inbound.deliver(|_, write| delivered += write.segments);
        }
        let at = inbound.place(&datagram).unwrap();
        let session = &mut Plain { elsewhere: true, ..Plain::default() };
        opened += usize::from(inbound.open(&table_b(), PEER, at, session).is_ok());
    }
    inbound.deliver(|_, write| delivered += write.segments);
    assert_eq!((opened, delivered), (1000, 1000));
}
