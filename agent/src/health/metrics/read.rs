//! What each metric is, read from an observation. Pure.

use std::collections::BTreeMap;

use warren_crypto::association::Suite;

use super::{Sample, Value};
use crate::health::observation::{Contact, Observation};
use crate::status::{InClear, PeerStatus};

/// What [`PeerStatus::state`] can be.
const STATES: [&str; 4] = ["up", "connecting", "idle", "vanished"];
/// How data travels that is in no association.
const TUNNEL: &str = "tunnel";

fn one(value: u64) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value: Value::Whole(value) }]
}

fn labelled<const N: usize>(labels: [&str; N], value: u64) -> Sample {
    Sample { labels: labels.map(str::to_owned).into(), value: Value::Whole(value) }
}

fn real(label: &str, value: f64) -> Sample {
    Sample { labels: vec![label.to_owned()], value: Value::Real(value) }
}

pub(super) fn build(observation: &Observation) -> Vec<Sample> {
    vec![labelled([&observation.status.version], 1)]
}

pub(super) fn node(observation: &Observation) -> Vec<Sample> {
    let status = &observation.status;
    vec![labelled([&status.node, &status.mode, &status.enforcement], 1)]
}

pub(super) fn started(observation: &Observation) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value: Value::Real(observation.started) }]
}

pub(super) fn ready(observation: &Observation) -> Vec<Sample> {
    one(observation.is_ready().into())
}

pub(super) fn checks(observation: &Observation) -> Vec<Sample> {
    observation.checks.iter().map(|check| labelled([check.name], check.passes().into())).collect()
}

pub(super) fn problems(observation: &Observation) -> Vec<Sample> {
    one(observation.status.problems.len() as u64)
}

pub(super) fn workers(observation: &Observation) -> Vec<Sample> {
    one(observation.status.workers.into())
}

pub(super) fn mtu(observation: &Observation) -> Vec<Sample> {
    one(observation.status.mtu.into())
}

pub(super) fn peers(observation: &Observation) -> Vec<Sample> {
    let count = |state: &str| observation.status.peers.iter().filter(|peer| peer.state == state).count() as u64;
    STATES.map(|state| labelled([state], count(state))).into()
}

fn suite(peer: &PeerStatus) -> &str {
    peer.association.as_ref().map_or(TUNNEL, |association| &association.suite)
}

pub(super) fn suites(observation: &Observation) -> Vec<Sample> {
    let count = |name: &str| observation.status.peers.iter().filter(|peer| suite(peer) == name).count() as u64;
    let names = [Suite::Aes256Gcm.name(), Suite::ChaCha20Poly1305.name(), TUNNEL];
    names.map(|name| labelled([name], count(name))).into()
}

pub(super) fn received_bytes(observation: &Observation) -> Vec<Sample> {
    one(observation.traffic.rx_bytes)
}

pub(super) fn sent_bytes(observation: &Observation) -> Vec<Sample> {
    one(observation.traffic.tx_bytes)
}

pub(super) fn received_packets(observation: &Observation) -> Vec<Sample> {
    one(observation.traffic.rx_packets)
}

pub(super) fn sent_packets(observation: &Observation) -> Vec<Sample> {
    one(observation.traffic.tx_packets)
}

pub(super) fn drops(observation: &Observation) -> Vec<Sample> {
    observation.drops.iter().map(|(reason, lost)| labelled([reason.name()], lost)).collect()
}

pub(super) fn strays(observation: &Observation) -> Vec<Sample> {
    one(observation.status.strays)
}

pub(super) fn guard_active(observation: &Observation) -> Vec<Sample> {
    one(observation.status.guard.active.into())
}

pub(super) fn guard_refused(observation: &Observation) -> Vec<Sample> {
    one(observation.status.guard.refused)
}

pub(super) fn guard_passed(observation: &Observation) -> Vec<Sample> {
    one(observation.status.guard.passed)
}

pub(super) fn registry_up(observation: &Observation) -> Vec<Sample> {
    observation.status.registries.iter().map(|registry| labelled([&registry.name], registry.ok.into())).collect()
}

pub(super) fn registry_revision(observation: &Observation) -> Vec<Sample> {
    contacts(observation, |name, contact| labelled([name], contact.revision))
}

