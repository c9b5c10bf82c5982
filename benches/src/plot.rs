//! A plot as SVG: for each place, bars of throughput and of processor time per gigabyte, with the spread of the runs.

use std::fmt::Write as _;

use crate::cases::Case;
use crate::peers::names;
use crate::results::{Key, Line, Results};
use crate::world::Topology;

const WIDTH: f64 = 980.0;
const ROW: f64 = 24.0;
const LABEL: f64 = 110.0;
const BARS: f64 = 300.0;
const PANEL: f64 = WIDTH / 2.0;
const HEAD: f64 = 52.0;

/// The two panels: heading, metric.
const PANELS: [(&str, &str); 2] = [
    ("TCP, one stream: Gb/s (more is better)", "gbps"),
    ("CPU seconds of the tunnel per GB (less is better)", "cpu_s_per_gb"),
];

/// The whole picture.
pub fn svg(results: &Results) -> String {
    let places = results.places();
    let height_of = |place: &(Topology, u16)| HEAD + ROW * rows(results, *place).max(1) as f64 + 12.0;
    let height: f64 = places.iter().map(height_of).sum();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for place in &places {
        for (number, (heading, metric)) in PANELS.iter().enumerate() {
            panel(&mut text, results, *place, heading, metric, (number as f64 * PANEL, top));
        }
        top += height_of(place);
    }
    text.push_str("</svg>\n");
    text
}

fn lines(results: &Results, (topology, mtu): (Topology, u16), metric: &'static str) -> Vec<Line> {
    let line = |peer| results.line(&Key { topology, mtu, case: Case::Tcp1, metric, peer });
    names().into_iter().filter_map(line).collect()
}

fn rows(results: &Results, place: (Topology, u16)) -> usize {
    PANELS.iter().map(|(_, metric)| lines(results, place, metric).len()).max().unwrap_or(0)
}

fn panel(
    text: &mut String,
    results: &Results,
    place: (Topology, u16),
    heading: &str,
    metric: &'static str,
    (left, top): (f64, f64),
) {
    let lines = lines(results, place, metric);
    let most = lines.iter().map(|line| line.max).fold(0.0, f64::max);
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{}, underlay MTU {}</text><text x=\"{}\" y=\"{}\" fill=\"#555\">{heading}</text>",
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
