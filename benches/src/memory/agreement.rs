//! What it costs to agree on keys: WireGuard's handshake, and the exchange of associations. Both ends on one core.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use warren_crypto::PrivateKey;
use warren_crypto::association::{INDEX_BIT, Suite};
use warren_crypto::exchange::{Action, Chance, Exchange, Terms};
use warren_crypto::message::BUFFER_LEN;

use super::pipeline::{at_rest, shake};

/// Between two exchanges of made-up time: more than any pause.
const SPACING: Duration = Duration::from_secs(600);

/// Handshakes per second, both ends reckoned together.
pub(crate) fn handshakes_per_second(seconds: f64) -> f64 {
    let mut buffers = [vec![0; BUFFER_LEN], vec![0; BUFFER_LEN]];
    // Tunnels pace their handshakes, so each one needs new tunnels; making those is not what is measured.
    per_second(seconds, || {
        let [mut near, mut far] = at_rest();
        let began = Instant::now();
        shake(&mut near, &mut far, &mut buffers);
        began.elapsed()
    })
}

/// Exchanges per second, both ends reckoned together, with one lane each way.
pub(crate) fn exchanges_per_second(seconds: f64) -> f64 {
    let (mut ends, mut now) = (ends(), Duration::ZERO);
    per_second(seconds, || {
        now += SPACING;
        let began = Instant::now();
        exchange(&mut ends, now);
        began.elapsed()
    })
}

fn per_second(seconds: f64, mut once: impl FnMut() -> Duration) -> f64 {
    let (began, mut spent, mut count) = (Instant::now(), Duration::ZERO, 0);
    while began.elapsed().as_secs_f64() < seconds || count == 0 {
        spent += once();
        count += 1;
    }
    f64::from(count) / spent.as_secs_f64()
}

/// The initiator, then the responder.
fn ends() -> [Exchange; 2] {
    let keys = [PrivateKey::generate(), PrivateKey::generate()];
    let end = |own: usize| {
        Exchange::new(Terms {
            own: keys[own].clone(),
            peer: keys[1 - own].public_key(),
            preshared_key: None,
            boot: own as u64 + 1,
            workers: 1,
            suites: Suite::ALL.to_vec(),
        })
    };
    let [one, two] = [end(0), end(1)];
    if one.is_initiator() { [one, two] } else { [two, one] }
}

/// A whole exchange. Panics when one end does not come to send: then nothing was measured.
fn exchange(ends: &mut [Exchange; 2], now: Duration) {
    let mut dice = Dice(now.as_secs() | 1);
    let mut todo = VecDeque::from_iter(ends[0].want(now, &mut dice).map(|action| (0, action)));
    let mut sending = 0;
    while let Some((side, action)) = todo.pop_front() {
        match action {
            Action::Send(frame) => {
                let other = 1 - side;
                let actions = ends[other].take(&frame, now, &mut dice).expect("a frame that is awaited");
                todo.extend(actions.into_iter().map(|action| (other, action)));
            }
            Action::Receive(receiving) => {
                todo.extend(ends[side].installed(receiving.generation, now).map(|action| (side, action)));
            }
            Action::SendOn { .. } => sending += 1,
            Action::Abandon(_) | Action::Purge => {}
        }
    }
    assert_eq!(sending, 2, "both ends send on the new associations");
}

/// Bytes that nobody has to keep secret, since nothing is protected by them.
struct Dice(u64);

impl Chance for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0 as u8;
        }
    }

    fn index(&mut self, lane: u16) -> u32 {
        let mut random = [0; 4];
        self.fill(&mut random);
        INDEX_BIT | (u32::from_le_bytes(random) & 0x7fff_ff00) | u32::from(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_follow_one_another_to_the_end() {
        let mut ends = ends();
        (1..4).for_each(|n| exchange(&mut ends, SPACING * n));
    }

    #[test]
    fn a_rate_is_of_the_time_spent_and_not_of_what_lies_between() {
        let rate = per_second(0.0, || Duration::from_millis(4));
        assert_eq!(rate, 250.0);
    }
}
