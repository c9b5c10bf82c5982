//! The pipeline in memory: cut, seal, open, check, join; no kernel. Per superpacket of 64 KB, and per small packet.

use std::hint::black_box;
use std::ops::Range;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use warren_benches::memory::pipeline::{MTU, Pipeline, SMALL, SUPERPACKET, association, packet, session};
use warren_crypto::association::Suite;
use warren_overlay::checksum::Sum;
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Open, Seal};
use warren_overlay::offload::Cutter;

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

fn pipeline(c: &mut Criterion) {
    for payload in [SMALL, 1400, SUPERPACKET] {
        passes(c, payload, "no-crypto", (&mut Copy, &mut Copy));
        for suite in Suite::ALL {
            let (mut near, mut far) = association(suite);
            passes(c, payload, suite.name(), (&mut near, &mut far));
        }
        let (mut near, mut far) = session();
        passes(c, payload, "tunnel", (&mut near, &mut far));
    }
}

fn passes<S: Seal, O: Open>(c: &mut Criterion, payload: usize, name: &str, (near, far): (&mut S, &mut O)) {
    let mut group = c.benchmark_group(format!("pipeline/{payload}"));
    group.throughput(Throughput::Bytes(payload as u64));
    let (packet, view, vnet) = packet(payload);
    let (mut buffer, mut pipeline) = (packet.clone(), Pipeline::default());
    group.bench_function(name, |b| {
        b.iter(|| {
            buffer.copy_from_slice(&packet);
            pipeline.pass(&mut buffer, view, vnet, (near, far));
        });
    });
    group.finish();
}

fn offload(c: &mut Criterion) {
    let mut group = c.benchmark_group("offload");
    let (packet, view, vnet) = packet(SUPERPACKET);
    group.throughput(Throughput::Bytes(SUPERPACKET as u64));
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
