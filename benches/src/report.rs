//! The Markdown: peers down, metrics across, what it comes to for Warren, and the bars that it has to reach.

use std::fmt::Write as _;

use crate::cases::Case;
use crate::peers::{Peer, is_stock};
use crate::results::{Key, Line, Results};
use crate::rows;
use crate::world::Topology;

/// A column: heading, case, metric, divisor.
type Column = (&'static str, Case, &'static str, f64);

/// One table each.
const TABLES: [&[Column]; 8] = [
    &[
        ("TCP 1 Gb/s", Case::Tcp1, "gbps", 1.0),
        ("tunnel CPU s/GB", Case::Tcp1, "cpu_s_per_gb", 1.0),
        ("machine CPU s/GB", Case::Tcp1, "machine_cpu_s_per_gb", 1.0),
        ("TCP 4 Gb/s", Case::Tcp4, "gbps", 1.0),
        ("TCP 8 Gb/s", Case::Tcp8, "gbps", 1.0),
        ("TCP 32 Gb/s", Case::Tcp32, "gbps", 1.0),
        ("32 streams CPU s/GB", Case::Tcp32, "cpu_s_per_gb", 1.0),
        ("hub and 32 nodes Gb/s", Case::Hub32, "gbps", 1.0),
        ("hub and nodes CPU s/GB", Case::Hub32, "cpu_s_per_gb", 1.0),
    ],
    &[
        ("at 400 Mb/s: Gb/s", Case::Cpu400, "gbps", 1.0),
        ("tunnel CPU s/GB", Case::Cpu400, "cpu_s_per_gb", 1.0),
        ("machine CPU s/GB", Case::Cpu400, "machine_cpu_s_per_gb", 1.0),
    ],
    &[
        ("RTT p50 µs", Case::Rtt, "p50_us", 1.0),
        ("RTT p99 µs", Case::Rtt, "p99_us", 1.0),
        ("under TCP p50 ms", Case::RttLoad, "p50_us", 1000.0),
        ("under TCP p99 ms", Case::RttLoad, "p99_us", 1000.0),
        ("that TCP Gb/s", Case::RttLoad, "load_gbps", 1.0),
    ],
    &[
        ("UDP 64 B flood: received kpps", Case::Udp64, "pps", 1000.0),
        ("sent kpps", Case::Udp64, "sent_pps", 1000.0),
        ("loss %", Case::Udp64, "loss_percent", 1.0),
        ("of it at the sink %", Case::Udp64, "sink_loss_percent", 1.0),
        ("late", Case::Udp64, "late", 1.0),
        ("< 1 % loss up to kpps", Case::Udp64, "sustained_pps", 1000.0),
        ("iperf3 64 B kpps", Case::Iperf64, "pps", 1000.0),
    ],
    &[
        ("UDP 1200 B flood: received kpps", Case::Udp1200, "pps", 1000.0),
        ("sent kpps", Case::Udp1200, "sent_pps", 1000.0),
        ("loss %", Case::Udp1200, "loss_percent", 1.0),
        ("of it at the sink %", Case::Udp1200, "sink_loss_percent", 1.0),
        ("late", Case::Udp1200, "late", 1.0),
        ("< 1 % loss up to kpps", Case::Udp1200, "sustained_pps", 1000.0),
        ("iperf3 1200 B kpps", Case::Iperf1200, "pps", 1000.0),
    ],
    &[
        ("bursts of unequal datagrams: sent kpps", Case::Bursts, "sent_pps", 1000.0),
        ("loss %", Case::Bursts, "loss_percent", 1.0),
        ("sending end CPU ns each", Case::Bursts, "sending_ns_per_packet", 1.0),
        ("receiving end CPU ns each", Case::Bursts, "receiving_ns_per_packet", 1.0),
    ],
    &[
        ("peak RSS MiB", Case::Rss, "peak_rss_mib", 1.0),
        ("RSS MiB, no idle peer", Case::IdlePeers, "rss_mib_0", 1.0),
        ("1,000 idle peers", Case::IdlePeers, "rss_mib_1000", 1.0),
        ("5,000 idle peers", Case::IdlePeers, "rss_mib_5000", 1.0),
        ("KiB per peer of 1,000", Case::IdlePeers, "bytes_per_peer_1000", 1024.0),
        ("KiB per peer of 5,000", Case::IdlePeers, "bytes_per_peer_5000", 1024.0),
        ("hub, 1 quiet node", Case::RealPeers, "hub_rss_mib_1", 1.0),
        ("hub, 32 quiet nodes", Case::RealPeers, "hub_rss_mib_32", 1.0),
        ("KiB per real peer", Case::RealPeers, "bytes_per_real_peer", 1024.0),
        ("hub and 32 nodes: peak RSS MiB of the hub", Case::Hub32, "hub_peak_rss_mib", 1.0),
    ],
    &[
        ("one core Gb/s", Case::Pipeline, "gbps_one_core", 1.0),
        ("all cores Gb/s", Case::Pipeline, "gbps_all_cores", 1.0),
        ("cores", Case::Pipeline, "cores", 1.0),
        ("× per core", Case::Pipeline, "scaling", 1.0),
        ("one core, 64 B: kpps", Case::Pipeline, "small_pps_one_core", 1000.0),
        ("handshakes/s", Case::Handshakes, "per_s", 1.0),
        ("exchanges/s", Case::Exchanges, "per_s", 1.0),
        ("5,000 records: mesh ms", Case::Reconcile, "mesh_ms", 1.0),
        ("delta ms", Case::Reconcile, "delta_ms", 1.0),
        ("table ms", Case::Reconcile, "table_ms", 1.0),
        ("together ms", Case::Reconcile, "total_ms", 1.0),
    ],
];

