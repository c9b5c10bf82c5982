//! A node in the middle of 32 others, with one TCP stream to each at once.

use std::thread;
use std::time::Instant;

use super::{Value, costed};
use crate::iperf::{self, Moved};
use crate::peers::Peer;
use crate::world::World;
use crate::{Error, Result};

/// Nodes around the hub.
pub(super) const SPOKES: u8 = 32;

/// About how long it takes: 33 namespaces and tunnels, then the streams.
pub(super) fn estimate(seconds: f64) -> f64 {
    seconds + 10.0
}

pub(super) fn measure(peer: &Peer, mtu: u16, seconds: f64) -> Result<Vec<Value>> {
    let world = World::star(mtu, peer.mtu(mtu), SPOKES)?;
    let mut tunnel = peer.start(&world)?;
    let spokes: Vec<u8> = world.numbers().skip(1).collect();
    let servers = spokes.iter().map(|spoke| iperf::server(world.node(*spoke))).collect::<Result<Vec<_>>>()?;
    all_at_once(&spokes, |spoke| iperf::warm_up(world.node(1), &address(spoke), 1.0))?;
    let mut values = costed(&tunnel, || streams(&world, &spokes, seconds))?;
    if let Some(hub) = tunnel.processes.first() {
        values.push(Value { metric: "hub_peak_rss_mib", value: hub.peak_mib()? });
    }
    tunnel.processes.iter_mut().try_for_each(crate::process::Process::check)?;
    drop(servers);
    Ok(values)
}

fn address(spoke: u8) -> String {
    format!("10.88.0.{spoke}")
}

/// The sum, over the time from the first stream's start to the last one's end, which is a little longer than each.
fn streams(world: &World, spokes: &[u8], seconds: f64) -> Result<Moved> {
    let began = Instant::now();
    let moved = all_at_once(spokes, |spoke| iperf::between(world.node(1), &address(spoke), seconds, &[]))?;
    let bytes = moved.iter().map(|moved| moved.bytes).sum();
    Ok(Moved { bytes, seconds: began.elapsed().as_secs_f64(), packets: 0.0, loss: 0.0 })
}

fn all_at_once<T: Send>(spokes: &[u8], one: impl Fn(u8) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = spokes.iter().map(|spoke| scope.spawn(move || one(*spoke))).collect();
        let join =
            |each: thread::ScopedJoinHandle<'_, Result<T>>| each.join().map_err(|_| Error::new("a stream panicked"))?;
        running.into_iter().map(join).collect()
    })
}
