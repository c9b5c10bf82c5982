//! Which library seals and opens an association's packets fastest: plaintext into another buffer, tag behind it, as the
//! data path does it.

use std::hint::black_box;

use aws_lc_rs::aead as aws;
use chacha20poly1305::{AeadInPlace as _, KeyInit as _};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::aead as ring;

/// Inner packet lengths, in bytes: small ones, and full ones where the underlay carries 1500 and 9000.
const SIZES: [usize; 4] = [64, 256, 1420, 8900];
const TAG: usize = 16;
const KEY: [u8; 32] = [7; 32];
const HEADER: [u8; 16] = [4; 16];

type Call = Box<dyn FnMut(&[u8], &mut [u8])>;

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// Seals `plaintext` to `out`.
fn sealers() -> Vec<(&'static str, Call)> {
    vec![
        ("aws-lc-rs/aes-256-gcm", aws_seal(&aws::AES_256_GCM)),
        ("aws-lc-rs/chacha20-poly1305", aws_seal(&aws::CHACHA20_POLY1305)),
        ("ring/aes-256-gcm", ring_seal(&ring::AES_256_GCM)),
        ("ring/chacha20-poly1305", ring_seal(&ring::CHACHA20_POLY1305)),
        ("rustcrypto/chacha20-poly1305", rustcrypto_seal()),
    ]
}

fn aws_seal(algorithm: &'static aws::Algorithm) -> Call {
    let key = aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, &KEY).expect("a key"));
    let mut counter = 0;
    Box::new(move |plaintext, out| {
        counter += 1;
        let (body, tag) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let nonce = aws::Nonce::assume_unique_for_key(nonce(counter));
        let sealed = key.seal_in_place_separate_tag(nonce, aws::Aad::from(HEADER), body).expect("seals");
        tag[..TAG].copy_from_slice(sealed.as_ref());
    })
}

fn ring_seal(algorithm: &'static ring::Algorithm) -> Call {
    let key = ring::LessSafeKey::new(ring::UnboundKey::new(algorithm, &KEY).expect("a key"));
    let mut counter = 0;
    Box::new(move |plaintext, out| {
        counter += 1;
        let (body, tag) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let nonce = ring::Nonce::assume_unique_for_key(nonce(counter));
        let sealed = key.seal_in_place_separate_tag(nonce, ring::Aad::from(HEADER), body).expect("seals");
        tag[..TAG].copy_from_slice(sealed.as_ref());
    })
}

fn rustcrypto_seal() -> Call {
    let key = chacha20poly1305::ChaCha20Poly1305::new(&KEY.into());
    let mut counter = 0;
    Box::new(move |plaintext, out| {
        counter += 1;
        let (body, tag) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let sealed = key.encrypt_in_place_detached(&nonce(counter).into(), &HEADER, body).expect("seals");
        tag[..TAG].copy_from_slice(&sealed);
    })
}

/// Opens `sealed` (ciphertext and tag) to `out`; the counter is always the first.
fn openers() -> Vec<(&'static str, Call)> {
    vec![
        ("aws-lc-rs/aes-256-gcm", aws_open(&aws::AES_256_GCM)),
        ("aws-lc-rs/chacha20-poly1305", aws_open(&aws::CHACHA20_POLY1305)),
        ("ring/aes-256-gcm", ring_open(&ring::AES_256_GCM)),
        ("ring/chacha20-poly1305", ring_open(&ring::CHACHA20_POLY1305)),
        ("rustcrypto/chacha20-poly1305", rustcrypto_open()),
    ]
}

fn aws_open(algorithm: &'static aws::Algorithm) -> Call {
    let key = aws::LessSafeKey::new(aws::UnboundKey::new(algorithm, &KEY).expect("a key"));
    Box::new(move |sealed, out| {
        let (body, tag) = sealed.split_at(sealed.len() - TAG);
        let nonce = aws::Nonce::assume_unique_for_key(nonce(1));
        key.open_separate_gather(nonce, aws::Aad::from(HEADER), body, tag, &mut out[..body.len()]).expect("opens");
    })
}

fn ring_open(algorithm: &'static ring::Algorithm) -> Call {
    let key = ring::LessSafeKey::new(ring::UnboundKey::new(algorithm, &KEY).expect("a key"));
    Box::new(move |sealed, out| {
        let out = &mut out[..sealed.len()];
        out.copy_from_slice(sealed);
        let nonce = ring::Nonce::assume_unique_for_key(nonce(1));
        key.open_in_place(nonce, ring::Aad::from(HEADER), out).expect("opens");
    })
}

fn rustcrypto_open() -> Call {
    let key = chacha20poly1305::ChaCha20Poly1305::new(&KEY.into());
    Box::new(move |sealed, out| {
        let (body, tag) = sealed.split_at(sealed.len() - TAG);
        let out = &mut out[..body.len()];
        out.copy_from_slice(body);
        key.decrypt_in_place_detached(&nonce(1).into(), &HEADER, out, tag.into()).expect("opens");
    })
}

fn seal(c: &mut Criterion) {
    for (name, mut call) in sealers() {
        let mut group = c.benchmark_group(format!("aead/seal/{name}"));
        for size in SIZES {
            let (plaintext, mut out) = (vec![1; size], vec![0; size + TAG]);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| call(black_box(&plaintext), black_box(&mut out)));
            });
        }
    }
}

fn open(c: &mut Criterion) {
    for ((name, mut call), (sealed_by, mut sealer)) in openers().into_iter().zip(sealers()) {
        assert_eq!(name, sealed_by);
        // Whatever an earlier measurement sealed, this one is the key's first.
        let mut group = c.benchmark_group(format!("aead/open/{name}"));
        for size in SIZES {
            let (mut sealed, mut out) = (vec![0; size + TAG], vec![0; size + TAG]);
            (_, sealer) = sealers().into_iter().find(|(other, _)| *other == name).expect("the same library");
            sealer(&vec![1; size], &mut sealed);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| call(black_box(&sealed), black_box(&mut out)));
            });
        }
    }
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
