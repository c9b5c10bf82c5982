//! A plot as SVG: for each place, bars of throughput and of processor time per gigabyte, with the spread of the runs.

use std::fmt::Write as _;

use crate::cases::Case;
use crate::results::{Key, Line, Results};
use crate::world::Topology;

const WIDTH: f64 = 980.0;
const ROW: f64 = 24.0;
const LABEL: f64 = 190.0;
const BARS: f64 = 210.0;
const PANEL: f64 = WIDTH / 2.0;
const HEAD: f64 = 52.0;

/// A panel: heading, case, metric.
type Panel = (&'static str, Case, &'static str);

/// The panels, two and two beside each other; empty pairs are left out.
const PANELS: [[Panel; 2]; 6] = [
    [
        ("TCP, one stream: Gb/s (more is better)", Case::Tcp1, "gbps"),
        ("CPU seconds of the tunnel per GB (less is better)", Case::Tcp1, "cpu_s_per_gb"),
    ],
    [
        ("TCP, 32 streams: Gb/s (more is better)", Case::Tcp32, "gbps"),
        ("A hub and 32 nodes, TCP: Gb/s (more is better)", Case::Hub32, "gbps"),
    ],
    [
        ("CPU seconds of the tunnel per GB at 400 Mb/s (less is better)", Case::Cpu400, "cpu_s_per_gb"),
        ("RTT under TCP, 99th percentile: µs (less is better)", Case::RttLoad, "p99_us"),
    ],
    [
        ("UDP 64 B, received in a flood: packets/s (more is better)", Case::Udp64, "pps"),
        ("UDP 64 B, highest rate with < 1 % loss: packets/s", Case::Udp64, "sustained_pps"),
    ],
    [
        ("UDP 1200 B, received in a flood: packets/s (more is better)", Case::Udp1200, "pps"),
        ("UDP 1200 B, highest rate with < 1 % loss: packets/s", Case::Udp1200, "sustained_pps"),
    ],
    [
        ("In memory, one core: Gb/s (more is better)", Case::Pipeline, "gbps_one_core"),
        ("In memory, every core: Gb/s (more is better)", Case::Pipeline, "gbps_all_cores"),
    ],
];

/// The whole picture.
pub fn svg(results: &Results) -> String {
    let all = |place| PANELS.iter().map(move |pair| (place, pair));
    let bands: Vec<_> =
        results.places().into_iter().flat_map(all).filter(|(place, pair)| rows(results, *place, pair) > 0).collect();
    let height_of = |place, pair| HEAD + ROW * rows(results, place, pair) as f64 + 12.0;
    let height: f64 = bands.iter().map(|(place, pair)| height_of(*place, pair)).sum();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for (place, pair) in bands {
        for (left, one) in [0.0, PANEL].into_iter().zip(pair) {
            panel(&mut text, results, place, one, (left, top));
        }
        top += height_of(place, pair);
    }
    text.push_str("</svg>\n");
    text
}

fn lines(results: &Results, (topology, mtu): (Topology, u16), (_, case, metric): &Panel) -> Vec<Line> {
    let line = |peer| results.line(&Key { topology, mtu, case: *case, metric, peer });
    results.peers().into_iter().filter_map(line).collect()
}

fn rows(results: &Results, place: (Topology, u16), pair: &[Panel; 2]) -> usize {
    pair.iter().map(|one| lines(results, place, one).len()).max().unwrap_or(0)
}

fn panel(text: &mut String, results: &Results, place: (Topology, u16), one: &Panel, (left, top): (f64, f64)) {
    let lines = lines(results, place, one);
    if lines.is_empty() {
        return;
    }
    let heading = one.0;
    let most = lines.iter().map(|line| line.max).fold(0.0, f64::max);
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{}, underlay MTU {}</text>\n<text x=\"{}\" y=\"{}\" fill=\"#555\">{heading}</text>",
        left + 10.0,
        top + 20.0,
        place.0,
        place.1,
        left + 10.0,
        top + 38.0
    );
    for (number, line) in lines.iter().enumerate() {
        bar(text, line, left, top + HEAD + ROW * number as f64, most);
    }
}

fn bar(text: &mut String, line: &Line, left: f64, top: f64, most: f64) {
    let scale = |value: f64| if most > 0.0 { BARS * value / most } else { 0.0 };
    let (start, middle) = (left + LABEL, top + 9.0);
    let (low, high) = (start + scale(line.min), start + scale(line.max));
    let color = if line.peer.starts_with("warren") { "#b5541c" } else { "#8fa3b5" };
    let _ = writeln!(
        text,
        "<text x=\"{label}\" y=\"{base}\" text-anchor=\"end\">{peer}</text>\
         <rect x=\"{start}\" y=\"{top}\" width=\"{width:.1}\" height=\"18\" fill=\"{color}\"/>\
         <path d=\"M{low:.1} {middle}H{high:.1}\" stroke=\"#222\"/>\
         <text x=\"{after:.1}\" y=\"{base}\">{median}</text>",
        label = start - 6.0,
        base = top + 13.0,
        peer = line.peer,
        width = scale(line.median),
        after = high + 6.0,
        median = line.median,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{Taken, Value};

    #[test]
    fn a_plot_has_a_bar_for_each_value_and_no_empty_panels() {
        let mut results = Results::default();
        for (case, metric) in [(Case::Tcp1, "gbps"), (Case::Udp64, "pps"), (Case::Pipeline, "gbps_one_core")] {
            let taken = Taken { values: vec![Value { metric, value: 4.0 }], clean: true };
            results.add(Topology::Pods, 1500, "warren-aes-256-gcm", case, &taken);
            results.add(Topology::Pods, 1500, "forwarder", case, &taken);
        }
        let text = svg(&results);
        assert_eq!(text.matches("<path").count(), 6, "{text}");
        assert_eq!(text.matches("underlay MTU").count(), 3, "{text}");
    }
}
