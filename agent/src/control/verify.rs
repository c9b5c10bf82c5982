//! `warren verify PEER`: what the kernel would do with a packet, and what a fresh handshake measures.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use warren_crypto::association::Suite;
use warren_overlay::mesh::PeerSpec;
use warren_overlay::record::NodeName;

use super::Control;
use crate::admin::Verify;
use crate::dataplane::Dataplane;

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// How often the answer is looked for.
const LOOK: Duration = Duration::from_millis(10);

impl Control {
    /// Answers when the peer has, without keeping the control plane waiting.
    pub(super) async fn verify(&mut self, peer: &str, reply: oneshot::Sender<Result<Verify, String>>) {
        let found = self.peers.iter().find(|(name, _)| name.as_str() == peer);
        let Some((name, spec)) = found.map(|(name, spec)| (name.clone(), spec.clone())) else {
            let known: Vec<_> = self.peers.keys().map(NodeName::as_str).collect();
            let _ = reply.send(Err(format!("no peer is called {peer:?}; the peers are: {}", known.join(", "))));
            return;
        };
        let destination = destination(&spec);
        let route = match destination {
            Some(destination) => self.host.route_of(&self.desired(), destination).await,
            None => "the peer has no prefix".to_owned(),
        };
        let via_tunnel = route.contains(&self.config.overlay.device);
        let dataplane = Arc::clone(&self.dataplane);
        tokio::task::spawn_local(async move {
            let rtt = measure(&dataplane, &name).await;
            let report = dataplane.peers().into_iter().find(|peer| peer.name == name);
            let session = report.as_ref().is_some_and(|report| report.handshake_age.is_some());
            let suite = report.and_then(|report| report.association).map(|association| association.suite);
            let _ = reply.send(Ok(Verify {
                peer: name.to_string(),
                destination: destination.map(|address| address.to_string()).unwrap_or_default(),
                route,
                via_tunnel,
                session,
                rtt_ms: rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
                encrypted: via_tunnel && session,
                detail: detail(via_tunnel, session, rtt, suite),
            }));
        });
    }
}

/// An address that traffic for this peer would go to.
fn destination(spec: &PeerSpec) -> Option<IpAddr> {
    let cidr = spec.cidrs.iter().next();
    cidr.map(|cidr| cidr.hosts().next().unwrap_or_else(|| cidr.addr())).or_else(|| spec.addresses.first().copied())
}

/// The time of a fresh handshake: only the holder of the peer's key can answer it.
async fn measure(dataplane: &Dataplane, name: &NodeName) -> Option<Duration> {
    let started = Instant::now();
    dataplane.handshake(name);
    while started.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        let report = dataplane.peers().into_iter().find(|peer| peer.name == *name)?;
        if report.handshake_age.is_some_and(|age| age < started.elapsed()) {
            return report.handshake_time;
        }
        dataplane.handshake(name);
    }
    None
}

fn detail(via_tunnel: bool, session: bool, rtt: Option<Duration>, suite: Option<Suite>) -> String {
    match (via_tunnel, session, rtt) {
        (false, ..) => "the kernel would not send this traffic into the tunnel: see problems in `warren status`",
        (true, false, _) => "routed into the tunnel, but the peer does not answer: nothing passes, nothing leaks",
        (true, true, None) => "there is a session, but no answer to a fresh handshake: it was not measured",
        (true, true, Some(_)) => {
            return match suite {
                Some(suite) => format!(
                    "routed to the peer, authenticated just now, encrypted with {} in associations of its own (X25519 and \
                     ML-KEM-768)",
                    suite.name()
                ),
                None => "routed into the tunnel, authenticated just now, encrypted with ChaCha20-Poly1305".to_owned(),
            };
        }
    }
    .to_owned()
}
