//! The pipeline in memory: cut, seal, open, check, join; no kernel. Per superpacket of 64 KB, and per small packet.

use std::hint::black_box;
use std::ops::Range;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use warren_crypto::PrivateKey;
use warren_crypto::message::BUFFER_LEN;
use warren_crypto::tunnel::{Identity, Opened, Tunnel, TunnelConfig};
use warren_overlay::checksum::Sum;
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Batch, Inbound, Open, Seal, Table, seal_frame};
use warren_overlay::offload::{Cutter, Gso, Takes, VnetHeader};
use warren_overlay::packet::View;

const MTU: usize = 1440;
const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// No crypto: what the rest of the pipeline costs.
struct Copy;

impl Seal for Copy {
    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        out[16..16 + plaintext.len()].copy_from_slice(plaintext);
        Ok(plaintext.len() + 32)
    }
}

impl Open for Copy {
    fn open(&mut self, _: &mut [u8], datagram: Range<usize>, _: usize) -> Result<Range<usize>, DropReason> {
        Ok(datagram.start + 16..datagram.end - 16)
    }
}

struct Session(Tunnel);

impl Seal for Session {
    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        self.0.seal(plaintext, out).map_err(|_| DropReason::NoSession)
    }
}

impl Open for Session {
    fn open(&mut self, arena: &mut [u8], datagram: Range<usize>, spare: usize) -> Result<Range<usize>, DropReason> {
        let (trains, out) = arena.split_at_mut(spare);
        match self.0.open(HERE, &trains[datagram], out).map_err(|_| DropReason::Forged)? {
            Opened::Packet(packet) => Ok(spare..spare + packet.len()),
            _ => Ok(spare..spare),
        }
    }
}

/// Two tunnels with a session between them.
fn pair() -> (Session, Session) {
    let keys = [PrivateKey::generate(), PrivateKey::generate()];
    let identities = keys.clone().map(|key| Identity::new(key, 1000));
    let tunnel = |own: usize, peer: usize| {
        let peer = keys[peer].public_key();
        Tunnel::new(&identities[own], TunnelConfig { peer, preshared_key: None, persistent_keepalive: None, number: 0 })
    };
    let (mut a, mut b) = (tunnel(0, 1), tunnel(1, 0));
    let (mut first, mut second) = (vec![0; BUFFER_LEN], vec![0; BUFFER_LEN]);
    let len = a.initiate(0, &mut first).expect("an initiation");
    let Ok(Opened::Reply(response)) = b.open(HERE, &first[..len], &mut second) else { panic!("no response") };
    let Ok(Opened::Reply(keepalive)) = a.open(HERE, response, &mut first) else { panic!("no session") };
    b.open(HERE, keepalive, &mut second).expect("a keepalive");
    (Session(a), Session(b))
}

fn superpacket(payload: usize) -> (Vec<u8>, View, VnetHeader) {
    let len = 40 + payload;
    let mut packet = vec![0x5a; len];
    packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2]);
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    let sum = Sum::default().add_bytes(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum);
    packet[20..40].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
    let view = View::parse(&packet).expect("a packet");
    packet.extend_from_slice(&[0; 16]);
    let gso = if payload > 1400 { Gso::Tcp } else { Gso::None };
    (packet, view, VnetHeader { needs_csum: true, gso, gso_size: 1400, csum_start: 20, csum_offset: 16 })
}

fn prefix(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn pass<S: Seal, O: Open>(packet: &mut [u8], view: View, vnet: VnetHeader, ends: (&mut S, &mut O), kept: &mut Kept) {
    let (sealer, opener) = ends;
    seal_frame((packet, view, vnet), (0, MTU), sealer, &mut kept.batch, |_| (), |_| ()).expect("sealed");
    let Kept { batch, inbound, table } = kept;
    batch.drain(|_, segment, payload| {
        inbound.room()[..payload.len()].copy_from_slice(payload);
        let train = inbound.arrived(payload.len());
        for start in train.clone().step_by(segment) {
            inbound.open(table, 0, start..(start + segment).min(train.end), opener).expect("opened");
        }
        inbound.deliver(|buf, write| {
            black_box((buf.len(), write.parts.len()));
        });
    });
}

struct Kept {
    batch: Batch,
    inbound: Inbound,
    table: Table,
}

fn kept() -> Kept {
    let table = Table::new([(prefix("10.1.0.0/24"), 0)], [prefix("10.2.0.0/24")]);
    Kept { batch: Batch::default(), inbound: Inbound::new(Takes { checksums: true, tcp: true, udp: true }), table }
}

fn pipeline(c: &mut Criterion) {
    for payload in [64usize, 1400, 61_600] {
        let mut group = c.benchmark_group(format!("pipeline/{payload}"));
        group.throughput(Throughput::Bytes(payload as u64));
        let (packet, view, vnet) = superpacket(payload);
        let (mut buf, mut state) = (packet.clone(), kept());
        group.bench_function("no-crypto", |b| {
            b.iter(|| {
                buf.copy_from_slice(&packet);
                pass(&mut buf, view, vnet, (&mut Copy, &mut Copy), &mut state);
            });
        });
        let (mut near, mut far) = pair();
        group.bench_function("tunnel", |b| {
            b.iter(|| {
                buf.copy_from_slice(&packet);
                pass(&mut buf, view, vnet, (&mut near, &mut far), &mut state);
            });
        });
        group.finish();
    }
}

fn offload(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload");
    let (packet, view, vnet) = superpacket(61_600);
    group.throughput(Throughput::Bytes(61_600));
    let mut buf = packet.clone();
    group.bench_function("cut", |b| {
        b.iter(|| {
            buf.copy_from_slice(&packet);
            let mut cutter = Cutter::new(&mut buf, view, vnet, MTU, false).expect("cut");
            while let Some(piece) = cutter.next() {
                black_box(piece.len());
            }
        });
    });
    group.bench_function("checksum", |b| b.iter(|| black_box(Sum::default().add_bytes(&packet).finish())));
    group.finish();
}

criterion_group!(benches, pipeline, offload);
criterion_main!(benches);
