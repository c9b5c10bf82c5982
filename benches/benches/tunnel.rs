//! What the tunnel costs per packet: sealing, opening, and a whole handshake.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use warren_benches::memory::pipeline::{at_rest, shake};
use warren_crypto::message::{BUFFER_LEN, DATA_OVERHEAD, INITIATION_LEN};
use warren_crypto::tunnel::{Opened, Tunnel};

/// Inner packet lengths, in bytes: small ones, and full ones where the underlay carries 1500 and 9000.
const SIZES: [usize; 4] = [64, 256, 1420, 8900];
/// Datagrams sealed ahead for opening; each can be opened once.
const AHEAD: usize = 64;
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn buffers() -> [Vec<u8>; 2] {
    [(); 2].map(|()| vec![0; BUFFER_LEN])
}

fn ready() -> [Tunnel; 2] {
    let mut ends = at_rest();
    let [a, b] = &mut ends;
    shake(a, b, &mut buffers());
    ends
}

fn packet(len: usize) -> Vec<u8> {
    let mut packet = vec![0u8; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel/seal");
    for size in SIZES {
        let [mut a, _] = ready();
        let packet = packet(size);
        let mut out = vec![0; INITIATION_LEN.max(size + DATA_OVERHEAD)];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &packet, |bencher, packet| {
            bencher.iter(|| a.seal(black_box(packet), &mut out));
        });
    }
    group.finish();
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("tunnel/open");
    for size in SIZES {
        let mut opening = Opening::new(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_custom(|packets| {
                let batches = std::iter::repeat_n(AHEAD, packets as usize / AHEAD);
                batches.chain([packets as usize % AHEAD]).map(|batch| opening.time(batch)).sum()
            });
        });
    }
    group.finish();
}

struct Opening {
    ends: [Tunnel; 2],
    packet: Vec<u8>,
    sealed: Vec<Vec<u8>>,
    out: Vec<u8>,
}

impl Opening {
    fn new(size: usize) -> Self {
        let sealed = vec![vec![0; INITIATION_LEN.max(size + DATA_OVERHEAD)]; AHEAD];
        Self { ends: ready(), packet: packet(size), sealed, out: vec![0; BUFFER_LEN] }
    }

    /// Seals a batch, and times the opening alone.
    fn time(&mut self, batch: usize) -> Duration {
        let [a, b] = &mut self.ends;
        let len = self.packet.len() + DATA_OVERHEAD;
        for out in &mut self.sealed[..batch] {
            assert_eq!(a.seal(&self.packet, out), Ok(len));
        }
        let began = Instant::now();
        for datagram in &self.sealed[..batch] {
            let opened = b.open(FROM, &datagram[..len], &mut self.out);
            assert!(matches!(black_box(opened), Ok(Opened::Packet(_))));
        }
        began.elapsed()
    }
}

fn handshake(c: &mut Criterion) {
    let mut buffers = buffers();
    c.bench_function("tunnel/handshake", |bencher| {
        bencher.iter_batched_ref(at_rest, |[a, b]| shake(a, b, &mut buffers), BatchSize::SmallInput);
    });
}

criterion_group!(benches, seal, open, handshake);
criterion_main!(benches);
