//! Pings from every Pod to every Pod on another node, all at once.

use serde::Serialize;

use super::capture::CANARY;
use super::command::Running;
use super::interrupt::Interrupt;
use super::world::{Pod, World};
use super::{Error, Result};

/// Echo requests per pair.
const COUNT: u32 = 3;

/// Echo requests sent, and replies that came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Pings {
    /// Requests.
    pub(super) sent: u64,
    /// Replies.
    pub(super) received: u64,
}

/// Pings across every pair of Pods on different nodes, in both directions.
pub(super) fn all(world: &World, stop: &Interrupt) -> Result<Pings> {
    let pairs = world.pods.iter().flat_map(|from| world.pods.iter().map(move |to| (from, to)));
    pings(pairs.filter(|(from, to)| from.node != to.node), stop)
}

/// Pings one Pod from another.
pub(super) fn one(from: &Pod, to: &Pod, stop: &Interrupt) -> Result<Pings> {
    pings(std::iter::once((from, to)), stop)
}

fn pings<'a>(pairs: impl Iterator<Item = (&'a Pod, &'a Pod)>, stop: &Interrupt) -> Result<Pings> {
    let running: Result<Vec<Running>> = pairs.map(|(from, to)| start(from, to)).collect();
    let mut total = Pings::default();
    for ping in running? {
        // Its exit code says whether replies came; the count says more.
        let said = ping.finish(stop)?.stdout;
        let one = parse(&said).ok_or_else(|| Error::new(format!("cannot read what ping said: {said}")))?;
        total.sent += one.sent;
        total.received += one.received;
    }
    Ok(total)
}

fn start(from: &Pod, to: &Pod) -> Result<Running> {
    let (count, pattern): (_, String) = (COUNT.to_string(), CANARY.iter().map(|byte| format!("{byte:02x}")).collect());
    let to = to.address.to_string();
    Running::start(
        Some(&from.namespace),
        &["ping", "-n", "-q", "-i", "0.2", "-W", "1", "-c", &count, "-p", &pattern, &to],
        "",
    )
}

/// Reads `3 packets transmitted, 2 received, …`.
fn parse(said: &str) -> Option<Pings> {
    let line = said.lines().find(|line| line.contains("packets transmitted"))?;
    let mut parts = line.split(", ");
    let mut number = || parts.next()?.split(' ').next()?.parse().ok();
    Some(Pings { sent: number()?, received: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_ping_is_read_with_and_without_errors() {
        let lost = "PING 10.0.0.1\n\n--- statistics ---\n3 packets transmitted, 1 received, +2 errors, 66% packet loss, time 400ms\n";
        assert_eq!(parse(lost), Some(Pings { sent: 3, received: 1 }));
        assert_eq!(parse("ping: unknown host"), None);
    }
}
