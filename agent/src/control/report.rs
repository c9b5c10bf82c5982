//! What the agent tells of itself: the reply to `warren status`.

use std::time::{Duration, Instant};

use warren_overlay::mesh::Enforcement;
use warren_overlay::mesh::Origin;

use super::Control;
use super::accepted::listed;
use super::carriage::Carriage;
use super::desired::{registry_inside, registry_tunnelled};
use crate::admin::Request;
use crate::config::Mode;
use crate::dataplane::PeerReport;
use crate::status::{PeerStatus, RegistryStatus, Status};

/// A handshake, and its repetition after five seconds.
const UNANSWERED: Duration = Duration::from_secs(6);

impl Control {
    pub(super) async fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => {
                let _ = reply.send(self.status().await);
            }
            Request::Verify { peer, reply } => self.verify(&peer, reply).await,
            Request::AcceptMesh(reply) => {
                let held = self.held.clone();
                self.hold.accept();
                self.reconcile().await;
                let _ = reply.send(held.ok_or_else(|| "nothing is held: the mesh is as the registry says".to_owned()));
            }
            Request::Leave(reply) => {
                let _ = reply.send(self.leave().await);
            }
        }
    }

    pub(super) async fn status(&mut self) -> Status {
        let guard = self.host.guard_counters().await;
        Status {
            node: self.config.node.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            public_key: self.public_key.to_string(),
            port: self.config.underlay.port,
            mtu: self.mtu,
            cidrs: self.mesh.own_cidrs.iter().map(ToString::to_string).collect(),
            enforcement: enforcement(self.cluster().enforcement).to_owned(),
            mode: mode(self.config.overlay.mode).to_owned(),
            ready: guard.active
                && !self.underlay_devices.is_empty()
                && self.host_problem.is_none()
                && !self.has_no_prefixes_yet()
                && self.host_problems.is_empty(),
            workers: self.workers as u16,
            offloads: self.dataplane.offloads().iter().map(|name| (*name).to_owned()).collect(),
            registries: self.registries(),
            peers: self.dataplane.peers().iter().map(|peer| self.peer_status(peer)).collect(),
            drops: self
                .dataplane
                .drops()
                .iter()
                .filter(|(_, n)| *n > 0)
                .map(|(r, n)| (r.name().to_owned(), n))
                .collect(),
            strays: self.dataplane.strays(),
            guard,
            in_clear: self.seen_in_clear(),
            problems: self.problems(),
            refusals: self.mesh.refusals.clone(),
            repairs: self.repairs,
            held: self.held.clone(),
        }
    }

    fn registries(&self) -> Vec<RegistryStatus> {
        let status = |health: &crate::registry::Health| RegistryStatus {
            name: health.registry.to_owned(),
            ok: health.ok,
            detail: format!("{}{}", health.detail, self.unpublished(health)),
        };
        self.health.values().map(status).collect()
    }

    /// What the Node does not show, and so is not published.
    fn unpublished(&self, health: &crate::registry::Health) -> String {
        let left_out = self.left_out();
        if health.registry != "kubernetes" || left_out.is_empty() {
            return String::new();
        }
        format!("; not published, for the Node does not show it: {}", listed(&left_out))
    }

    fn peer_status(&self, report: &PeerReport) -> PeerStatus {
        let (spec, carriage) = (self.peers.get(&report.name), self.carriage(report));
        let origin = match carriage.origin {
            Origin::Static => "static",
            Origin::Registry => "registry",
        };
        PeerStatus {
            name: report.name.to_string(),
            public_key: report.public_key.to_string(),
            origin: origin.to_owned(),
            endpoint: report.endpoint.map(|endpoint| endpoint.to_string()),
            state: self.peer_state(report).to_owned(),
            proven: self.proven.has(&report.name),
            handshake_age: report.handshake_age.map(|age| age.as_secs()),
            tx_bytes: report.counters.tx_bytes,
            rx_bytes: report.counters.rx_bytes,
            tx_packets: report.counters.tx_packets,
            rx_packets: report.counters.rx_packets,
            drops: report.counters.drops,
            data: carriage.data().to_owned(),
            association: carriage.association(),
            why_tunnel: carriage.why_tunnel(),
            cidrs: spec.map(|spec| spec.cidrs.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        }
    }

    pub(super) fn carriage<'a>(&self, report: &'a PeerReport) -> Carriage<'a> {
        let origin = self.peers.get(&report.name).map_or(Origin::Registry, |spec| spec.origin);
        Carriage { stance: self.config.overlay.associations, workers: self.workers, origin, report }
    }

    fn peer_state(&self, report: &PeerReport) -> &'static str {
        match report {
            report if self.vanished.contains(&report.name) => "vanished",
            report if report.handshake_age.is_some() && !is_silent(report) => "up",
            report if report.connecting || is_silent(report) => "connecting",
            _ => "idle",
        }
    }

    /// A node that has yet to hear of the cluster believes its file.
    fn begins_in_clear(&self) -> Option<String> {
        let file = self.config.overlay.enforcement;
        (file == Enforcement::Permissive && self.cluster().enforcement == Enforcement::Strict).then(|| {
            "overlay.enforcement: the file says permissive, the cluster says strict: a node that starts with this file and \
             without the last good mesh sends in clear until it hears of the cluster; say strict in the file too"
                .to_owned()
        })
    }

    /// One sentence each: what, where, what to do.
    fn problems(&self) -> Vec<String> {
        let unwell = self.health.values().filter(|health| !health.ok);
        let registries = unwell.map(|health| format!("registry {}: {}", health.registry, health.detail));
        let silent = self.dataplane.peers().into_iter().filter(|peer| peer.connecting || is_silent(peer)).map(|peer| {
            let endpoint = peer.endpoint.map_or_else(|| "no known endpoint".to_owned(), |at| at.to_string());
            format!("peer {} does not answer at {endpoint}: is its agent running, and does UDP reach it?", peer.name)
        });
        let held = self.held.iter().cloned();
        let few = self.few_cidrs.iter().map(|why| format!("node.cidrs: {why}"));
        let cidrs = self.lacks_cidrs().into_iter().chain(few);
        let cni = cidrs
            .chain(self.held_cidrs())
            .chain(self.lent.problem(Instant::now()))
            .chain(self.cni_problems.iter().cloned());
        let host = self.host_problem.iter().chain(&self.host_problems).cloned();
        let inside = registry_inside(&self.config, &self.cluster().networks);
        let tunnelled = registry_tunnelled(&self.config, &self.peers);
        let unguarded = self
            .underlay_devices
            .is_empty()
            .then(|| "no underlay device was found, so the guard watches none: set underlay.devices".to_owned());
        let gaps = self.host.gaps().iter().cloned();
        let unheard = self.view.troubles();
        let registry = inside.into_iter().chain(tunnelled).chain(self.left_out_problem()).chain(self.begins_in_clear());
        let own = host.chain(unguarded).chain(cni).chain(gaps).chain(registry).chain(unheard);
        own.chain(registries).chain(silent).chain(held).collect()
    }
}

/// It answered neither a handshake nor its repetition: an old session proves no longer that anybody is there.
fn is_silent(peer: &PeerReport) -> bool {
    peer.unanswered.is_some_and(|time| time > UNANSWERED)
}

/// The name in the configuration.
fn enforcement(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Strict => "strict",
        Enforcement::Permissive => "permissive",
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Pods => "pods",
        Mode::Nodes => "nodes",
    }
}
