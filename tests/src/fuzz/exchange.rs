//! Two ends of the exchange and somebody hostile between them, who sits inside the tunnel: worse than is promised.
//!
//! The input says, step by step, what is wanted, lost, repeated, kept back, altered or made up, when a worker is ready,
//! how time passes and who is started anew. What must hold after every step: an index has one key; a key has one sender,
//! ever; nobody sends under a key that the peer did not make receivers for; at most one generation is under way. And
//! when the middle behaves again, both ends reach each other.

mod side;
mod world;

use std::time::Duration;

use warren_crypto::association::Suite;
use warren_crypto::exchange::{Action, Chance, Terms};
use warren_crypto::{PresharedKey, PrivateKey};

use self::world::World;
use super::{Feed, Seen};

/// Sending workers of each side.
pub(super) const WORKERS: [u16; 2] = [1, 2];
/// More steps than this say nothing new.
const STEPS_MAX: usize = 200;

/// The body.
pub(super) fn run(input: &[u8], seen: &mut Seen) {
    let mut feed = Feed::new(input);
    let mut world = World::new(feed.byte().into());
    for _ in 0..STEPS_MAX {
        if feed.is_empty() {
            break;
        }
        step(&mut world, &mut feed, seen);
    }
    world.behaves_again();
}

fn step(world: &mut World, feed: &mut Feed<'_>, seen: &mut Seen) {
    let byte = feed.byte();
    let who = usize::from(byte >> 7);
    match byte & 0x0f {
        0 => world.want(who, seen),
        1..=4 => world.deliver_next(who, seen),
        5 | 6 => world.workers_ready(who, seen),
        7 => world.lose(who),
        8 => world.delay(who),
        9 => world.repeat(who, feed.below(256), seen),
        10 => {
            let (at, by) = (feed.below(2048), feed.byte());
            world.alter_next(who, at, by, seen);
        }
        11 => world.make_up(who, feed.bytes(), seen),
        12 => world.restart(who, seen),
        13 => world.pass(Duration::from_millis(50 + 40 * u64::from(feed.byte())), seen),
        14 => world.hear(who, seen),
        _ => {
            world.talk(who, seen);
        }
    }
}

/// Pseudo-random bytes of a seed (SplitMix64), and indices that no two associations of one life share.
pub(super) struct Dice {
    state: u64,
    used: u32,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed, used: 0 }
    }
}

impl Chance for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }

    fn index(&mut self, lane: u16) -> u32 {
        self.used += 1;
        1 << 31 | self.used << 8 | u32::from(lane)
    }
}

/// What the two ends run on. Their keys are known to everybody who reads this: they protect nothing.
pub(super) fn terms(side: usize, boot: u64) -> Terms {
    let keys = ["ERERERERERERERERERERERERERERERERERERERERERE=", "Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2M="];
    let keys = keys.map(|text| text.parse::<PrivateKey>().unwrap());
    let psk: PresharedKey = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=".parse().unwrap();
    Terms {
        peer: keys[1 - side].public_key(),
        own: keys[side].clone(),
        preshared_key: Some(psk),
        boot,
        workers: WORKERS[side],
        suites: Suite::ALL.to_vec(),
    }
}

/// The name of an action.
pub(super) fn act_name(action: &Action) -> &'static str {
    match action {
        Action::Send(_) => "send",
        Action::Receive(_) => "receive",
        Action::SendOn { reborn: false, .. } => "send on",
        Action::SendOn { reborn: true, .. } => "send on, reborn",
        Action::Abandon(_) => "abandon",
        Action::Purge => "purge",
    }
}
