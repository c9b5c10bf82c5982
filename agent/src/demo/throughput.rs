//! One TCP stream from a Pod on the first node to a Pod on the second, by iperf3.

use std::time::Duration;

use super::command::{Running, run};
use super::interrupt::Interrupt;
use super::world::World;
use super::{Error, Result};

/// How long the server may take to listen.
const SERVER_LIMIT: Duration = Duration::from_secs(5);

/// Gb/s that arrived, after a second of warm-up.
pub(super) fn measure(world: &World, seconds: u16, stop: &Interrupt) -> Result<f64> {
    let (client, server) = world.pair()?;
    let serving = Running::start(Some(&server.namespace), &["iperf3", "-s", "-1"], "")?;
    stop.until(SERVER_LIMIT, "iperf3 does not listen", || {
        let listening = run(stop, Some(&server.namespace), &["ss", "-Hltn", "sport = :5201"])?;
        Ok((!listening.trim().is_empty()).then_some(()))
    })?;
    let (address, time) = (server.address.to_string(), seconds.to_string());
    let said = run(stop, Some(&client.namespace), &["iperf3", "-J", "-O", "1", "-t", &time, "-c", &address])?;
    serving.finish(stop)?.ok()?;
    parse(&said).ok_or_else(|| Error::new("cannot read what iperf3 said"))
}

/// The receiver's rate in iperf3's JSON.
fn parse(said: &str) -> Option<f64> {
    let value: serde_json::Value = serde_json::from_str(said).ok()?;
    let rate = value.pointer("/end/sum_received/bits_per_second")?.as_f64()?;
    Some(rate / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_receivers_in_gigabits() {
        let said = r#"{"end":{"sum_sent":{"bits_per_second":9e9},"sum_received":{"bits_per_second":2.5e9}}}"#;
        assert_eq!(parse(said), Some(2.5));
        assert_eq!(parse(r#"{"error":"unable to connect"}"#), None);
    }
}
