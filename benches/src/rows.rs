//! The rows of what Warren has to show: for each what to run, and the bars, computed from what was measured.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::Error;
use crate::cases::Case;
use crate::peers::is_stock;
use crate::report::short;
use crate::results::{Key, Results};
use crate::world::Topology;

/// A row: what it needs to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// As on the command line.
    pub name: &'static str,
    /// Peers.
    pub peers: &'static [&'static str],
    /// Each Warren with so many workers; none: its default.
    pub workers: &'static [u8],
    /// Cases.
    pub cases: &'static [Case],
    /// Topologies.
    pub topologies: &'static [Topology],
    /// Underlay MTUs.
    pub mtus: &'static [u16],
    /// Of each peer only the cases that a bar speaks of.
    pub only_bars: bool,
}

const BOTH: &[Topology] = &[Topology::Nodes, Topology::Pods];
const PODS: &[Topology] = &[Topology::Pods];
const NODES: &[Topology] = &[Topology::Nodes];
const AES: &str = "warren-aes-256-gcm";
const CHACHA: &str = "warren-chacha20-poly1305";
const OFF: &str = "warren-off";
const VXLAN_INSIDE: &str = "warren-beneath-vxlan";
const BESIDE: &[&str] = &[AES, "forwarder", "wireguard-go", "gotatun", "boringtun"];
const STOCK: &[&str] = &[AES, "wireguard-go", "gotatun", "boringtun"];
const SUITES: &[&str] = &[AES, CHACHA, OFF, "forwarder", "wireguard-go", "gotatun", "boringtun"];
const WITH_WIRE: &[&str] = &[AES, CHACHA, OFF, "veth", "forwarder", "wireguard-go", "gotatun", "boringtun"];

const fn row(
    name: &'static str,
    peers: &'static [&'static str],
    cases: &'static [Case],
    topologies: &'static [Topology],
    mtus: &'static [u16],
) -> Row {
    Row { name, peers, workers: &[], cases, topologies, mtus, only_bars: false }
}

/// Every row.
pub const ROWS: [Row; 12] = [
    row("tcp", SUITES, &[Case::Tcp1], BOTH, &[1500]),
    row("tcp9000", BESIDE, &[Case::Tcp1], BOTH, &[9000]),
    row("vxlan", &[AES, VXLAN_INSIDE, "vxlan"], &[Case::Tcp1, Case::Tcp8], PODS, &[1500]),
    row("udp", WITH_WIRE, &[Case::Udp64, Case::Udp1200], BOTH, &[1500]),
    row("cpu400", STOCK, &[Case::Cpu400], BOTH, &[1500]),
    row("rttload", BESIDE, &[Case::Rtt, Case::RttLoad], BOTH, &[1500]),
    row("rss", STOCK, &[Case::Tcp1, Case::Tcp8, Case::Udp64, Case::Rss], NODES, &[1500]),
    row("idle-peers", STOCK, &[Case::IdlePeers, Case::RealPeers], NODES, &[1500]),
    row("many", SUITES, &[Case::Tcp8, Case::Tcp32, Case::Hub32], BOTH, &[1500]),
    Row {
        workers: &[1, 2, 4, 8],
        ..row("workers", &[AES, "forwarder"], &[Case::Tcp1, Case::Tcp8, Case::Tcp32, Case::Rss], BOTH, &[1500])
    },
    row("pipeline", &[], &[Case::Pipeline, Case::Handshakes, Case::Exchanges, Case::Reconcile], NODES, &[1500]),
    Row {
        only_bars: true,
        ..row(
            "bars",
            SUITES,
            // One stream is what varies most, and most bars are about: three values of it in each visit.
            &[
                Case::Tcp1,
                Case::Cpu400,
                Case::Tcp1,
                Case::RttLoad,
                Case::Tcp1,
                Case::Udp64,
                Case::Udp1200,
                Case::Rss,
                Case::IdlePeers,
                Case::Pipeline,
            ],
            BOTH,
            &[1500],
        )
    },
];

