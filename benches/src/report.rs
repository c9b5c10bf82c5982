//! The Markdown table: peers down, metrics across, ratios to wireguard-go, and what it comes to for Warren.

use std::fmt::Write as _;

use crate::cases::Case;
use crate::peers::{Peer, names};
use crate::results::{Key, Line, Results};
use crate::world::Topology;

/// A column: heading, case, metric, divisor.
type Column = (&'static str, Case, &'static str, f64);

/// How many of the columns go into the first table.
const THROUGHPUT: usize = 7;
const COLUMNS: [Column; 16] = [
    ("TCP 1 Gb/s", Case::Tcp1, "gbps", 1.0),
    ("tunnel CPU s/GB", Case::Tcp1, "cpu_s_per_gb", 1.0),
    ("machine CPU s/GB", Case::Tcp1, "machine_cpu_s_per_gb", 1.0),
    ("TCP 4 Gb/s", Case::Tcp4, "gbps", 1.0),
    ("CPU s/GB, 4 streams", Case::Tcp4, "cpu_s_per_gb", 1.0),
    ("CPU s/GB at 400 Mb/s", Case::Tcp400, "cpu_s_per_gb", 1.0),
    ("machine s/GB at 400 Mb/s", Case::Tcp400, "machine_cpu_s_per_gb", 1.0),
    ("RTT p50 µs", Case::Rtt, "p50_us", 1.0),
    ("RTT p99 µs", Case::Rtt, "p99_us", 1.0),
    ("RTT under TCP p50 ms", Case::RttLoad, "p50_us", 1000.0),
    ("p99 ms", Case::RttLoad, "p99_us", 1000.0),
    ("UDP 64 B kpps", Case::Udp64, "pps", 1000.0),
    ("loss %", Case::Udp64, "loss_percent", 1.0),
    ("UDP 1200 B kpps", Case::Udp1200, "pps", 1000.0),
    ("loss % ", Case::Udp1200, "loss_percent", 1.0),
    ("peak RSS MiB", Case::Memory, "peak_rss_mib", 1.0),
];

/// What the ratios refer to.
const REFERENCE: &str = "wireguard-go";

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
        for columns in [&COLUMNS[..THROUGHPUT], &COLUMNS[THROUGHPUT..]] {
            table(&mut text, results, topology, mtu, columns);
        }
        verdict(&mut text, results, topology, mtu, peers);
    }
    text
}

fn table(text: &mut String, results: &Results, topology: Topology, mtu: u16, columns: &[Column]) {
    let line = |case, metric, peer| results.line(&Key { topology, mtu, case, metric, peer });
    let filled: Vec<_> = columns
        .iter()
        .filter(|(_, case, metric, _)| names().into_iter().any(|peer| line(*case, metric, peer).is_some()))
        .collect();
    if filled.is_empty() {
        return;
    }
    let headings: Vec<&str> = filled.iter().map(|(heading, ..)| heading.trim()).collect();
    let _ = writeln!(text, "| peer | {} |\n|---{}|", headings.join(" | "), "|---".repeat(headings.len()));
    for peer in names() {
        let cells: Vec<_> = filled
            .iter()
            .map(|(_, case, metric, scale)| {
                cell(line(*case, metric, peer), line(*case, metric, REFERENCE), *scale, *metric == "gbps")
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

fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Warren beside the best WireGuard and below the ceiling, with each suite.
fn verdict(text: &mut String, results: &Results, topology: Topology, mtu: u16, peers: &[Peer]) {
    let median =
        |metric, peer| results.line(&Key { topology, mtu, case: Case::Tcp1, metric, peer }).map(|line| line.median);
    let stock = || peers.iter().filter(|peer| peer.is_stock()).map(|peer| peer.name);
    let best = stock().filter_map(|peer| median("gbps", peer)).max_by(f64::total_cmp);
    let least = stock().filter_map(|peer| median("cpu_s_per_gb", peer)).min_by(f64::total_cmp);
    for own in names().into_iter().filter(|name| name.starts_with("warren")) {
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
