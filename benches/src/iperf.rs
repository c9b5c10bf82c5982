//! iperf3: a server that stays, and clients whose JSON report is read.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::netns::Namespace;
use crate::process::{Process, output};
use crate::world::World;
use crate::{Error, Result, interrupt};

/// How long the server may take to listen.
const SERVER_LIMIT: Duration = Duration::from_secs(3);

/// A server in a namespace.
///
/// # Errors
/// Without iperf3.
pub fn server(namespace: &Namespace) -> Result<Process> {
    Process::start("iperf3", namespace.command("iperf3").arg("-s"), None)
}

/// What a server says that is not done with an earlier client.
const BUSY: &str = "the server is busy";

/// What one client run moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moved {
    /// Received payload, bytes.
    pub bytes: f64,
    /// Over how long, seconds.
    pub seconds: f64,
    /// Received datagrams (UDP).
    pub packets: f64,
    /// Lost datagrams (UDP), percent.
    pub loss: f64,
}

impl Moved {
    /// Received gigabits per second.
    pub fn gbps(&self) -> f64 {
        8.0 * self.bytes / self.seconds / 1e9
    }

    /// Received datagrams per second.
    pub fn packets_per_second(&self) -> f64 {
        self.packets / self.seconds
    }
}

/// Runs the world's client for `seconds` with further arguments.
///
/// # Errors
/// When iperf3 reports an error or nothing arrived.
pub fn client(world: &World, seconds: f64, arguments: &[&str]) -> Result<Moved> {
    between(world.client(), world.target(), seconds, arguments)
}

/// Runs a client in a namespace against the server at an address; waits while the server still ends an earlier test.
///
/// # Errors
/// When iperf3 reports an error or nothing arrived.
pub fn between(from: &Namespace, to: &str, seconds: f64, arguments: &[&str]) -> Result<Moved> {
    let limit = Instant::now() + SERVER_LIMIT;
    loop {
        let report = report(from, to, seconds, arguments)?;
        match report.get("error").and_then(Value::as_str) {
            None => return read(&report).ok_or_else(|| Error::new("iperf3: nothing arrived")),
            Some(error) if error.contains(BUSY) && Instant::now() < limit => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Some(error) => return Err(Error::new(format!("iperf3: {error}"))),
        }
    }
}

fn report(from: &Namespace, to: &str, seconds: f64, arguments: &[&str]) -> Result<Value> {
    let whole = format!("{}", seconds.ceil().max(1.0));
    let mut command = from.command("iperf3");
    command.args(["-c", to, "-J", "-t", &whole, "--connect-timeout", "2000"]).args(arguments);
    let output = output(&mut command)?;
    serde_json::from_slice(&output.stdout).map_err(|error| Error::new(format!("iperf3 printed no JSON: {error}")))
}

fn read(report: &Value) -> Option<Moved> {
    let end = report.get("end")?;
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64);
    // UDP has one sum: the sender's time and bytes, the receiver's losses.
    let moved = match end.get("sum").filter(|sum| sum.get("lost_packets").is_some()) {
        Some(sum) => {
            let (all, lost) = (number(sum, "packets")?, number(sum, "lost_packets")?);
            let share = if all > 0.0 { lost / all } else { 1.0 };
            let bytes = number(sum, "bytes")? * (1.0 - share);
            Moved { bytes, seconds: number(sum, "seconds")?, packets: all - lost, loss: 100.0 * share }
        }
        None => {
            let sum = end.get("sum_received")?;
            Moved { bytes: number(sum, "bytes")?, seconds: number(sum, "seconds")?, packets: 0.0, loss: 0.0 }
        }
    };
    (moved.bytes > 0.0 && moved.seconds > 0.0).then_some(moved)
}

/// Sends for a moment until windows and caches are warm; also waits for the server.
///
/// # Errors
/// When the server does not answer in time.
pub fn warm_up(from: &Namespace, to: &str, seconds: f64) -> Result<()> {
    let limit = Instant::now() + SERVER_LIMIT;
    loop {
        interrupt::check()?;
        match between(from, to, seconds, &[]) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > limit => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tcp_counts_what_was_received() {
        let report = json!({"end": {"sum_sent": {"bytes": 9e9, "seconds": 2.0}, "sum_received": {"bytes": 5e9, "seconds": 2.0}}});
        assert_eq!(read(&report).unwrap().gbps(), 20.0);
    }

    #[test]
    fn udp_counts_what_was_not_lost() {
        let report = json!({"end": {"sum": {"bytes": 6400, "seconds": 2.0, "packets": 100, "lost_packets": 25}}});
        let moved = read(&report).unwrap();
        assert_eq!((moved.packets_per_second(), moved.loss, moved.bytes), (37.5, 25.0, 4800.0));
    }

    #[test]
    fn a_run_in_which_nothing_arrived_is_no_measurement() {
        let report = json!({"end": {"sum": {"bytes": 6400, "seconds": 2.0, "packets": 100, "lost_packets": 100}}});
        assert_eq!(read(&report), None);
    }
}