/// The essentials: one stream, and what it costs.
pub const QUICK: Row = row(
    "quick",
    &["warren", "forwarder", "wireguard-go", "gotatun", "boringtun"],
    &[Case::Tcp1, Case::Rss],
    BOTH,
    &[1500],
);

/// Everything of which there is a bar, and many flows and peers, everywhere; what is left out is there by name.
pub const FULL: Row = row(
    "full",
    &[AES, CHACHA, OFF, "veth", "vxlan", "forwarder", "wireguard-go", "gotatun", "boringtun"],
    &[
        Case::Rtt,
        Case::Tcp1,
        Case::Tcp8,
        Case::Tcp32,
        Case::Cpu400,
        Case::RttLoad,
        Case::Udp64,
        Case::Udp1200,
        Case::Rss,
        Case::Hub32,
        Case::IdlePeers,
        Case::RealPeers,
        Case::Pipeline,
        Case::Handshakes,
        Case::Exchanges,
        Case::Reconcile,
    ],
    BOTH,
    &[1500, 9000],
);

impl FromStr for Row {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let names = || ROWS.map(|row| row.name).join(", ");
        ROWS.into_iter().find(|row| row.name == text).ok_or_else(|| Error::new(format!("no row `{text}`: {}", names())))
    }
}

/// What a value is held against.
#[derive(Clone, Copy, PartialEq)]
enum Against {
    /// This one's.
    Peer(&'static str),
    /// The best of the other WireGuards.
    BestStock,
    /// A number.
    Itself,
}

/// Which way is better, with the bar and the aim.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    AtLeast(f64, f64),
    AtMost(f64, f64),
}
use Against::{BestStock, Itself, Peer};
use Wanted::{AtLeast, AtMost};

