//! What probes and metrics are made of: looked at when somebody asks, at most once a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tokio::sync::mpsc;
use warren_overlay::record::NodeName;

use super::{Control, in_clear};
use crate::dataplane::PeerReport;
use crate::health::{Acquaintance, Ask, Check, Contact, Handshake, Joining, Observation, Window};
use crate::status::{GuardStatus, InClear};

/// What was seen serves whoever asks within this.
const FRESH: Duration = Duration::from_secs(1);

/// Everything that is only there to be looked at.
pub(super) struct View {
    window: Window,
    started: SystemTime,
    last: Option<(Instant, Arc<Observation>)>,
    joining: Joining,
    contacts: BTreeMap<&'static str, Contact>,
    /// When handshakes were, so that they stay where they were said to be.
    handshakes: BTreeMap<NodeName, u64>,
    /// Whose prefixes are counted in clear.
    owners: BTreeMap<IpNet, NodeName>,
}

impl View {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            started: SystemTime::now(),
            last: None,
            joining: Joining::default(),
            contacts: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// The control plane turns.
    pub(super) fn turn(&self) {
        self.window.vitals.turn();
    }

    /// Somebody wants to look.
    pub(super) fn asked(&mut self) -> &mut mpsc::Receiver<Ask> {
        &mut self.window.asked
    }

    /// A registry answered just now.
    pub(super) fn contact(&mut self, registry: &'static str, revision: u64) {
        self.contacts.insert(registry, Contact { at: seconds(SystemTime::now()), revision });
    }

    /// Why an address for probes or metrics does not answer.
    pub(super) fn troubles(&self) -> Vec<String> {
        self.window.troubles.all()
    }

    /// Handshakes by name. Their ages are known to a fraction of a second and the time they are taken from moves on: what
    /// comes out a second apart is the same handshake. One whose session is gone stays until its peer is.
    fn handshakes(&mut self, reports: &[PeerReport]) -> BTreeMap<String, Handshake> {
        self.handshakes.retain(|name, _| reports.iter().any(|report| report.name == *name));
        let now = SystemTime::now();
        for report in reports {
            let Some(age) = report.handshake_age else { continue };
            let at = now.checked_sub(age).map_or(0.0, seconds) as u64;
            let known = self.handshakes.entry(report.name.clone()).or_insert(at);
            if known.abs_diff(at) > 1 {
                *known = at;
            }
        }
        let of = |report: &PeerReport| {
            let at = *self.handshakes.get(&report.name)?;
            Some((report.name.to_string(), Handshake { at, took: report.handshake_time }))
        };
        reports.iter().filter_map(of).collect()
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Control {
    pub(super) async fn observe(&mut self, ask: Ask) {
        let fresh = self.view.last.as_ref().filter(|(at, _)| at.elapsed() < FRESH);
        let observation = match fresh {
            Some((_, observation)) => Arc::clone(observation),
            None => {
                let observation = Arc::new(self.look().await);
                self.view.last = Some((Instant::now(), Arc::clone(&observation)));
                observation
            }
        };
        let _ = ask.send(observation);
    }

    async fn look(&mut self) -> Observation {
        self.join();
        let status = self.status().await;
        let reports = self.dataplane.peers();
        Observation {
            checks: self.checks(&status.guard),
            device: self.config.overlay.device.clone(),
            started: seconds(self.view.started),
            drops: self.dataplane.drops(),
            traffic: self.dataplane.traffic(),
            handshakes: self.view.handshakes(&reports),
            contacts: self.view.contacts.clone(),
            status,
        }
    }

    /// What must be so for this node to be ready.
    pub(super) fn checks(&self, guard: &GuardStatus) -> Vec<Check> {
        let device = &self.config.overlay.device;
        let when = |wrong: bool, problem: &dyn Fn() -> String| wrong.then(problem);
        let unguarded = match (guard.active, self.underlay_devices.is_empty()) {
            (false, _) => Some("its rules are not loaded, or `nft` does not answer".to_owned()),
            (true, true) => Some("no underlay device was found, so it watches none: set underlay.devices".to_owned()),
            (true, false) => None,
        };
        vec![
            Check::new("device", when(self.dataplane.device_is_gone(), &|| format!("somebody deleted {device}"))),
            Check::new("guard", unguarded),
            Check::new("host", self.host_problem.clone()),
            Check::new("routes", when(!self.host_problems.is_empty(), &|| self.host_problems.join("; "))),
            Check::new(
                "mesh",
                when(!self.has_mesh(), &|| {
                    "the registry has not answered since the start, and no mesh is remembered".to_owned()
                }),
            ),
            Check::new("peers", self.view.joining.problem()),
        ]
    }

    /// The first whole mesh is there, from the registry, from disk, or, without a registry, from the file.
    fn has_mesh(&self) -> bool {
        !self.config.has_store() || self.snapshot.is_some()
    }

    /// Looks whom of the first mesh this node has met.
    pub(super) fn join(&mut self) {
        if self.view.joining.is_done() || !self.has_mesh() || self.host_problem.is_some() {
            return;
        }
        let called = |report: &PeerReport| {
            let spec = self.peers.get(&report.name);
            spec.is_some_and(|spec| !spec.endpoints.is_empty()) && !self.vanished.contains(&report.name)
        };
        let acquaintance = |report: PeerReport| Acquaintance {
            name: report.name.to_string(),
            met: report.handshake_age.is_some(),
            unanswered: report.unanswered,
        };
        let peers: Vec<_> = self.dataplane.peers().into_iter().filter(called).map(acquaintance).collect();
        self.view.joining.look(Instant::now(), peers);
    }

    /// Counts by node from now on what passes in clear.
    pub(super) fn count_in_clear(&mut self) {
        let facts = in_clear::Facts {
            own: &self.config.node.name,
            cluster: &self.cluster(),
            snapshot: self.snapshot.as_deref(),
            peers: &self.peers,
            proven: &self.proven.cidrs(),
        };
        self.view.owners = in_clear::owners(&facts);
        self.host.count_in_clear(&self.underlay_devices, self.view.owners.keys().copied().collect());
    }

    /// What was counted since.
    pub(super) fn seen_in_clear(&mut self) -> BTreeMap<String, InClear> {
        let mut seen: BTreeMap<String, InClear> = BTreeMap::new();
        for (prefix, (received, sent)) in self.host.in_clear() {
            let Some(owner) = self.view.owners.get(&prefix) else { continue };
            let counted = seen.entry(owner.to_string()).or_default();
            counted.received += received;
            counted.sent += sent;
        }
        seen
    }
}
