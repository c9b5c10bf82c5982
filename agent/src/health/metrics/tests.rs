//! The text, held to the format by a reader of its own, and the table to its page.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use warren_overlay::drops::DropReason;
use warren_overlay::mesh::Refusal;
use warren_tests::openmetrics::Exposition;

use super::*;
use crate::dataplane::PeerCounters;
use crate::health::{Check, Contact, Handshake};
use crate::status::{AssociationStatus, GuardStatus, InClear, PeerStatus, RegistryStatus, Status};

fn peer(name: &str, state: &str, association: Option<AssociationStatus>) -> PeerStatus {
    PeerStatus {
        name: name.into(),
        public_key: format!("{name}+/="),
        state: state.into(),
        tx_bytes: u64::MAX,
        rx_bytes: 2,
        tx_packets: 3,
        rx_packets: 4,
        drops: 5,
        association,
        ..PeerStatus::default()
    }
}

fn refusal(reason: &str) -> Refusal {
    Refusal { subject: "nodes/x".into(), cidr: None, reason: reason.into(), detail: "\n# EOF\n".into() }
}

/// A name, its labels, its value.
type Series<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

/// One with something of everything, and with names that could break a line.
fn observation() -> Observation {
    let association = AssociationStatus {
        suite: "aes-256-gcm".into(),
        lanes: 2,
        age: 7,
        post_quantum: true,
        ..AssociationStatus::default()
    };
    let status = Status {
        node: "node-a".into(),
        version: "1.2.3".into(),
        mtu: 1420,
        enforcement: "permissive".into(),
        mode: "pods".into(),
        workers: 2,
        registries: vec![RegistryStatus { name: "etcd".into(), ok: true, detail: "a\nb".into() }],
        peers: vec![peer("b", "up", Some(association)), peer("c", "connecting", None)],
        strays: 9,
        guard: GuardStatus { active: true, refused: 11, passed: 12 },
        in_clear: BTreeMap::from([("d".into(), InClear { sent: 31, received: 32 })]),
        problems: vec!["one".into()],
        refusals: vec![refusal("overlap"), refusal("overlap"), refusal("malformed")],
        repairs: 13,
        held: Some("most of the mesh".into()),
        ..Status::default()
    };
    let mut observation = Observation {
        status,
        device: "wa\"rr\\en".into(),
        started: 1.5e9 + 0.25,
        checks: vec![Check::new("guard", None), Check::new("mesh", Some("no".into()))],
        traffic: PeerCounters { rx_bytes: 21, tx_bytes: 22, rx_packets: 23, tx_packets: 24, drops: 25 },
        handshakes: BTreeMap::from([(
            "b".into(),
            Handshake { at: 1_700_000_000, took: Some(Duration::from_millis(3)) },
        )]),
        contacts: BTreeMap::from([("etcd", Contact { at: 1.7e9, revision: 41 })]),
        ..Observation::default()
    };
    observation.drops.add(DropReason::Forged, 51);
    observation
}