/// What the ratios refer to.
const REFERENCE: &str = "wireguard-go";
/// Below this a stream that should carry 400 Mb/s does not.
const REACHES_400: f64 = 0.39;

/// The whole report.
pub fn markdown(results: &Results, peers: &[Peer], absent: &[String], machine: &str) -> String {
    let mut text = format!("# Side by side\n\n{machine}. Medians (least–most); x is the ratio to {REFERENCE}.\n");
    let (left_out, kept) = results.doubtful();
    let _ = writeln!(text, "Values left out for stolen time: {left_out}; kept in spite of it: {kept}.\n");
    for peer in peers {
        let _ = writeln!(text, "- {}: {}", peer.name, peer.version());
    }
    for name in absent {
        let _ = writeln!(text, "- absent: {name}");
    }
    for failure in &results.failures {
        let _ = writeln!(text, "- failed: {failure}");
    }
    for (topology, mtu) in results.places() {
        let _ = writeln!(text, "\n## {topology}, underlay MTU {mtu}\n");
        for columns in TABLES {
            table(&mut text, results, topology, mtu, columns);
        }
        too_slow(&mut text, results, topology, mtu);
        verdict(&mut text, results, topology, mtu);
    }
    text + &rows::bars(results)
}

fn table(text: &mut String, results: &Results, topology: Topology, mtu: u16, columns: &[Column]) {
    let line = |case, metric, peer| results.line(&Key { topology, mtu, case, metric, peer });
    let peers = results.peers();
    let filled: Vec<_> = columns
        .iter()
        .filter(|(_, case, metric, _)| peers.iter().any(|peer| line(*case, metric, peer).is_some()))
        .collect();
    if filled.is_empty() {
        return;
    }
    let headings: Vec<&str> = filled.iter().map(|(heading, ..)| *heading).collect();
    let _ = writeln!(text, "| peer | {} |\n|---{}|", headings.join(" | "), "|---".repeat(headings.len()));
    for peer in peers {
        let cells: Vec<_> = filled
            .iter()
            .map(|(_, case, metric, scale)| {
                let compared = matches!(*metric, "gbps" | "pps" | "sustained_pps") && *case != Case::Cpu400;
                cell(line(*case, metric, peer), line(*case, metric, REFERENCE), *scale, compared)
            })
            .collect();
        if cells.iter().any(|cell| cell != "–") {
            let _ = writeln!(text, "| {peer} | {} |", cells.join(" | "));
        }
    }
    text.push('\n');
}

fn cell(line: Option<Line>, reference: Option<Line>, scale: f64, ratio: bool) -> String {
    let Some(line) = line else { return "–".into() };
    let mut text = format!("{} ({}–{})", short(line.median / scale), short(line.min / scale), short(line.max / scale));
    if let Some(reference) = reference.filter(|reference| ratio && reference.median > 0.0) {
        let _ = write!(text, " x{:.2}", line.median / reference.median);
    }
    text
}

/// With as many digits as matter.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Names those whose figures at 400 Mb/s are figures at less.
fn too_slow(text: &mut String, results: &Results, topology: Topology, mtu: u16) {
    let key = |peer| Key { topology, mtu, case: Case::Cpu400, metric: "gbps", peer };
    for peer in results.peers() {
        if let Some(line) = results.line(&key(peer)).filter(|line| line.median < REACHES_400) {
            let _ = writeln!(text, "{peer} does not reach 400 Mb/s, only {:.0}.\n", 1000.0 * line.median);
        }
    }
}

/// Warren beside the best WireGuard and below the ceiling, with each suite.
fn verdict(text: &mut String, results: &Results, topology: Topology, mtu: u16) {
    let median =
        |metric, peer| results.line(&Key { topology, mtu, case: Case::Tcp1, metric, peer }).map(|line| line.median);
    let stock = || results.peers().into_iter().filter(|peer| is_stock(peer));
    let best = stock().filter_map(|peer| median("gbps", peer)).max_by(f64::total_cmp);
    let least = stock().filter_map(|peer| median("cpu_s_per_gb", peer)).min_by(f64::total_cmp);
    for own in results.peers().into_iter().filter(|name| name.starts_with("warren")) {
        let Some(speed) = median("gbps", own) else { continue };
        let _ = write!(text, "{own}, one TCP stream:");
        if let Some(best) = best {
            let _ = write!(text, " {:.2} × the best WireGuard beside it;", speed / best);
        }
        if let Some((cost, least)) = median("cpu_s_per_gb", own).zip(least) {
            let _ = write!(text, " CPU per GB {:.2} × the thriftiest;", cost / least);
        }
        if let Some(ceiling) = median("gbps", "forwarder") {
            let _ = write!(text, " {:.0} % of the forwarder without cryptography.", 100.0 * speed / ceiling);
        }
        text.push_str("\n\n");
    }
}
