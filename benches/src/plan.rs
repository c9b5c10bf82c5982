//! The order of things: run by run, place by place, peer by peer, so that a slow hour of the machine falls on all alike.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cases::{self, Case, Setting, Taken};
use crate::machine::{self, Awake};
use crate::peers::Peer;
use crate::results::Results;
use crate::world::{Topology, World};
use crate::{Error, Result, interrupt, iperf, plot, report, rows, world};

/// Namespaces, tunnels and iperf3 of one visit, seconds.
const VISIT: f64 = 1.2;
/// The underlay that the packets in memory are made for.
const MEMORY_MTU: u16 = 1500;

/// One run of one peer in one place.
struct Visit<'a> {
    peer: &'a Peer,
    topology: Topology,
    mtu: u16,
    run: usize,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The peers that are here.
    pub peers: Vec<Peer>,
    /// Those that are not.
    pub absent: Vec<String>,
    /// Cases.
    pub cases: Vec<Case>,
    /// Of each peer only the cases that a bar speaks of.
    pub only_bars: bool,
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
        (self.say)(&self.announcement());
        let (awake, started) = (Awake::start()?, Instant::now());
        let mut results = Results::default();
        for run in 0..self.runs {
            self.here(&mut results, run)?;
            for (topology, mtu) in self.places() {
                // Another peer goes first in each run.
                for place in 0..self.peers.len() {
                    let peer = &self.peers[(run + place) % self.peers.len()];
                    self.visit(&mut results, Visit { peer, topology, mtu, run })?;
                }
            }
        }
        drop(awake);
        (self.say)(&format!("{} s", started.elapsed().as_secs()));
        self.write(&results)
    }

    fn places(&self) -> Vec<(Topology, u16)> {
        let with_mtus = |topology: &Topology| self.mtus.iter().map(|mtu| (*topology, *mtu)).collect::<Vec<_>>();
        self.topologies.iter().flat_map(with_mtus).collect()
    }

    fn in_setting(&self, setting: Setting) -> impl Iterator<Item = Case> + '_ {
        self.cases.iter().copied().filter(move |case| case.setting() == setting)
    }

    fn wants(&self, peer: &Peer, case: Case) -> bool {
        !self.only_bars || rows::has_bar(peer.name, case)
    }

    /// Cases that happen between two nodes or their Pods.
    fn between(&self, peer: &Peer) -> Vec<Case> {
        self.in_setting(Setting::Pair).filter(|case| self.wants(peer, *case)).collect()
    }

    /// Cases with worlds of their own happen between nodes, whatever topologies are wanted: once for each MTU.
    fn apart(&self, visit: &Visit<'_>) -> Vec<Case> {
        let first = self.topologies.first() == Some(&visit.topology);
        let wanted = |case: &Case| first && case.suits(visit.peer) && self.wants(visit.peer, *case);
        self.in_setting(Setting::Own).filter(wanted).collect()
    }

    /// What will be done, and about how long it takes without repeats.
    pub fn announcement(&self) -> String {
        let seconds = self.estimate();
        let long = if seconds < 120.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) };
        let (peers, cases) = (self.peers.len(), self.cases.iter().collect::<BTreeSet<_>>().len());
        format!("{cases} cases, {peers} peers, {} runs: about {long}, more where time is stolen", self.runs)
    }

    /// Seconds.
    fn estimate(&self) -> f64 {
        let cost = |case: Case| case.estimate(self.seconds);
        let visit = |visit: Visit<'_>| {
            let pair: f64 = self.between(visit.peer).into_iter().map(cost).sum();
            let shared = if pair > 0.0 { VISIT + self.warm_up + pair } else { 0.0 };
            shared + self.apart(&visit).into_iter().map(cost).sum::<f64>()
        };
        let visits = self.places().into_iter().flat_map(|(topology, mtu)| {
            self.peers.iter().map(move |peer| visit(Visit { peer, topology, mtu, run: 0 }))
        });
        self.runs as f64 * (visits.sum::<f64>() + self.in_setting(Setting::Memory).map(cost).sum::<f64>())
    }

    /// What needs no world.
    fn here(&self, results: &mut Results, run: usize) -> Result<()> {
        for case in self.in_setting(Setting::Memory) {
            for (name, taken) in cases::measure_here(case, self.seconds)? {
                interrupt::check()?;
                self.take(results, (Topology::Memory, MEMORY_MTU, name, run), case, &taken);
            }
        }
        Ok(())
    }

    /// One run of one peer in one place; only an interruption is an error.
    fn visit(&self, results: &mut Results, visit: Visit<'_>) -> Result<()> {
        let pair = self.between(visit.peer);
        if !pair.is_empty() {
            let outcome = self.measure(results, &visit, &pair);
            self.note(results, &visit, "", outcome)?;
        }
        for case in self.apart(&visit) {
            let outcome = cases::measure_apart(case, visit.peer, visit.mtu, self.seconds).map(|taken| {
                self.take(results, (Topology::Nodes, visit.mtu, visit.peer.name, visit.run), case, &taken)
            });
            self.note(results, &visit, &format!(", {case}"), outcome)?;
        }
        Ok(())
    }

    fn note(&self, results: &mut Results, visit: &Visit<'_>, case: &str, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        interrupt::check()?;
        let Visit { peer, topology, mtu, run } = visit;
        let failure = format!("{} ({topology}, MTU {mtu}, run {}{case}): {error}", peer.name, run + 1);
        (self.say)(&format!("failed: {failure}"));
        results.failures.push(failure);
        Ok(())
    }

    fn measure(&self, results: &mut Results, visit: &Visit<'_>, pair: &[Case]) -> Result<()> {
        let Visit { peer, topology, mtu, run } = *visit;
        let world = World::build(topology, mtu, peer.mtu(mtu))?;
        let mut tunnel = peer.start(&world)?;
        let server = iperf::server(world.server())?;
        iperf::warm_up(world.client(), world.target(), self.warm_up)?;
        for &case in pair {
            let taken = cases::measure(case, &world, &mut tunnel, self.seconds)?;
            self.take(results, (topology, mtu, peer.name, run), case, &taken);
        }
        drop(server);
        Ok(())
    }

    fn take(
        &self,
        results: &mut Results,
        (topology, mtu, peer, run): (Topology, u16, &'static str, usize),
        case: Case,
        taken: &Taken,
    ) {
        results.add(topology, mtu, peer, case, taken);
        let values: Vec<_> = taken.values.iter().map(|value| format!("{} {:.4}", value.metric, value.value)).collect();
        let note = if taken.clean { "" } else { " (stolen time)" };
        (self.say)(&format!("run {} {topology} {mtu} {peer:13} {case:9} {}{note}", run + 1, values.join(", ")));
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