/// Row, Warren, case, metric, MTU, what it is held against, and what is wanted of it.
type Bar = (&'static str, &'static str, Case, &'static str, u16, Against, Wanted);

const BARS: [Bar; 22] = [
    ("tcp", AES, Case::Tcp1, "gbps", 1500, Peer("forwarder"), AtLeast(0.70, 0.85)),
    ("tcp", AES, Case::Tcp1, "gbps", 1500, Peer("wireguard-go"), AtLeast(8.0, 8.0)),
    ("tcp", AES, Case::Tcp1, "gbps", 1500, Peer("gotatun"), AtLeast(5.0, 5.0)),
    ("tcp", CHACHA, Case::Tcp1, "gbps", 1500, Peer("forwarder"), AtLeast(0.48, 0.60)),
    ("tcp", OFF, Case::Tcp1, "gbps", 1500, Peer("forwarder"), AtLeast(0.40, 0.50)),
    ("tcp9000", AES, Case::Tcp1, "gbps", 9000, Peer("forwarder"), AtLeast(0.70, 0.85)),
    ("tcp9000", AES, Case::Tcp1, "gbps", 9000, BestStock, AtLeast(1.0, 1.0)),
    ("vxlan", VXLAN_INSIDE, Case::Tcp1, "gbps", 1500, Peer(AES), AtLeast(0.70, 0.85)),
    ("udp", AES, Case::Udp64, "pps", 1500, BestStock, AtLeast(2.0, 3.0)),
    ("udp", AES, Case::Udp64, "sustained_pps", 1500, BestStock, AtLeast(2.0, 3.0)),
    ("udp", AES, Case::Udp1200, "pps", 1500, BestStock, AtLeast(2.0, 3.0)),
    ("udp", AES, Case::Udp1200, "sustained_pps", 1500, BestStock, AtLeast(2.0, 3.0)),
    ("cpu400", AES, Case::Cpu400, "cpu_s_per_gb", 1500, Peer("gotatun"), AtMost(1.0 / 3.0, 0.2)),
    ("cpu400", AES, Case::Cpu400, "cpu_s_per_gb", 1500, Peer("boringtun"), AtMost(1.0 / 3.0, 0.2)),
    ("cpu400", AES, Case::Cpu400, "cpu_s_per_gb", 1500, Peer("wireguard-go"), AtMost(1.0 / 3.0, 0.2)),
    ("rttload", AES, Case::RttLoad, "p99_us", 1500, BestStock, AtMost(1.0, 0.5)),
    ("rss", AES, Case::Rss, "peak_rss_mib", 1500, Itself, AtMost(32.0, 16.0)),
    ("idle-peers", AES, Case::IdlePeers, "bytes_per_peer_1000", 1500, Itself, AtMost(24_576.0, 12_288.0)),
    ("idle-peers", AES, Case::IdlePeers, "bytes_per_peer_5000", 1500, Itself, AtMost(24_576.0, 12_288.0)),
    ("pipeline", AES, Case::Pipeline, "scaling", 1500, Itself, AtLeast(0.9, 0.9)),
    ("pipeline", CHACHA, Case::Pipeline, "scaling", 1500, Itself, AtLeast(0.9, 0.9)),
    ("pipeline", OFF, Case::Pipeline, "scaling", 1500, Itself, AtLeast(0.9, 0.9)),
];

/// Whether a bar needs this case of this peer.
pub(crate) fn has_bar(peer: &str, case: Case) -> bool {
    let needs = |(_, own, _, _, _, against, _): &Bar| match against {
        _ if *own == peer => true,
        Peer(rival) => *rival == peer,
        BestStock => is_stock(peer),
        Itself => false,
    };
    BARS.iter().filter(|bar| bar.2 == case).any(needs)
}

impl Wanted {
    fn verdict(self, value: f64) -> &'static str {
        let (bar, aim) = match self {
            AtLeast(bar, aim) => (value >= bar, value >= aim),
            AtMost(bar, aim) => (value <= bar, value <= aim),
        };
        match (bar, aim) {
            (true, true) => "aim",
            (true, false) => "bar",
            _ => "**missed**",
        }
    }

    fn columns(self) -> String {
        match self {
            AtLeast(bar, aim) => format!("≥ {} | ≥ {}", short(bar), short(aim)),
            AtMost(bar, aim) => format!("≤ {} | ≤ {}", short(bar), short(aim)),
        }
    }
}

