//! What a peer costs that is there and quiet: resident memory of a hub with 1 and with 32 real nodes around it, each of
//! which was reached once. Both have first been under full load by one of them: what a data path takes for itself as it is
//! needed, whoever the packets are for, is not the peers'.

use super::Value;
use super::hub::SPOKES;
use super::idle::{first, settle};
use crate::Result;
use crate::iperf;
use crate::peers::Peer;
use crate::world::World;

/// About how long it takes: 35 namespaces and processes, and until the memory of both hubs has settled.
pub(super) const ESTIMATE: f64 = 30.0;

/// Seconds of load each way.
const LOADED: f64 = 2.0;

pub(super) fn measure(peer: &Peer, mtu: u16) -> Result<Vec<Value>> {
    let (one, all) = (resident(peer, mtu, 1)?, resident(peer, mtu, SPOKES)?);
    let bytes = (all - one) * f64::from(1 << 20) / f64::from(SPOKES - 1);
    Ok(vec![
        Value { metric: "hub_rss_mib_1", value: one },
        Value { metric: "hub_rss_mib_32", value: all },
        Value { metric: "bytes_per_real_peer", value: bytes },
    ])
}

/// Memory of node 1 once everybody around it has answered a ping, MiB.
fn resident(peer: &Peer, mtu: u16, spokes: u8) -> Result<f64> {
    let world = World::star(mtu, peer.mtu(mtu), spokes)?;
    let mut tunnel = peer.start(&world)?;
    for (from, to) in [(1, 2), (2, 1)] {
        let _server = iperf::server(world.node(to))?;
        iperf::warm_up(world.node(from), &format!("10.88.0.{to}"), LOADED)?;
    }
    settle(first(&mut tunnel)?)
}
