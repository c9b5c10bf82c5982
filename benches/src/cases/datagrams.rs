//! Datagrams: a flood, and a ladder to the highest rate of which less than one percent is lost.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Value;
use crate::flood::Outcome;
use crate::peers::Tunnel;
use crate::process::{Process, output};
use crate::world::World;
use crate::{Error, Result};

/// What many Pods' DNS, RPC and voice come to.
const BURSTS: [&str; 6] = ["--length", "18", "--longest", "200", "--burst", "32"];
/// Datagrams per second.
const BURSTS_RATE: f64 = 60_000.0;
/// More than this is lost: too fast. Percent.
const LOSS_MAX: f64 = 1.0;
/// Where the ladder begins, datagrams per second.
const FIRST: f64 = 10_000.0;
/// Below this nothing is looked for.
const LEAST: f64 = 500.0;
/// Bisections after the first rate that failed; each halves the (logarithmic) interval of a factor of two: 4 %.
const BISECTIONS: usize = 4;
/// A sender that reaches less than this share of its rate is at its own end.
const SENDER_SHARE: f64 = 0.9;
/// A rate fails when it fails this often: a hiccup of the machine is not the tunnel's.
const TRIES: usize = 2;

/// About how long it takes: a flood, and a dozen rungs.
pub(super) fn estimate(seconds: f64) -> f64 {
    seconds + 12.0 * (rung_seconds(seconds) + 0.3)
}

fn rung_seconds(seconds: f64) -> f64 {
    (seconds / 5.0).clamp(0.4, 1.0)
}

pub(super) fn measure(world: &World, seconds: f64, length: u16) -> Result<Vec<Value>> {
    let program = program()?;
    let mut sink = Process::start("flood sink", world.server().command(&program).arg("sink"), None)?;
    let length = length.to_string();
    let send = |rate: Option<f64>, seconds: f64| run(world, &program, &["--length", &length], rate, seconds);
    let flood = send(None, seconds)?;
    let sustained = climb(|rate| send(Some(rate), rung_seconds(seconds)))?;
    sink.check()?;
    Ok(vec![
        Value { metric: "pps", value: flood.received_per_second() },
        Value { metric: "loss_percent", value: flood.loss_percent() },
        Value { metric: "sent_pps", value: flood.sent_per_second() },
        Value { metric: "sink_loss_percent", value: flood.overrun_percent() },
        Value { metric: "late", value: flood.arrived.late as f64 },
        Value { metric: "sustained_pps", value: sustained },
    ])
}

/// Bursts of unequal datagrams; what each costs the tunnel's ends, kernel included.
pub(super) fn bursts(world: &World, tunnel: &Tunnel, seconds: f64) -> Result<Vec<Value>> {
    let program = program()?;
    let mut sink = Process::start("flood sink", world.server().command(&program).arg("sink"), None)?;
    let cpu = || tunnel.processes.iter().map(Process::cpu_seconds).collect::<Result<Vec<_>>>();
    let before = cpu()?;
    let outcome = run(world, &program, &BURSTS, Some(BURSTS_RATE), seconds)?;
    let after = cpu()?;
    sink.check()?;
    let metrics = [("sending_ns_per_packet", outcome.sent), ("receiving_ns_per_packet", outcome.arrived.received)];
    let spent = before.iter().zip(&after).map(|(before, after)| (after - before) * 1e9);
    let mut values = vec![
        Value { metric: "sent_pps", value: outcome.sent_per_second() },
        Value { metric: "loss_percent", value: outcome.loss_percent() },
    ];
    let each = spent.zip(metrics).filter(|(_, (_, packets))| *packets > 0);
    values.extend(each.map(|(spent, (metric, packets))| Value { metric, value: spent / packets as f64 }));
    Ok(values)
}

/// The sender and the sink are built beside this program.
fn program() -> Result<String> {
    let own = std::env::current_exe().map_err(|error| Error::new(format!("cannot find this program: {error}")))?;
    let flood = own.with_file_name("flood");
    let missing = || Error::new(format!("{} is missing: cargo build --release -p warren-benches", flood.display()));
    if flood.is_file() { Ok(flood.to_string_lossy().into_owned()) } else { Err(missing()) }
}

