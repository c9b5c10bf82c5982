//! Round trips, each one kept.

use crate::process::output;
use crate::results::percentile;
use crate::world::World;
use crate::{Error, Result};

/// Median and 99th percentile, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundTrips {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Sends `count` pings, one each `interval` seconds.
///
/// # Errors
/// When fewer than half come back.
pub fn ping(world: &World, count: usize, interval: f64) -> Result<RoundTrips> {
    let mut command = world.client().command("ping");
    command.args(["-n", "-W", "1", "-c", &count.to_string(), "-i", &interval.to_string(), world.target()]);
    let output = output(&mut command)?;
    let mut times = read(&String::from_utf8_lossy(&output.stdout));
    if times.len() * 2 < count {
        return Err(Error::new(format!("ping: only {} of {count} came back", times.len())));
    }
    times.sort_by(f64::total_cmp);
    Ok(RoundTrips { p50: percentile(&times, 0.50), p99: percentile(&times, 0.99) })
}

/// Microseconds of every `time=0.123 ms`.
fn read(text: &str) -> Vec<f64> {
    let time = |line: &str| line.split("time=").nth(1)?.split_whitespace().next()?.parse::<f64>().ok();
    text.lines().filter_map(time).map(|ms| ms * 1000.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_counts_and_nothing_else() {
        let text = "PING 10.88.0.2\n64 bytes from 10.88.0.2: icmp_seq=1 ttl=64 time=0.250 ms\n\
                    64 bytes from 10.88.0.2: icmp_seq=2 ttl=64 time=12.5 ms (DUP!)\n--- statistics ---\n";
        assert_eq!(read(text), [250.0, 12_500.0]);
    }
}
