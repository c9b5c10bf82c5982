//! The order of things: run by run, place by place, peer by peer, so that a slow hour of the machine falls on all alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cases::{self, Case};
use crate::machine::{self, Awake};
use crate::peers::Peer;
use crate::results::Results;
use crate::world::{Topology, World};
use crate::{Error, Result, interrupt, iperf, plot, report, world};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The peers that are here.
    pub peers: Vec<Peer>,
    /// Those that are not.
    pub absent: Vec<String>,
    /// Cases.
    pub cases: Vec<Case>,
    /// Topologies.
    pub topologies: Vec<Topology>,
    /// Underlay MTUs.
    pub mtus: Vec<u16>,
    /// Interleaved runs.
    pub runs: usize,
    /// Length of each measurement, seconds.
    pub seconds: f64,
    /// Length of the warm-up, seconds.
    pub warm_up: f64,
    /// Where the results go.
    pub out: PathBuf,
    /// Says each value as it comes.
    pub say: fn(&str),
}

impl Plan {
    /// Measures everything and writes the results. Gives the Markdown.
    ///
    /// # Errors
    /// Without root, or when interrupted; a peer that fails is noted in the results instead.
    pub fn run(&self) -> Result<String> {
        world::sweep()?;
        let (awake, started) = (Awake::start()?, Instant::now());
        let mut results = Results::default();
        for run in 0..self.runs {
            for &topology in &self.topologies {
                for &mtu in &self.mtus {
                    // Another peer goes first in each run.
                    for place in 0..self.peers.len() {
                        let peer = &self.peers[(run + place) % self.peers.len()];
                        self.visit(&mut results, peer, topology, mtu, run)?;
                    }
                }
            }
        }
        drop(awake);
        (self.say)(&format!("{} s", started.elapsed().as_secs()));
        self.write(&results)
    }

    /// One run of one peer in one place; only an interruption is an error.
    fn visit(&self, results: &mut Results, peer: &Peer, topology: Topology, mtu: u16, run: usize) -> Result<()> {
        if let Err(error) = self.measure(results, peer, topology, mtu, run) {
            interrupt::check()?;
            let failure = format!("{} ({topology}, MTU {mtu}, run {}): {error}", peer.name, run + 1);
            (self.say)(&format!("failed: {failure}"));
            results.failures.push(failure);
        }
        Ok(())
    }

    fn measure(&self, results: &mut Results, peer: &Peer, topology: Topology, mtu: u16, run: usize) -> Result<()> {
        let world = World::build(topology, mtu, peer.mtu(mtu))?;
        let mut tunnel = peer.start(&world)?;
        let server = iperf::server(&world)?;
        iperf::warm_up(&world, self.warm_up)?;
        for &case in &self.cases {
            let taken = cases::measure(case, &world, &mut tunnel, self.seconds)?;
            results.add(topology, mtu, peer.name, case, &taken);
            let values: Vec<_> =
                taken.values.iter().map(|value| format!("{} {:.4}", value.metric, value.value)).collect();
            let note = if taken.clean { "" } else { " (stolen time)" };
            let name = peer.name;
            (self.say)(&format!("run {} {topology} {mtu} {name:13} {case:9} {}{note}", run + 1, values.join(", ")));
        }
        drop(server);
        Ok(())
    }

    fn write(&self, results: &Results) -> Result<String> {
        fs::create_dir_all(&self.out).map_err(|error| cannot_write(&self.out, &error))?;
        let lines: Vec<_> = results.lines().iter().filter_map(|line| serde_json::to_string(line).ok()).collect();
        let markdown = report::markdown(results, &self.peers, &self.absent, &machine::describe());
        let files = [
            ("results.jsonl", lines.join("\n") + "\n"),
            ("results.md", markdown.clone()),
            ("results.svg", plot::svg(results)),
        ];
        for (name, text) in files {
            let path = self.out.join(name);
            fs::write(&path, text).map_err(|error| cannot_write(&path, &error))?;
        }
        Ok(markdown)
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    Error::new(format!("cannot write {}: {error}", path.display()))
}
