//! What a peer costs that is configured and never heard of: resident memory of one end with 0, 1,000 and 5,000 of them.

use std::thread;
use std::time::{Duration, Instant};

use super::Value;
use crate::peers::{Peer, Tunnel};
use crate::process::Process;
use crate::world::{Topology, World};
use crate::{Error, Result, interrupt};

/// How many, and the metrics: memory, and the part of one more peer.
const COUNTS: [(usize, &str, &str); 2] =
    [(1000, "rss_mib_1000", "bytes_per_peer_1000"), (5000, "rss_mib_5000", "bytes_per_peer_5000")];
/// About how long it takes, seconds.
pub(super) const ESTIMATE: f64 = 20.0;
/// Memory that stays the same so long, to a hundredth, has settled.
const SETTLED: Duration = Duration::from_secs(2);
/// The longest wait for that.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn measure(peer: &Peer, mtu: u16) -> Result<Vec<Value>> {
    let without = resident(peer, mtu, 0)?;
    let mut values = vec![Value { metric: "rss_mib_0", value: without }];
    for (count, memory, each) in COUNTS {
        let with = resident(peer, mtu, count)?;
        let bytes = (with - without) * f64::from(1 << 20) / count as f64;
        values.extend([Value { metric: memory, value: with }, Value { metric: each, value: bytes }]);
    }
    Ok(values)
}

/// Memory of node 1 with one real peer and so many made-up ones, MiB.
fn resident(peer: &Peer, mtu: u16, strangers: usize) -> Result<f64> {
    let mut world = World::build(Topology::Nodes, mtu, peer.mtu(mtu))?;
    world.strangers = strangers;
    let mut tunnel = peer.start(&world)?;
    settle(first(&mut tunnel)?)
}

/// The process of node 1.
pub(super) fn first(tunnel: &mut Tunnel) -> Result<&mut Process> {
    tunnel.processes.first_mut().ok_or_else(|| Error::new("the kernel's own tunnels have no memory to look at"))
}

/// Waits until a process' memory stays as it is; MiB.
pub(super) fn settle(process: &mut Process) -> Result<f64> {
    let limit = Instant::now() + PATIENCE;
    let (mut memory, mut since) = (process.resident_mib()?, Instant::now());
    while since.elapsed() < SETTLED && Instant::now() < limit {
        interrupt::check()?;
        process.check()?;
        thread::sleep(Duration::from_millis(50));
        let now = process.resident_mib()?;
        if (now - memory).abs() > 0.01 * memory {
            (memory, since) = (now, Instant::now());
        }
    }
    process.resident_mib()
}
