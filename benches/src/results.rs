//! Values of many runs, and what is said of them: median, least, most.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cases::{Case, Taken};
use crate::peers::order;
use crate::world::Topology;

/// What a series of values belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Topology.
    pub topology: Topology,
    /// MTU of the underlay.
    pub mtu: u16,
    /// Case.
    pub case: Case,
    /// Metric.
    pub metric: &'static str,
    /// Peer.
    pub peer: &'static str,
}

/// One line of `results.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Case.
    pub case: String,
    /// MTU of the underlay.
    pub mtu: u16,
    /// Topology.
    pub topology: String,
    /// Peer.
    pub peer: String,
    /// Metric.
    pub metric: String,
    /// Median.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Most.
    pub max: f64,
    /// Values that count.
    pub runs: usize,
}

/// All values.
#[derive(Clone, Debug, Default)]
pub struct Results {
    series: BTreeMap<Key, Vec<(f64, bool)>>,
    /// Peers that failed in a place, with the reason; they are shown, not hidden.
    pub failures: Vec<String>,
}

impl Results {
    /// Takes in what one run of a case gave.
    pub fn add(&mut self, topology: Topology, mtu: u16, peer: &'static str, case: Case, taken: &Taken) {
        for value in &taken.values {
            let key = Key { topology, mtu, case, metric: value.metric, peer };
            self.series.entry(key).or_default().push((value.value, taken.clean));
        }
    }

    /// Topologies and underlay MTUs that have values, in order.
    pub fn places(&self) -> Vec<(Topology, u16)> {
        let mut places: Vec<_> = self.series.keys().map(|key| (key.topology, key.mtu)).collect();
        places.dedup();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Peers that have values, in the order in which all are listed.
    pub fn peers(&self) -> Vec<&'static str> {
        let mut peers: Vec<_> = self.series.keys().map(|key| key.peer).collect();
        peers.sort_unstable_by_key(|peer| (order(peer), *peer));
        peers.dedup();
        peers
    }

    /// The line of a series.
    pub fn line(&self, key: &Key) -> Option<Line> {
        let mut values = trusted(self.series.get(key)?);
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Line {
            case: key.case.to_string(),
            mtu: key.mtu,
            topology: key.topology.to_string(),
            peer: key.peer.to_owned(),
            metric: key.metric.to_owned(),
            median: round(percentile(&values, 0.5)),
            min: round(min),
            max: round(max),
            runs: values.len(),
        })
    }

    /// All lines.
    pub fn lines(&self) -> Vec<Line> {
        self.series.keys().filter_map(|key| self.line(key)).collect()
    }

    /// Values left out, and values kept although too much time was stolen.
    pub fn doubtful(&self) -> (usize, usize) {
        let (mut left_out, mut kept) = (0, 0);
        for values in self.series.values() {
            let stolen = values.iter().filter(|(_, clean)| !clean).count();
            if trusted(values).len() < values.len() { left_out += stolen } else { kept += stolen }
        }
        (left_out, kept)
    }
}

/// The clean values where they are at least half; else all.
fn trusted(values: &[(f64, bool)]) -> Vec<f64> {
    let clean: Vec<f64> = values.iter().filter(|(_, clean)| *clean).map(|(value, _)| *value).collect();
    if clean.len() * 2 >= values.len() { clean } else { values.iter().map(|(value, _)| *value).collect() }
}

/// A percentile of sorted values, between neighbours where it falls between.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// Four digits that matter.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Value;

    fn line(values: &[(f64, bool)]) -> (Line, (usize, usize)) {
        let mut results = Results::default();
        for (value, clean) in values {
            let taken = Taken { values: vec![Value { metric: "gbps", value: *value }], clean: *clean };
            results.add(Topology::Nodes, 1500, "veth", Case::Tcp1, &taken);
        }
        (results.lines().remove(0), results.doubtful())
    }

    #[test]
    fn stolen_runs_are_left_out_while_enough_others_remain() {
        let (line, doubtful) = line(&[(10.0, true), (1.0, false), (12.0, true)]);
        assert_eq!((line.median, line.min, line.max, line.runs, doubtful), (11.0, 10.0, 12.0, 2, (1, 0)));
    }

    #[test]
    fn stolen_runs_are_kept_and_counted_when_most_are_stolen() {
        let (line, doubtful) = line(&[(10.0, true), (4.0, false), (6.0, false)]);
        assert_eq!((line.median, line.runs, doubtful), (6.0, 3, (0, 2)));
    }

    #[test]
    fn percentiles_lie_between_neighbours() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.99), percentile(&[], 0.5)), (50.0, 99.0, 0.0));
        assert_eq!(percentile(&[1.0, 2.0], 0.5), 1.5);
    }

    #[test]
    fn a_json_line_has_the_agreed_fields() {
        let (line, _) = line(&[(1.65432, true)]);
        let text = serde_json::to_string(&line).unwrap();
        let agreed = r#"{"case":"tcp1","mtu":1500,"topology":"nodes","peer":"veth","metric":"gbps","median":1.654,"min":1.654,"max":1.654,"runs":1}"#;
        assert_eq!(text, agreed);
    }
}
