//! `warren verify PEER`: what the kernel would do with a packet, what a fresh handshake measures, and what carries data.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use warren_crypto::PublicKey;
use warren_overlay::mesh::PeerSpec;
use warren_overlay::record::NodeName;

use super::Control;
use super::carriage::Carriage;
use crate::admin::Verify;
use crate::config::Associations;
use crate::dataplane::{Dataplane, PeerReport};
use crate::status::DROPPED;

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long two ends that agree on associations may take.
const AGREEMENT: Duration = Duration::from_secs(3);
/// How often the answer is looked for.
const LOOK: Duration = Duration::from_millis(10);

impl Control {
    /// Answers when the peer has, without keeping the control plane waiting.
    pub(super) async fn verify(&mut self, peer: &str, reply: oneshot::Sender<Result<Verify, String>>) {
        let found = self.peers.iter().find(|(name, _)| name.as_str() == peer);
        let Some((name, spec)) = found.map(|(name, spec)| (name.clone(), spec.clone())) else {
            let known: Vec<_> = self.peers.keys().map(NodeName::as_str).collect();
            let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
            let _ = reply.send(Err(format!("no peer is called {peer:?}; the peers are: {known}")));
            return;
        };
        let destination = destination(&spec);
        let route = match destination {
            Some(destination) => self.host.route_of(&self.desired(), destination).await,
            None => "the peer has no prefix".to_owned(),
        };
        let found = Verify {
            peer: name.to_string(),
            destination: destination.map(|address| address.to_string()).unwrap_or_default(),
            via_tunnel: route.contains(&self.config.overlay.device),
            route,
            workers: self.workers as u16,
            ..Verify::default()
        };
        let (stance, workers) = (self.config.overlay.associations, self.workers);
        let dataplane = Arc::clone(&self.dataplane);
        tokio::task::spawn_local(async move {
            let rtt = measure(&dataplane, &spec.public_key).await;
            // Who does not answer now agrees on nothing.
            let patience = rtt.map_or(Duration::ZERO, |_| AGREEMENT);
            let found = match agreed(&dataplane, &spec.public_key, patience, (stance, workers)).await {
                Some(report) => {
                    let carriage = Carriage { stance, workers, origin: spec.origin, report: &report };
                    judged(found, rtt, &carriage)
                }
                // It left the mesh meanwhile.
                None => Verify { detail: detail(&found), ..found },
            };
            let _ = reply.send(Ok(found));
        });
    }
}

/// An address that traffic for this peer would go to.
fn destination(spec: &PeerSpec) -> Option<IpAddr> {
    let cidr = spec.cidrs.iter().next();
    cidr.map(|cidr| cidr.hosts().next().unwrap_or_else(|| cidr.addr())).or_else(|| spec.addresses.first().copied())
}

/// The time of a fresh handshake: only the holder of the peer's key can answer it.
async fn measure(dataplane: &Dataplane, key: &PublicKey) -> Option<Duration> {
    let started = Instant::now();
    dataplane.handshake(key);
    while started.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        let report = dataplane.peer(key)?;
        if report.handshake_age.is_some_and(|age| age < started.elapsed()) {
            return report.handshake_time;
        }
        dataplane.handshake(key);
    }
    None
}

/// The peer once it is clear whether data to it travels in associations: they are asked for, as data would.
async fn agreed(
    dataplane: &Dataplane,
    key: &PublicKey,
    patience: Duration,
    (stance, workers): (Associations, usize),
) -> Option<PeerReport> {
    let started = Instant::now();
    loop {
        let report = dataplane.peer(key)?;
        let hopeful = stance != Associations::Off && report.speaks_associations && report.handshake_age.is_some();
        // What failed before may have been of another time: whatever is in the way is tried once more.
        let complete = report.association.is_ok_and(|association| association.lanes >= workers);
        if !hopeful || complete || started.elapsed() >= patience {
            return Some(report);
        }
        if report.association.is_err() {
            dataplane.associate(key);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What was found, with what it means.
fn judged(found: Verify, rtt: Option<Duration>, carriage: &Carriage<'_>) -> Verify {
    let session = carriage.report.handshake_age.is_some();
    let data = carriage.data();
    let found = Verify {
        session,
        rtt_ms: rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        encrypted: found.via_tunnel && session && data != DROPPED,
        dropped: carriage.is_dropped(),
        data: data.to_owned(),
        association: carriage.association(),
        why_tunnel: carriage.why_tunnel(),
        ..found
    };
    Verify { detail: detail(&found), ..found }
}

fn detail(found: &Verify) -> String {
    let why = found.why_tunnel.as_deref().unwrap_or_default();
    match found {
        Verify { via_tunnel: false, .. } => {
            "the kernel would not send this traffic into the tunnel: see problems in `warren status`".to_owned()
        }
        Verify { session: false, .. } => {
            "routed into the tunnel, but the peer does not answer: nothing passes, nothing leaks".to_owned()
        }
        Verify { association: None, dropped: true, .. } => format!(
            "routed to the peer, but data is dropped here (no_association): `overlay.associations` or a named \
             `overlay.suite` requires associations, and there are none: {why}"
        ),
        Verify { rtt_ms: None, .. } => {
            "there is a session, but no answer to a fresh handshake: it was not measured".to_owned()
        }
        Verify { association: Some(association), .. } => {
            let rest = if why.is_empty() { String::new() } else { format!("; {why}") };
            format!(
                "routed to the peer, authenticated just now, encrypted with {} in associations of its own (X25519 and \
                 ML-KEM-768){rest}",
                association.suite
            )
        }
        Verify { association: None, .. } => format!(
            "routed into the tunnel, authenticated just now, encrypted with ChaCha20-Poly1305; no associations: {why}"
        ),
    }
}

#[cfg(test)]
mod tests;