fn read(observation: &Observation, per_peer: bool) -> Exposition {
    let text = text(observation, per_peer);
    Exposition::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn everything_that_is_observed_is_written_once_and_in_the_format() {
    let read = read(&observation(), true);
    let expected: &[Series<'_>] = &[
        ("warren_build_info", &[("version", "1.2.3")], 1.0),
        ("warren_node_info", &[("node", "node-a"), ("mode", "pods"), ("enforcement", "permissive")], 1.0),
        ("warren_start_time_seconds", &[], 1_500_000_000.25),
        ("warren_ready", &[], 0.0),
        ("warren_check", &[("check", "guard")], 1.0),
        ("warren_check", &[("check", "mesh")], 0.0),
        ("warren_problems", &[], 1.0),
        ("warren_workers", &[], 2.0),
        ("warren_mtu_bytes", &[], 1420.0),
        ("warren_peers", &[("state", "up")], 1.0),
        ("warren_peers", &[("state", "idle")], 0.0),
        ("warren_peers_by_suite", &[("suite", "aes-256-gcm")], 1.0),
        ("warren_peers_by_suite", &[("suite", "tunnel")], 1.0),
        ("warren_received_bytes_total", &[], 21.0),
        ("warren_sent_bytes_total", &[], 22.0),
        ("warren_received_packets_total", &[], 23.0),
        ("warren_sent_packets_total", &[], 24.0),
        ("warren_dropped_packets_total", &[("reason", "forged")], 51.0),
        ("warren_dropped_packets_total", &[("reason", "replay")], 0.0),
        ("warren_stray_datagrams_total", &[], 9.0),
        ("warren_guard_active", &[], 1.0),
        ("warren_guard_refused_packets_total", &[], 11.0),
        ("warren_guard_passed_packets_total", &[], 12.0),
        ("warren_registry_up", &[("registry", "etcd")], 1.0),
        ("warren_registry_revision", &[("registry", "etcd")], 41.0),
        ("warren_registry_last_contact_timestamp_seconds", &[("registry", "etcd")], 1.7e9),
        ("warren_refused_records", &[("reason", "overlap")], 2.0),
        ("warren_refused_records", &[("reason", "malformed")], 1.0),
        ("warren_mesh_held", &[], 1.0),
        ("warren_drift_repairs_total", &[], 13.0),
        ("warren_peer_up", &[("peer", "b")], 1.0),
        ("warren_peer_up", &[("peer", "c")], 0.0),
        ("warren_peer_received_bytes_total", &[("peer", "b")], 2.0),
        ("warren_peer_sent_bytes_total", &[("peer", "b")], u64::MAX as f64),
        ("warren_peer_received_packets_total", &[("peer", "c")], 4.0),
        ("warren_peer_sent_packets_total", &[("peer", "c")], 3.0),
        ("warren_peer_dropped_packets_total", &[("peer", "c")], 5.0),
        ("warren_peer_last_handshake_timestamp_seconds", &[("peer", "b")], 1.7e9),
        ("warren_peer_handshake_duration_seconds", &[("peer", "b")], 0.003),
        ("warren_peer_lanes", &[("peer", "b"), ("suite", "aes-256-gcm")], 2.0),
        ("warren_peer_lanes", &[("peer", "c"), ("suite", "tunnel")], 0.0),
        ("warren_peer_post_quantum", &[("peer", "b")], 1.0),
        ("warren_peer_post_quantum", &[("peer", "c")], 0.0),
        ("warren_peer_in_clear_sent_packets_total", &[("peer", "d")], 31.0),
        ("warren_peer_in_clear_received_packets_total", &[("peer", "d")], 32.0),
    ];
    for (name, labels, value) in expected {
        assert_eq!(read.value(name, labels), Some(*value), "{name} {labels:?}");
    }
    // Nothing but what was made up: the two peers have the three names of WireGuard's exporter, checked below.
    assert_eq!(read.value("warren_peer_last_handshake_timestamp_seconds", &[("peer", "c")]), None);
}

#[test]
fn the_names_that_dashboards_for_wireguard_know_are_there_with_their_labels() {
    let read = read(&observation(), true);
    let peer = |name: &str, of: &'static str| {
        let labels = [("interface", "wa\"rr\\en"), ("public_key", &format!("{of}+/=")), ("friendly_name", of)];
        read.value(name, &labels)
    };
    assert_eq!(peer("wireguard_sent_bytes_total", "b"), Some(u64::MAX as f64));
    assert_eq!(peer("wireguard_received_bytes_total", "c"), Some(2.0));
    assert_eq!(peer("wireguard_latest_handshake_seconds", "b"), Some(1.7e9));
    assert_eq!(peer("wireguard_latest_handshake_seconds", "c"), Some(0.0), "never");
}

#[test]
fn every_family_is_written_with_the_labels_of_the_table() {
    let read = read(&observation(), true);
    for family in FAMILIES {
        let samples: Vec<_> = read.samples().filter(|(name, _)| *name == family.sample_name()).collect();
        assert!(!samples.is_empty(), "{} is never written", family.name);
        for (_, labels) in samples {
            assert_eq!(labels.len(), family.labels.len(), "{}: {labels:?}", family.name);
            assert!(family.labels.iter().all(|label| labels.contains_key(*label)), "{}: {labels:?}", family.name);
        }
    }
}

#[test]
fn without_series_of_every_peer_no_name_and_no_key_of_one_is_left() {
    let text = text(&observation(), false);
    let read = Exposition::parse(&text).expect("valid");
    assert!(read.samples().all(|(_, labels)| !labels.contains_key("peer") && !labels.contains_key("public_key")));
    assert!(!text.contains("wireguard_") && !text.contains("b+/="), "{text}");
    assert_eq!(read.value("warren_sent_bytes_total", &[]), Some(22.0), "the sums stay");
}

#[test]
fn an_agent_that_knows_nothing_yet_is_written_in_the_format_too() {
    let read = read(&Observation::default(), true);
    assert_eq!(read.value("warren_peers", &[("state", "up")]), Some(0.0));
    assert_eq!(read.value("warren_registry_up", &[("registry", "etcd")]), None);
}

#[test]
fn every_drop_has_a_series_from_the_start() {
    let read = read(&Observation::default(), false);
    for reason in DropReason::ALL {
        assert_eq!(read.value("warren_dropped_packets_total", &[("reason", reason.name())]), Some(0.0), "{reason:?}");
    }
}

#[test]
fn the_page_in_the_repository_is_that_of_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned();
    let (path, text) = (root.join("docs/metrics.md"), page());
    if std::env::var_os("WARREN_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).expect("the repository can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/metrics.md is stale: WARREN_WRITE_DOCS=1 cargo test -p warren --lib metrics");
}
