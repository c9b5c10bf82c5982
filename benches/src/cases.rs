//! What is measured of a tunnel, one case after the other.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::iperf::{self, Moved};
use crate::machine::Ticks;
use crate::peers::Tunnel;
use crate::ping::ping;
use crate::world::World;
use crate::{Error, Result};

/// Above this share of stolen time a value is not trusted, percent.
pub const STEAL_LIMIT: f64 = 8.0;
/// How often a case is repeated because of stolen time.
const REPEATS: usize = 2;
/// Pings of one case.
const PINGS: usize = 500;
/// Seconds between pings.
const PING_INTERVAL: f64 = 0.004;

/// A case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// One TCP stream.
    Tcp1,
    /// Four TCP streams.
    Tcp4,
    /// One TCP stream held at 400 Mb/s: what a given load costs.
    Tcp400,
    /// UDP as fast as iperf3 can, 64 bytes of payload.
    Udp64,
    /// The same with 1200 bytes.
    Udp1200,
    /// Round trips while nothing else happens.
    Rtt,
    /// Round trips while one TCP stream fills the tunnel.
    RttLoad,
    /// Memory, after all others.
    Memory,
}

/// Every case, in the order in which they run.
pub const ALL: [(Case, &str); 8] = [
    (Case::Rtt, "rtt"),
    (Case::Tcp1, "tcp1"),
    (Case::Tcp4, "tcp4"),
    (Case::Tcp400, "tcp400"),
    (Case::RttLoad, "rtt-load"),
    (Case::Udp64, "udp64"),
    (Case::Udp1200, "udp1200"),
    (Case::Memory, "memory"),
];

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

/// Measures a case; repeats it while too much time is stolen.
///
/// # Errors
/// When a program ends or nothing comes through.
pub fn measure(case: Case, world: &World, tunnel: &mut Tunnel, seconds: f64) -> Result<Taken> {
    for _ in 0..REPEATS {
        let taken = measure_once(case, world, tunnel, seconds)?;
        if taken.clean {
            return Ok(taken);
        }
    }
    measure_once(case, world, tunnel, seconds)
}

fn measure_once(case: Case, world: &World, tunnel: &mut Tunnel, seconds: f64) -> Result<Taken> {
    let before = Ticks::now()?;
    let values = match case {
        Case::Tcp1 => tcp(world, tunnel, seconds, &[])?,
        Case::Tcp4 => tcp(world, tunnel, seconds, &["-P", "4"])?,
        Case::Tcp400 => tcp(world, tunnel, seconds, &["-b", "400M"])?,
        Case::Udp64 => udp(world, seconds, "64")?,
        Case::Udp1200 => udp(world, seconds, "1200")?,
        Case::Rtt => round_trips(world)?,
        Case::RttLoad => round_trips_under_load(world)?,
        Case::Memory => memory(tunnel)?,
    };
    for process in &mut tunnel.processes {
        process.check()?;
    }
    Ok(Taken { values, clean: Ticks::now()?.since(before).steal_percent() <= STEAL_LIMIT })
}

fn tcp(world: &World, tunnel: &Tunnel, seconds: f64, arguments: &[&str]) -> Result<Vec<Value>> {
    let (cpu, ticks) = (cpu_seconds(tunnel)?, Ticks::now()?);
    let moved = iperf::client(world, seconds, arguments)?;
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

fn udp(world: &World, seconds: f64, length: &str) -> Result<Vec<Value>> {
    let moved: Moved = iperf::client(world, seconds, &["-u", "-b", "0", "-l", length])?;
    Ok(vec![
        Value { metric: "pps", value: moved.packets_per_second() },
        Value { metric: "loss_percent", value: moved.loss },
    ])
}

fn round_trips(world: &World) -> Result<Vec<Value>> {
    let times = ping(world, PINGS, PING_INTERVAL)?;
    Ok(vec![Value { metric: "p50_us", value: times.p50 }, Value { metric: "p99_us", value: times.p99 }])
}

fn round_trips_under_load(world: &World) -> Result<Vec<Value>> {
    std::thread::scope(|scope| {
        let load = scope.spawn(|| iperf::client(world, PINGS as f64 * PING_INTERVAL + 2.0, &[]));
        // The stream needs a moment to fill the tunnel.
        std::thread::sleep(Duration::from_millis(500));
        let values = round_trips(world);
        load.join().map_err(|_| Error::new("the load panicked"))??;
        values
    })
}

fn memory(tunnel: &Tunnel) -> Result<Vec<Value>> {
    let mut peak: f64 = 0.0;
    for process in &tunnel.processes {
        peak = peak.max(process.peak_mib()?);
    }
    let value = Value { metric: "peak_rss_mib", value: peak };
    Ok(if tunnel.processes.is_empty() { Vec::new() } else { vec![value] })
}