/// Every bar of which enough was measured, as a table; empty without any.
pub fn bars(results: &Results) -> String {
    let mut lines = String::new();
    for bar in &BARS {
        for (topology, _) in results.places().into_iter().filter(|(_, mtu)| *mtu == bar.4) {
            lines += &line(results, bar, topology).unwrap_or_default();
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "\n## Bars\n\n| row | where | what | medians | measured | bar | aim | reached |\n|{}\n{lines}",
        "---|".repeat(8)
    )
}

fn line(results: &Results, bar: &Bar, topology: Topology) -> Option<String> {
    let (row, own, case, metric, mtu, against, wanted) = *bar;
    let median = |peer| results.line(&Key { topology, mtu, case, metric, peer }).map(|line| line.median);
    // With its defaults Warren chooses AES where both processors have it.
    let (own, value) = match median(own) {
        None if own == AES => ("warren", median("warren")?),
        found => (own, found?),
    };
    let (measured, medians, of) = match against {
        Itself => (value, short(value), String::new()),
        _ => {
            let (name, other) = rival(results, against, wanted, median)?;
            (value / other, format!("{} : {}", short(value), short(other)), format!(" : {name}"))
        }
    };
    let mut text = String::new();
    let (columns, verdict) = (wanted.columns(), wanted.verdict(measured));
    let _ = writeln!(
        text,
        "| {row} | {topology} {mtu} | {case} {metric}, {own}{of} | {medians} | {} | {columns} | {verdict} |",
        short(measured)
    );
    Some(text)
}

/// Whom the value is held against, and theirs.
fn rival(
    results: &Results,
    against: Against,
    wanted: Wanted,
    median: impl Fn(&'static str) -> Option<f64>,
) -> Option<(&'static str, f64)> {
    let candidates = match against {
        Peer(name) => vec![name],
        _ => results.peers().into_iter().filter(|peer| is_stock(peer)).collect(),
    };
    let found = candidates.into_iter().filter_map(|peer| median(peer).map(|value| (peer, value)));
    let positive = found.filter(|(_, value)| *value > 0.0);
    match wanted {
        AtLeast(..) => positive.max_by(|a, b| a.1.total_cmp(&b.1)),
        AtMost(..) => positive.min_by(|a, b| a.1.total_cmp(&b.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{Taken, Value};
    use crate::peers::names;

    fn results(values: &[(&'static str, Case, &'static str, f64)]) -> Results {
        let mut results = Results::default();
        for (peer, case, metric, value) in values {
            let taken = Taken { values: vec![Value { metric, value: *value }], clean: true };
            results.add(Topology::Pods, 1500, peer, *case, &taken);
        }
        results
    }

    #[test]
    fn every_row_names_peers_that_there_are_and_every_bar_is_measured_by_its_row() {
        for row in ROWS {
            assert!(row.peers.iter().all(|peer| names().contains(peer)), "{}", row.name);
        }
        for (name, own, case, _, mtu, against, _) in BARS {
            let row: Row = name.parse().unwrap();
            let measured = row.peers.contains(&own) || case == Case::Pipeline;
            assert!(measured && row.cases.contains(&case) && row.mtus.contains(&mtu), "{name} {own} {case}");
            assert!(!matches!(against, Peer(peer) if !row.peers.contains(&peer)), "{name}");
        }
    }

    #[test]
    fn a_bar_says_whether_it_is_missed_reached_or_the_aim_too() {
        let of = |speed| bars(&results(&[(AES, Case::Tcp1, "gbps", speed), ("forwarder", Case::Tcp1, "gbps", 10.0)]));
        assert!(of(6.9).contains("| 6.90 : 10.0 | 0.69 | ≥ 0.70 | ≥ 0.85 | **missed** |"), "{}", of(6.9));
        assert!(of(7.0).contains("| bar |") && of(8.6).contains("| aim |"));
    }

    #[test]
    fn the_best_peer_is_the_fastest_or_the_one_with_the_least_delay() {
        let text = bars(&results(&[
            ("warren", Case::Udp64, "pps", 300.0),
            ("gotatun", Case::Udp64, "pps", 100.0),
            ("boringtun", Case::Udp64, "pps", 60.0),
            ("forwarder", Case::Udp64, "pps", 900.0),
            ("warren", Case::RttLoad, "p99_us", 3.0),
            ("gotatun", Case::RttLoad, "p99_us", 9.0),
            ("boringtun", Case::RttLoad, "p99_us", 2.0),
        ]));
        assert!(text.contains("warren : gotatun | 300 : 100 | 3.00 |") && text.contains("| aim |"), "{text}");
        assert!(text.contains("warren : boringtun | 3.00 : 2.00 | 1.50 | ≤ 1.00 | ≤ 0.50 | **missed** |"), "{text}");
    }

    #[test]
    fn a_bar_is_spoken_of_where_both_sides_of_it_are() {
        assert!(has_bar(AES, Case::Rss) && !has_bar("gotatun", Case::Rss));
        assert!(has_bar("forwarder", Case::Tcp1) && !has_bar("forwarder", Case::Cpu400));
        assert!(has_bar("boringtun", Case::Udp64) && !has_bar(OFF, Case::Udp64));
    }

    #[test]
    fn without_a_rival_there_is_no_bar() {
        assert_eq!(bars(&results(&[(AES, Case::Tcp1, "gbps", 5.0)])), "");
    }
}