fn run(world: &World, program: &str, what: &[&str], rate: Option<f64>, seconds: f64) -> Result<Outcome> {
    /// No two runs have one number, so that none counts what another left in a tunnel.
    static RUN: AtomicU32 = AtomicU32::new(1);
    let number = RUN.fetch_add(1, Ordering::Relaxed);
    let mut command = world.client().command(program);
    command.args(["send", world.target(), "--run", &number.to_string(), "--seconds", &seconds.to_string()]);
    command.args(what);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    let output = output(&mut command)?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| Error::new(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// The highest rate that arrives: doubled until one fails or the sender is at its end, then bisected. 0 for none.
fn climb(mut send: impl FnMut(f64) -> Result<Outcome>) -> Result<f64> {
    let (mut best, mut rate) = (0.0f64, FIRST);
    let too_fast = loop {
        match attempt(&mut send, rate)? {
            Rung::Arrives(sent) => (best, rate) = (best.max(sent), rate * 2.0),
            Rung::SenderEnds(sent) => return Ok(best.max(sent)),
            Rung::TooFast if best > 0.0 => break rate,
            Rung::TooFast if rate / 2.0 < LEAST => return Ok(0.0),
            Rung::TooFast => rate /= 2.0,
        }
        // Downwards the first that arrives is next to one that failed.
        if best > 0.0 && rate <= FIRST {
            break rate;
        }
    };
    bisect(&mut send, best, too_fast)
}

fn bisect(send: &mut impl FnMut(f64) -> Result<Outcome>, mut best: f64, mut too_fast: f64) -> Result<f64> {
    for _ in 0..BISECTIONS {
        let middle = (best * too_fast).sqrt();
        match attempt(send, middle)? {
            Rung::Arrives(sent) => best = best.max(sent),
            Rung::SenderEnds(sent) => return Ok(best.max(sent)),
            Rung::TooFast => too_fast = middle,
        }
    }
    Ok(best)
}

/// What a rate came to.
enum Rung {
    /// With the rate that was really sent.
    Arrives(f64),
    /// It arrives, but the sender could not send as much as it should.
    SenderEnds(f64),
    TooFast,
}

fn attempt(send: &mut impl FnMut(f64) -> Result<Outcome>, rate: f64) -> Result<Rung> {
    for _ in 0..TRIES {
        let outcome = send(rate)?;
        let sent = outcome.sent_per_second();
        if outcome.loss_percent() < LOSS_MAX {
            return Ok(if sent < SENDER_SHARE * rate { Rung::SenderEnds(sent) } else { Rung::Arrives(sent) });
        }
    }
    Ok(Rung::TooFast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flood::Arrived;

    /// A path that loses everything above `limit`, and a sender that ends at `most`.
    fn path(limit: f64, most: f64) -> impl FnMut(f64) -> Result<Outcome> {
        move |rate| {
            let sent = rate.min(most);
            let arrived = Arrived { received: sent.min(limit) as u64, ..Arrived::default() };
            Ok(Outcome { sent: sent as u64, seconds: 1.0, arrived })
        }
    }

    #[test]
    fn the_ladder_ends_within_five_percent_below_what_the_path_carries() {
        for limit in [700.0, 4_000.0, 9_000.0, 15_000.0, 39_000.0, 160_000.0, 1.5e6] {
            let found = climb(path(limit, 1e9)).unwrap();
            assert!((0.95 * limit..=1.011 * limit).contains(&found), "{limit}: {found}");
        }
    }

    #[test]
    fn a_sender_at_its_end_ends_the_ladder() {
        let found = climb(path(1e9, 300_000.0)).unwrap();
        assert_eq!(found, 300_000.0);
    }

    #[test]
    fn a_path_that_carries_next_to_nothing_has_no_rate() {
        assert_eq!(climb(path(20.0, 1e9)).unwrap(), 0.0);
    }

    #[test]
    fn one_hiccup_does_not_end_the_ladder() {
        let mut calls = 0;
        let mut clean = path(50_000.0, 1e9);
        let found = climb(|rate| {
            calls += 1;
            let mut outcome = clean(rate)?;
            if calls == 1 {
                outcome.arrived.received /= 2;
            }
            Ok(outcome)
        });
        assert!(found.unwrap() > 47_000.0);
    }
}
