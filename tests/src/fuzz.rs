//! Fuzz targets as ordinary functions of bytes: each reads its input as a small program, runs it against the real code,
//! and panics when a promise of docs/protocol.md is broken.
//!
//! `tests/tests/fuzz.rs` replays the committed corpus and a bounded random run in every `make test`;
//! `tests/cargo-fuzz/` gives the same functions to libFuzzer. They need no root, no clock and no machine's randomness:
//! the same bytes do the same thing everywhere.

mod associations;
mod exchange;
mod feed;
mod frames;
mod mutator;
mod offload;
mod seen;

pub use feed::Feed;
pub use mutator::Mutator;
pub use seen::Seen;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also the folder of its corpus.
    pub name: &'static str,
    /// Its body: panics when a promise is broken, notes what it saw.
    pub run: fn(&[u8], &mut Seen),
}

/// Every target.
pub const TARGETS: [Target; 4] = [
    Target { name: "frames", run: frames::run },
    Target { name: "exchange", run: exchange::run },
    Target { name: "associations", run: associations::run },
    Target { name: "offload", run: offload::run },
];

/// The longest input that is worth anything; libFuzzer is told the same (`-max_len`).
pub const INPUT_MAX: usize = 4096;

/// Runs one target on one input, for who only wants to know whether it panics.
///
/// # Panics
/// When there is no such target, or a promise is broken.
pub fn fuzz(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("one of the targets");
    (target.run)(input, &mut Seen::default());
}
