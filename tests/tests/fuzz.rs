//! Every fuzz target over its corpus, and over a bounded number of inputs made from it. No root.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use warren_tests::fuzz::{INPUT_MAX, Mutator, Seen, TARGETS, Target};

/// Inputs of a random run, unless time is over before.
const INPUTS: usize = 3000;
const TIME: Duration = Duration::from_secs(6);

fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).unwrap()
}

/// The inputs of a target's corpus, by name.
fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Runs one input; a panic is told with the input, so that it can be kept.
fn run(target: Target, input: &[u8], from: &str) -> Seen {
    let mut seen = Seen::default();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input, &mut seen))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("target `{}`, input {from}: {hex}", target.name);
        std::panic::resume_unwind(panic);
    }
    seen
}

/// The corpus still shows what it was kept for, and nothing breaks.
fn replay(name: &str, sights: &[&str]) {
    let (target, mut all) = (target(name), Seen::default());
    let corpus = corpus(target);
    assert!(corpus.len() >= 5, "{} inputs", corpus.len());
    for (path, input) in &corpus {
        assert!(input.len() <= INPUT_MAX, "{} is too long", path.display());
        all.learn(run(target, input, &path.display().to_string()));
    }
    for sight in sights {
        assert!(all.has(sight), "no input of the corpus shows `{sight}` any more, of {all:?}");
    }
}

fn random_run(name: &str) {
    let target = target(name);
    let corpus: Vec<_> = corpus(target).into_iter().map(|(_, input)| input).collect();
    // WARREN_FUZZ_SEED=n tries other inputs.
    let seed = std::env::var("WARREN_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut mutator, began) = (Mutator::new(seed), Instant::now());
    for number in 0..INPUTS {
        if began.elapsed() > TIME {
            break;
        }
        run(target, &mutator.input(&corpus), &format!("{number} of seed {seed}"));
    }
}

#[test]
fn control_frames_of_the_corpus_are_cut_joined_and_judged_as_promised() {
    replay("frames", &["Frame", "Reserved", "a frame of 4 parts", "step 1: Forged", "step 3: Forged", "not altered"]);
}

#[test]
fn control_frames_made_at_random_break_nothing() {
    random_run("frames");
}

#[test]
fn exchanges_of_the_corpus_keep_their_promises() {
    replay("exchange", &["send on", "send on, reborn", "abandon", "purge", "data arrives", "1 came again: Stale"]);
}

#[test]
fn exchanges_with_a_hostile_middle_at_random_keep_their_promises() {
    random_run("exchange");
}

#[test]
fn association_packets_of_the_corpus_are_taken_once_or_refused() {
    replay("associations", &["taken", "taken late", "seen before", "behind the window", "altered: Forged"]);
}

#[test]
fn association_packets_made_at_random_are_taken_once_or_refused() {
    random_run("associations");
}

#[test]
fn superpackets_of_the_corpus_are_cut_and_joined_as_naively() {
    let cut = ["cut, 1 of 3 segments", "cut, 4 of 3 segments", "cut, 5 of 3 segments", "cut, 0 of 1 segments"];
    replay("offload", &[&cut[..], &["joined, kind 1 of 3 segments", "not cut: TooBig", "alone"]].concat());
}

#[test]
fn bare_packets_of_the_corpus_arrive_with_the_checksums_that_they_went_without() {
    let cut = ["cut bare, 1 of 3 segments", "cut bare, 4 of 3 segments", "cut bare, 5 of 3 segments"];
    let joined = ["joined, bare, kind 1 of 3 segments", "joined, bare, kind 5 of 3 segments"];
    let mixed = ["joined, mixed, kind 4 of 3 segments", "cut bare, 0 of 1 segments", "may not be bare"];
    let alone = ["alone, bare, left to the kernel", "alone, bare, made here"];
    replay("offload", &[&cut[..], &joined, &mixed, &alone].concat());
}

#[test]
fn superpackets_made_at_random_are_cut_and_joined_as_naively() {
    random_run("offload");
}
