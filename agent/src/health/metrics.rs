//! Every metric, in one table: what `/metrics` and docs/metrics.md say. Written as OpenMetrics text from one observation;
//! there is no live registry of counters, and nothing counts for it.

mod page;
mod read;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::observation::Observation;
pub use page::page;

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and starts anew with the agent; its samples end in `_total`.
    Counter,
    /// What is now.
    Gauge,
    /// Words, as labels of a 1; its sample ends in `_info`.
    Info,
}

/// A metric with all of its labels' values.
pub struct Family {
    /// Its name, without what [`Kind`] appends.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels, in order.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    read: fn(&Observation) -> Vec<Sample>,
}

impl Family {
    /// There is one series for each peer.
    pub fn is_per_peer(&self) -> bool {
        self.labels.iter().any(|label| matches!(*label, "peer" | "public_key"))
    }

    /// The name of its samples.
    pub fn sample_name(&self) -> String {
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        };
        format!("{}{end}", self.name)
    }
}

/// One value with those of its family's labels.
struct Sample {
    labels: Vec<String>,
    value: Value,
}

#[derive(Clone, Copy)]
enum Value {
    Whole(u64),
    Real(f64),
}

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Observation) -> Vec<Sample>,
) -> Family {
    Family { name, kind, labels, help, read }
}

/// All of them, in the order in which they are written.
#[rustfmt::skip]
pub const FAMILIES: &[Family] = &[
    family("warren_build", Kind::Info, &["version"], "The agent's version.", read::build),
    family("warren_node", Kind::Info, &["node", "mode", "enforcement"], "Who this node is and what its cluster asks of it.", read::node),
    family("warren_start_time_seconds", Kind::Gauge, &[], "When the agent started, in seconds since 1970.", read::started),
    family("warren_ready", Kind::Gauge, &[], "1 while every check of /readyz passes.", read::ready),
    family("warren_check", Kind::Gauge, &["check"], "1 while this check of /readyz passes.", read::checks),
    family("warren_problems", Kind::Gauge, &[], "Problems that `warren status` lists.", read::problems),
    family("warren_workers", Kind::Gauge, &[], "Threads of the data path.", read::workers),
    family("warren_mtu_bytes", Kind::Gauge, &[], "The inner MTU.", read::mtu),
    family("warren_peers", Kind::Gauge, &["state"], "Peers by state: up, connecting, idle, vanished.", read::peers),
    family("warren_peers_by_suite", Kind::Gauge, &["suite"], "Peers by how data travels to them: the suite of the associations, or tunnel without any; then it travels in the WireGuard session, or, where associations are required, not at all.", read::suites),
    family("warren_received_bytes", Kind::Counter, &[], "Inner bytes received from all peers, those that are gone included.", read::received_bytes),
    family("warren_sent_bytes", Kind::Counter, &[], "Inner bytes sent to all peers, those that are gone included.", read::sent_bytes),
    family("warren_received_packets", Kind::Counter, &[], "Inner packets received from all peers, those that are gone included.", read::received_packets),
    family("warren_sent_packets", Kind::Counter, &[], "Inner packets sent to all peers, those that are gone included.", read::sent_packets),
    family("warren_dropped_packets", Kind::Counter, &["reason"], "Packets and datagrams lost, by reason (docs/troubleshooting.md).", read::drops),
    family("warren_stray_datagrams", Kind::Counter, &[], "Datagrams that one worker handed to another, since the kernel had joined them with its own.", read::strays),
    family("warren_guard_active", Kind::Gauge, &[], "1 while the guard's rules are loaded.", read::guard_active),
    family("warren_guard_refused_packets", Kind::Counter, &[], "Packets in clear that the guard dropped; it starts anew with the guard's rules, not with the agent.", read::guard_refused),
    family("warren_guard_passed_packets", Kind::Counter, &[], "Packets in clear that the guard let pass in permissive; it starts anew with the guard's rules, not with the agent.", read::guard_passed),
    family("warren_registry_up", Kind::Gauge, &["registry"], "1 while the registry is reachable and current.", read::registry_up),
    family("warren_registry_revision", Kind::Gauge, &["registry"], "The revision of what is known of the registry.", read::registry_revision),
    family("warren_registry_last_contact_timestamp_seconds", Kind::Gauge, &["registry"], "When the registry answered last, in seconds since 1970.", read::registry_contact),
    family("warren_refused_records", Kind::Gauge, &["reason"], "Records, prefixes and addresses refused now, by reason (docs/troubleshooting.md); absent when there are none.", read::refusals),
    family("warren_mesh_held", Kind::Gauge, &[], "1 while a change of the mesh waits for `warren mesh accept`.", read::held),
    family("warren_drift_repairs", Kind::Counter, &[], "Repairs of routes, rules, guard and device that somebody else changed.", read::repairs),
    family("warren_peer_up", Kind::Gauge, &["peer"], "1 while there is a session and the peer answers.", read::peer_up),
    family("warren_peer_received_bytes", Kind::Counter, &["peer"], "Inner bytes received from the peer.", read::peer_received_bytes),
    family("warren_peer_sent_bytes", Kind::Counter, &["peer"], "Inner bytes sent to the peer.", read::peer_sent_bytes),
    family("warren_peer_received_packets", Kind::Counter, &["peer"], "Inner packets received from the peer.", read::peer_received_packets),
    family("warren_peer_sent_packets", Kind::Counter, &["peer"], "Inner packets sent to the peer.", read::peer_sent_packets),
    family("warren_peer_dropped_packets", Kind::Counter, &["peer"], "Packets lost on the way to the peer or from it.", read::peer_drops),
    family("warren_peer_last_handshake_timestamp_seconds", Kind::Gauge, &["peer"], "When the last handshake was completed, in seconds since 1970; absent before the first.", read::peer_handshake),
    family("warren_peer_handshake_duration_seconds", Kind::Gauge, &["peer"], "How long the last handshake took that this node began: about a round trip.", read::peer_handshake_duration),
    family("warren_peer_lanes", Kind::Gauge, &["peer", "suite"], "Lanes on which data is sent to the peer in associations of this suite; 0 and tunnel while there are none: it travels in the WireGuard session, or, where associations are required, not at all.", read::peer_lanes),
    family("warren_peer_post_quantum", Kind::Gauge, &["peer"], "1 while all data to the peer goes in associations, safe from who breaks X25519 later; 0 while there are none, or while a worker has no lane and its data goes in the WireGuard session. What comes from the peer is told there.", read::peer_post_quantum),
    family("warren_peer_in_clear_sent_packets", Kind::Counter, &["peer"], "Packets that left for the node in clear while enforcement is permissive; also of nodes without an agent, where the registry knows their prefixes.", read::in_clear_sent),
    family("warren_peer_in_clear_received_packets", Kind::Counter, &["peer"], "Packets that came from the node in clear while enforcement is permissive; also of nodes without an agent, where the registry knows their prefixes.", read::in_clear_received),
    family("wireguard_sent_bytes", Kind::Counter, &["interface", "public_key", "friendly_name"], "As warren_peer_sent_bytes_total, by the name that dashboards for WireGuard know.", read::wireguard_sent),
    family("wireguard_received_bytes", Kind::Counter, &["interface", "public_key", "friendly_name"], "As warren_peer_received_bytes_total, by the name that dashboards for WireGuard know.", read::wireguard_received),
    family("wireguard_latest_handshake_seconds", Kind::Gauge, &["interface", "public_key", "friendly_name"], "When the last handshake was completed, in seconds since 1970, or 0; by the name that dashboards for WireGuard know.", read::wireguard_handshake),
];

