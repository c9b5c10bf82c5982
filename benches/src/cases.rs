//! What is measured of a tunnel, one case after the other.

mod datagrams;
mod hub;
mod idle;
mod real;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::iperf::{self, Moved};
use crate::machine::Ticks;
use crate::peers::{Peer, Tunnel};
use crate::ping::ping;
use crate::process::Process;
use crate::world::World;
use crate::{Error, Result, memory};

/// Above this share of stolen time a value is not trusted, percent.
pub const STEAL_LIMIT: f64 = 8.0;
/// How often a case is repeated because of stolen time.
const REPEATS: usize = 2;
/// Least pings of one case.
const PINGS_MIN: usize = 500;
/// Seconds between pings.
const PING_INTERVAL: f64 = 0.004;

/// A case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// Round trips while nothing else happens.
    Rtt,
    /// One TCP stream.
    Tcp1,
    /// Four TCP streams.
    Tcp4,
    /// Eight TCP streams.
    Tcp8,
    /// Thirty-two TCP streams.
    Tcp32,
    /// One TCP stream held at 400 Mb/s: what a given load costs.
    Cpu400,
    /// Round trips while one TCP stream fills the tunnel.
    RttLoad,
    /// Datagrams of 64 bytes: a flood, and the highest rate that arrives.
    Udp64,
    /// The same with 1200 bytes.
    Udp1200,
    /// 60,000 datagrams a second of 18 to 200 bytes, 32 at once: what each costs.
    Bursts,
    /// iperf3's own flood of 64 bytes.
    Iperf64,
    /// The same with 1200 bytes.
    Iperf1200,
    /// Resident memory, after all others.
    Rss,
    /// A hub with 32 nodes around it, one TCP stream to each.
    Hub32,
    /// Memory with 0, 1,000 and 5,000 peers that are never heard of.
    IdlePeers,
    /// Memory of a hub with 1 and 32 real nodes around it that are quiet.
    RealPeers,
    /// Cut, seal, open, join, in memory.
    Pipeline,
    /// WireGuard handshakes, in memory.
    Handshakes,
    /// Exchanges of associations, in memory.
    Exchanges,
    /// From 5,000 records to a forwarding table, in memory.
    Reconcile,
}

/// Every case, in the order in which they run.
pub const ALL: [(Case, &str); 20] = [
    (Case::Rtt, "rtt"),
    (Case::Tcp1, "tcp1"),
    (Case::Tcp4, "tcp4"),
    (Case::Tcp8, "tcp8"),
    (Case::Tcp32, "tcp32"),
    (Case::Cpu400, "cpu400"),
    (Case::RttLoad, "rttload"),
    (Case::Udp64, "udp64"),
    (Case::Udp1200, "udp1200"),
    (Case::Bursts, "bursts"),
    (Case::Iperf64, "iperf64"),
    (Case::Iperf1200, "iperf1200"),
    (Case::Rss, "rss"),
    (Case::Hub32, "hub32"),
    (Case::IdlePeers, "idle-peers"),
    (Case::RealPeers, "real-peers"),
    (Case::Pipeline, "pipeline"),
    (Case::Handshakes, "handshakes"),
    (Case::Exchanges, "exchanges"),
    (Case::Reconcile, "reconcile"),
];

/// What a case happens in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Two nodes, shared by the cases of a visit.
    Pair,
    /// A world of its own.
    Own,
    /// This process.
    Memory,
}

impl Case {
    /// What it happens in.
    pub fn setting(self) -> Setting {
        match self {
            Self::Hub32 | Self::IdlePeers | Self::RealPeers => Setting::Own,
            Self::Pipeline | Self::Handshakes | Self::Exchanges | Self::Reconcile => Setting::Memory,
            _ => Setting::Pair,
        }
    }

    /// True when this peer has an answer to it.
    pub fn suits(self, peer: &Peer) -> bool {
        match self {
            Self::Hub32 => peer.has_many_peers(),
            Self::IdlePeers => peer.keeps_peers(),
            Self::RealPeers => peer.keeps_peers() && peer.has_many_peers(),
            _ => true,
        }
    }

