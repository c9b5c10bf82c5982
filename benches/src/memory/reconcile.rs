//! What 5,000 records cost the control plane: the mesh, the difference to what is, the forwarding table.

use std::hint::black_box;
use std::time::Instant;

use ipnet::IpNet;
use warren_overlay::delta::Delta;
use warren_overlay::forward::{Slot, Table};
use warren_overlay::mesh::{Cluster, Mesh, Ownership, compute};

use super::cluster::{entry, net, own, snapshot};
use crate::cases::Value;

/// Records.
const COUNT: u32 = 5_000;
/// Of so many repetitions the fastest counts: slower ones were disturbed.
const REPEATS: usize = 5;

/// Milliseconds of each part, and of all together, after one record of 5,000 changed.
///
/// # Panics
/// When the mesh is not what it should be: then nothing was measured.
pub(crate) fn measure() -> Vec<Value> {
    let fallback = Cluster::default();
    let before = compute(&own(), Some(&snapshot(COUNT)), &[], &Ownership::default(), &fallback);
    let mut changed = snapshot(COUNT);
    changed.entries[1234] = entry(1234, 4000);
    let (mesh_ms, mesh) = fastest(|| compute(&own(), Some(&changed), &[], &before.ownership, &fallback));
    let (delta_ms, delta) = fastest(|| Delta::between(&before.peers, &mesh.peers));
    let (table_ms, _) = fastest(|| table(&mesh));
    assert!(mesh.peers.len() == COUNT as usize && mesh.refusals.is_empty(), "the mesh is whole");
    assert_eq!((delta.changed.len(), delta.len()), (1, 1), "one peer changed");
    vec![
        Value { metric: "mesh_ms", value: mesh_ms },
        Value { metric: "delta_ms", value: delta_ms },
        Value { metric: "table_ms", value: table_ms },
        Value { metric: "total_ms", value: mesh_ms + delta_ms + table_ms },
    ]
}

fn fastest<T>(mut once: impl FnMut() -> T) -> (f64, T) {
    let mut timed = || {
        let began = Instant::now();
        let made = black_box(once());
        (1000.0 * began.elapsed().as_secs_f64(), made)
    };
    let mut best = timed();
    for _ in 1..REPEATS {
        let next = timed();
        best = if next.0 < best.0 { next } else { best };
    }
    best
}

/// The forwarding table as the data path makes it: prefixes and node addresses by slot.
fn table(mesh: &Mesh) -> Table {
    let remote = mesh.peers.values().zip(0..).flat_map(|(peer, slot): (_, Slot)| {
        let addresses = peer.addresses.iter().map(|address| IpNet::from(*address));
        peer.cidrs.iter().copied().chain(addresses).map(move |prefix| (prefix, slot))
    });
    Table::new(remote, [net([10, 250, 0, 0], 24)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_record_of_five_thousand_is_one_step() {
        let values = measure();
        let total = values.iter().find(|value| value.metric == "total_ms").unwrap().value;
        assert!(total > 0.0);
    }
}