/// The observation as OpenMetrics text.
pub fn text(observation: &Observation, per_peer: bool) -> String {
    let mut written = String::new();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { families: families(observation, per_peer) }));
    // Writing to a string fails only when a label does, and ours are all strings.
    let _ = text::encode(&mut written, &registry);
    written
}

/// The families with their samples; those without any are left out.
fn families(observation: &Observation, per_peer: bool) -> Vec<(&'static Family, Vec<Sample>)> {
    let wanted = FAMILIES.iter().filter(|family| per_peer || !family.is_per_peer());
    wanted.map(|family| (family, (family.read)(observation))).filter(|(_, samples)| !samples.is_empty()).collect()
}

/// One scrape, written once.
struct Scrape {
    families: Vec<(&'static Family, Vec<Sample>)>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("families", &self.families.len()).finish()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, samples) in &self.families {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in samples {
                write(&mut metric, family, sample)?;
            }
        }
        Ok(())
    }
}

fn write(metric: &mut MetricEncoder<'_>, family: &Family, sample: &Sample) -> fmt::Result {
    let labels: Vec<_> = family.labels.iter().copied().zip(sample.labels.iter().map(String::as_str)).collect();
    match family.kind {
        Kind::Info => metric.encode_info(&labels),
        _ if labels.is_empty() => write_value(metric, family.kind, sample.value),
        kind => write_value(&mut metric.encode_family(&labels)?, kind, sample.value),
    }
}

fn write_value(metric: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => metric.encode_counter::<NoLabelSet, _, f64>(&value, None),
        (Kind::Counter, Value::Real(value)) => metric.encode_counter::<NoLabelSet, _, f64>(&value, None),
        (_, Value::Whole(value)) => metric.encode_gauge(&value),
        (_, Value::Real(value)) => metric.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests;