    /// About how long it takes where measurements take `seconds`, without repeats.
    pub fn estimate(self, seconds: f64) -> f64 {
        match self {
            Self::Rtt => seconds,
            Self::RttLoad => seconds + 2.5,
            Self::Udp64 | Self::Udp1200 => datagrams::estimate(seconds),
            Self::Rss => 0.0,
            Self::Hub32 => hub::estimate(seconds),
            Self::IdlePeers => idle::ESTIMATE,
            Self::RealPeers => real::ESTIMATE,
            Self::Pipeline => memory::pipeline::estimate(seconds),
            Self::Handshakes | Self::Exchanges => seconds,
            Self::Reconcile => 2.0,
            _ => seconds + 0.3,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ALL.iter().find(|(case, _)| case == self).map_or("", |(_, name)| name);
        f.pad(name)
    }
}

impl FromStr for Case {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let names = || ALL.map(|(_, name)| name).join(", ");
        let found = ALL.iter().find(|(_, name)| *name == text).map(|(case, _)| *case);
        found.ok_or_else(|| Error::new(format!("no case `{text}`: {}", names())))
    }
}

/// One value of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// As in the output.
    pub metric: &'static str,
    /// In the unit that the metric's name ends with.
    pub value: f64,
}

/// The values of a case, and whether the hypervisor left them alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// The values.
    pub values: Vec<Value>,
    /// Below [`STEAL_LIMIT`].
    pub clean: bool,
}

/// Measures a case between two nodes; repeats it while too much time is stolen.
///
/// # Errors
/// When a program ends or nothing comes through.
pub fn measure(case: Case, world: &World, tunnel: &mut Tunnel, seconds: f64) -> Result<Taken> {
    watched(|| {
        let values = between_two(case, world, tunnel, seconds)?;
        tunnel.processes.iter_mut().try_for_each(Process::check)?;
        Ok(values)
    })
}

/// Measures a case that makes its own worlds; repeats it while too much time is stolen.
///
/// # Errors
/// When a program ends or nothing comes through.
pub fn measure_apart(case: Case, peer: &Peer, mtu: u16, seconds: f64) -> Result<Taken> {
    watched(|| match case {
        Case::Hub32 => hub::measure(peer, mtu, seconds),
        Case::IdlePeers => idle::measure(peer, mtu),
        Case::RealPeers => real::measure(peer, mtu),
        _ => Err(Error::new(format!("{case} needs no world of its own"))),
    })
}

/// Measures a case inside this process; gives the values of each peer that it is about.
///
/// # Errors
/// When time cannot be read.
pub fn measure_here(case: Case, seconds: f64) -> Result<Vec<(&'static str, Taken)>> {
    let measure = |of| watched(|| Ok(memory::measure(case, of, seconds)));
    memory::peers(case).iter().map(|name| Ok((*name, measure(*name)?))).collect()
}

fn watched(mut once: impl FnMut() -> Result<Vec<Value>>) -> Result<Taken> {
    for _ in 0..REPEATS {
        let taken = watched_once(&mut once)?;
        if taken.clean {
            return Ok(taken);
        }
    }
    watched_once(&mut once)
}

fn watched_once(once: &mut impl FnMut() -> Result<Vec<Value>>) -> Result<Taken> {
    let before = Ticks::now()?;
    let values = once()?;
    Ok(Taken { values, clean: Ticks::now()?.since(before).steal_percent() <= STEAL_LIMIT })
}

fn between_two(case: Case, world: &World, tunnel: &Tunnel, seconds: f64) -> Result<Vec<Value>> {
    match case {
        Case::Tcp1 => tcp(world, tunnel, seconds, &[]),
        Case::Tcp4 => tcp(world, tunnel, seconds, &["-P", "4"]),
        Case::Tcp8 => tcp(world, tunnel, seconds, &["-P", "8"]),
        Case::Tcp32 => tcp(world, tunnel, seconds, &["-P", "32"]),
        Case::Cpu400 => tcp(world, tunnel, seconds, &["-b", "400M"]),
        Case::Udp64 => datagrams::measure(world, seconds, 64),
        Case::Udp1200 => datagrams::measure(world, seconds, 1200),
        Case::Bursts => datagrams::bursts(world, tunnel, seconds),
        Case::Iperf64 => iperf_udp(world, seconds, "64"),
        Case::Iperf1200 => iperf_udp(world, seconds, "1200"),
        Case::Rtt => round_trips(world, seconds),
        Case::RttLoad => round_trips_under_load(world, seconds),
        Case::Rss => resident(tunnel),
        _ => Err(Error::new(format!("{case} is not measured between two nodes"))),
    }
}