pub(super) fn registry_contact(observation: &Observation) -> Vec<Sample> {
    contacts(observation, |name, contact| real(name, contact.at))
}

fn contacts(observation: &Observation, sample: impl Fn(&str, &Contact) -> Sample) -> Vec<Sample> {
    observation.contacts.iter().map(|(name, contact)| sample(name, contact)).collect()
}

pub(super) fn refusals(observation: &Observation) -> Vec<Sample> {
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for refusal in &observation.status.refusals {
        *by_reason.entry(&refusal.reason).or_default() += 1;
    }
    by_reason.into_iter().map(|(reason, count)| labelled([reason], count)).collect()
}

pub(super) fn held(observation: &Observation) -> Vec<Sample> {
    one(observation.status.held.is_some().into())
}

pub(super) fn repairs(observation: &Observation) -> Vec<Sample> {
    one(observation.status.repairs)
}

fn each(observation: &Observation, value: impl Fn(&PeerStatus) -> u64) -> Vec<Sample> {
    observation.status.peers.iter().map(|peer| labelled([&peer.name], value(peer))).collect()
}

pub(super) fn peer_up(observation: &Observation) -> Vec<Sample> {
    each(observation, |peer| (peer.state == "up").into())
}

pub(super) fn peer_received_bytes(observation: &Observation) -> Vec<Sample> {
    each(observation, |peer| peer.rx_bytes)
}

pub(super) fn peer_sent_bytes(observation: &Observation) -> Vec<Sample> {
    each(observation, |peer| peer.tx_bytes)
}

pub(super) fn peer_received_packets(observation: &Observation) -> Vec<Sample> {
    each(observation, |peer| peer.rx_packets)
}

pub(super) fn peer_sent_packets(observation: &Observation) -> Vec<Sample> {
    each(observation, |peer| peer.tx_packets)
}

pub(super) fn peer_drops(observation: &Observation) -> Vec<Sample> {
    each(observation, |peer| peer.drops)
}

pub(super) fn peer_handshake(observation: &Observation) -> Vec<Sample> {
    observation.handshakes.iter().map(|(peer, handshake)| labelled([peer], handshake.at)).collect()
}

pub(super) fn peer_handshake_duration(observation: &Observation) -> Vec<Sample> {
    let took = |(peer, handshake): (&String, &crate::health::Handshake)| {
        handshake.took.map(|took| real(peer, took.as_secs_f64()))
    };
    observation.handshakes.iter().filter_map(took).collect()
}

pub(super) fn peer_lanes(observation: &Observation) -> Vec<Sample> {
    let lanes = |peer: &PeerStatus| peer.association.as_ref().map_or(0, |association| association.lanes as u64);
    observation.status.peers.iter().map(|peer| labelled([&peer.name, suite(peer)], lanes(peer))).collect()
}

pub(super) fn peer_post_quantum(observation: &Observation) -> Vec<Sample> {
    each(observation, |peer| peer.association.as_ref().is_some_and(|association| association.post_quantum).into())
}

pub(super) fn in_clear_sent(observation: &Observation) -> Vec<Sample> {
    in_clear(observation, |counted| counted.sent)
}

pub(super) fn in_clear_received(observation: &Observation) -> Vec<Sample> {
    in_clear(observation, |counted| counted.received)
}

fn in_clear(observation: &Observation, count: fn(&InClear) -> u64) -> Vec<Sample> {
    observation.status.in_clear.iter().map(|(node, counted)| labelled([node], count(counted))).collect()
}

fn wireguard(observation: &Observation, value: impl Fn(&PeerStatus) -> u64) -> Vec<Sample> {
    let sample = |peer: &PeerStatus| labelled([&observation.device, &peer.public_key, &peer.name], value(peer));
    observation.status.peers.iter().map(sample).collect()
}

pub(super) fn wireguard_sent(observation: &Observation) -> Vec<Sample> {
    wireguard(observation, |peer| peer.tx_bytes)
}

pub(super) fn wireguard_received(observation: &Observation) -> Vec<Sample> {
    wireguard(observation, |peer| peer.rx_bytes)
}

pub(super) fn wireguard_handshake(observation: &Observation) -> Vec<Sample> {
    wireguard(observation, |peer| observation.handshakes.get(&peer.name).map_or(0, |handshake| handshake.at))
}
