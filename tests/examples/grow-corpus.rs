//! Adds to the corpus of a fuzz target whatever shows something new: `grow-corpus TARGET SECONDS [SEED]`.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use warren_tests::fuzz::{Mutator, Seen, TARGETS};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, seconds, seed @ ..] = arguments.as_slice() else { panic!("usage: grow-corpus TARGET SECONDS [SEED]") };
    let target = TARGETS.iter().find(|target| target.name == name).expect("one of the targets in tests/src/fuzz.rs");
    let seconds = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    fs::create_dir_all(&folder).expect("the folder of the corpus");
    let files = fs::read_dir(&folder).expect("the corpus").map(|entry| entry.expect("a file").path());
    let mut corpus: Vec<Vec<u8>> = files.map(|path| fs::read(path).expect("an input")).collect();
    let mut seen = Seen::default();
    for input in &corpus {
        (target.run)(input, &mut seen);
    }
    let seed = seed.first().map_or(7, |seed| seed.parse().expect("a number"));
    let (mut mutator, began, mut tried) = (Mutator::new(seed), Instant::now(), 0u64);
    while began.elapsed() < seconds {
        let input = mutator.input(&corpus);
        let mut sights = Seen::default();
        (target.run)(&input, &mut sights);
        tried += 1;
        let news = sights.beyond(&seen);
        if !news.is_empty() {
            let input = shortened(input, &mut |input| {
                let mut sights = Seen::default();
                (target.run)(input, &mut sights);
                news.beyond(&sights).is_empty()
            });
            seen.learn(sights);
            fs::write(folder.join(format!("grown-{:03}", corpus.len())), &input).expect("a new input");
            corpus.push(input);
        }
    }
    println!("{tried} inputs tried, {} in the corpus, {} sights", corpus.len(), seen.len());
}

/// The input without what it does not need to show something new.
fn shortened(mut input: Vec<u8>, still_new: &mut impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut piece = input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at + piece <= input.len() {
            let shorter = [&input[..at], &input[at + piece..]].concat();
            if still_new(&shorter) {
                input = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    input
}