fn tcp(world: &World, tunnel: &Tunnel, seconds: f64, arguments: &[&str]) -> Result<Vec<Value>> {
    costed(tunnel, || iperf::client(world, seconds, arguments))
}

/// Throughput, and what it cost the tunnel and the machine.
fn costed(tunnel: &Tunnel, transfer: impl FnOnce() -> Result<Moved>) -> Result<Vec<Value>> {
    let (cpu, ticks) = (cpu_seconds(tunnel)?, Ticks::now()?);
    let moved = transfer()?;
    let (cpu, busy) = (cpu_seconds(tunnel)? - cpu, Ticks::now()?.since(ticks).busy_seconds());
    let per_gb = |seconds: f64| seconds / (moved.bytes / 1e9);
    let mut values = vec![
        Value { metric: "gbps", value: moved.gbps() },
        Value { metric: "machine_cpu_s_per_gb", value: per_gb(busy) },
    ];
    if !tunnel.processes.is_empty() {
        values.push(Value { metric: "cpu_s_per_gb", value: per_gb(cpu) });
    }
    Ok(values)
}

fn cpu_seconds(tunnel: &Tunnel) -> Result<f64> {
    tunnel.processes.iter().map(|process| process.cpu_seconds()).sum()
}

fn iperf_udp(world: &World, seconds: f64, length: &str) -> Result<Vec<Value>> {
    let moved: Moved = iperf::client(world, seconds, &["-u", "-b", "0", "-l", length])?;
    Ok(vec![
        Value { metric: "pps", value: moved.packets_per_second() },
        Value { metric: "loss_percent", value: moved.loss },
    ])
}

fn round_trips(world: &World, seconds: f64) -> Result<Vec<Value>> {
    let times = ping(world, pings(seconds), PING_INTERVAL)?;
    Ok(vec![Value { metric: "p50_us", value: times.p50 }, Value { metric: "p99_us", value: times.p99 }])
}

/// As many as fit, but enough that a 99th percentile means something.
fn pings(seconds: f64) -> usize {
    ((seconds / PING_INTERVAL) as usize).max(PINGS_MIN)
}

fn round_trips_under_load(world: &World, seconds: f64) -> Result<Vec<Value>> {
    std::thread::scope(|scope| {
        let load = scope.spawn(|| iperf::client(world, pings(seconds) as f64 * PING_INTERVAL + 2.0, &[]));
        // The stream needs a moment to fill the tunnel.
        std::thread::sleep(Duration::from_millis(500));
        let values = round_trips(world, seconds);
        let moved = load.join().map_err(|_| Error::new("the load panicked"))??;
        // A short round trip under a load that does not flow is none.
        Ok([values?, vec![Value { metric: "load_gbps", value: moved.gbps() }]].concat())
    })
}

fn resident(tunnel: &Tunnel) -> Result<Vec<Value>> {
    let mut peak: f64 = 0.0;
    for process in &tunnel.processes {
        peak = peak.max(process.peak_mib()?);
    }
    let value = Value { metric: "peak_rss_mib", value: peak };
    Ok(if tunnel.processes.is_empty() { Vec::new() } else { vec![value] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_listed_once_and_reads_as_it_is_written() {
        for (case, name) in ALL {
            assert_eq!(name.parse::<Case>().unwrap(), case);
            assert_eq!(case.to_string(), name);
        }
        let said = "tcp3".parse::<Case>().unwrap_err().to_string();
        assert!(said.contains("no case `tcp3`") && said.contains("rttload"), "{said}");
    }

    #[test]
    fn a_short_run_still_has_pings_for_a_percentile() {
        assert_eq!((pings(0.5), pings(5.0)), (PINGS_MIN, 1250));
    }
}
