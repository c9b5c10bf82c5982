//! The control plane: one task loop, the sole owner of the mesh. Facts come in by channels; the pure `overlay::mesh`
//! says what should be; the data path, the host and the registry are told.
//!
//! Order at start: guard, device, routes, and only then the record is published. Nothing here waits for a registry.

mod accepted;
mod carriage;
pub(crate) mod cni;
mod concerns;
mod desired;
mod in_clear;
mod lent;
mod observe;
mod reconcile;
mod report;
mod restarts;
mod start;
pub(crate) mod underlay;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use warren_crypto::PublicKey;
use warren_crypto::association::Suite;
use warren_overlay::hold::Hold;
use warren_overlay::mesh::{Mesh, Ownership, PeerSpec, Snapshot, StaticPeer};
use warren_overlay::record::{NodeName, Record};

use crate::admin;
use crate::cidrs::Given;
use crate::config::{Cidrs, Config};
use crate::dataplane::Dataplane;
use crate::host::{Host, VxlanSocket};
use crate::proven::Proven;
use crate::registry::cache::Cached;
use crate::registry::{self, Health};

/// How often the control plane looks at its tunnels, deadlines and counters.
const PULSE: Duration = Duration::from_secs(1);

/// How often the host is read back although nothing was heard.
const LOOK: Duration = Duration::from_secs(30);

/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(10);

/// How long the last answer may take to leave.
const FAREWELL: Duration = Duration::from_millis(200);

/// Why the agent cannot run. Every message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host lacks something, or refuses something.
    #[error("{0}")]
    Host(String),
    /// The private key cannot be used.
    #[error("{0}")]
    Key(String),
    /// Another agent, or a stale socket that cannot be removed.
    #[error("{0}")]
    Admin(String),
}

/// Runs the agent until SIGTERM, SIGINT or `warren leave`.
///
/// # Errors
/// When it cannot start; once it runs, it keeps running.
pub fn run(config: Config) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Host(format!("the event loop cannot start: {error}")))?;
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let mut control = Control::start(config).await?;
        control.serve().await;
        admin::end(&control.config.node.run_dir);
        Ok(())
    }))
}

/// Everything the control plane knows.
struct Control {
    config: Config,
    public_key: PublicKey,
    node_addresses: BTreeSet<IpAddr>,
    mtu: u16,
    workers: usize,
    /// What this node speaks on associations, best first.
    suites: Vec<Suite>,
    /// Shared with answers that take their time; the threads end with the last owner.
    dataplane: Arc<Dataplane>,
    host: Host,
    underlay_devices: BTreeSet<String>,
    gateways: BTreeSet<IpAddr>,
    /// Where the VXLAN devices of this host take datagrams.
    vxlan: BTreeSet<VxlanSocket>,
    hold: Hold,
    statics: Vec<StaticPeer>,
    snapshot: Option<Arc<Snapshot>>,
    ownership: Ownership,
    /// What is on disk.
    remembered: Cached,
    mesh: Mesh,
    /// The peers in force: the mesh after grace and brake.
    peers: BTreeMap<NodeName, PeerSpec>,
    /// MTU of the way to an underlay address; forgotten when the host changes.
    path_mtus: BTreeMap<IpAddr, u16>,
    vanished: BTreeSet<NodeName>,
    held: Option<String>,
    /// When the hold wants to be asked again.
    deadline: Option<Instant>,
    /// Peers with whom a tunnel has stood: never again in clear.
    proven: Proven,
    /// Those with whom one has stood since the start, and of whom that was said.
    met: BTreeSet<NodeName>,
    /// What the API server said last of this node's prefixes, where it is asked.
    given: Option<Given>,
    /// What Pods here have of others' prefixes.
    lent: lent::Lent,
    /// Whose API server that is.
    api_server: Option<String>,
    /// Why the CNI does not say this node's prefixes, where it is asked.
    no_cidrs: Option<String>,
    /// Why they are not all.
    few_cidrs: Option<String>,
    /// Why the CNI's folder is not as it should be.
    cni_problems: Vec<String>,
    health: BTreeMap<&'static str, Health>,
    /// The stores' tasks, which speak by `to_events`.
    registries: Vec<tokio::task::AbortHandle>,
    restarts: restarts::Restarts,
    to_events: mpsc::Sender<registry::Event>,
    publish: watch::Sender<Option<Record>>,
    /// What of the configuration the store is to know, and may change.
    cidrs: watch::Sender<Cidrs>,
    events: mpsc::Receiver<registry::Event>,
    requests: mpsc::Receiver<admin::Request>,
    changes: mpsc::Receiver<()>,
    /// Why the host could not be brought in line, if it could not.
    host_problem: Option<String>,
    /// What the kernel would do against us.
    host_problems: Vec<String>,
    next_check: Instant,
    /// When the host is read back whole, whatever was heard.
    next_look: Instant,
    repairs: u64,
    /// For who is not asked but told.
    concerns: concerns::Teller,
    /// For probes and metrics.
    view: observe::View,
    leaving: bool,
}

impl Control {
    /// Serves until it is told to end.
    async fn serve(&mut self) {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signal handlers cannot be installed, the agent stops");
            return;
        };
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.view.turn();
            tokio::select! {
                Some(event) = self.events.recv() => self.learn(event).await,
                Some(request) = self.requests.recv() => self.answer(request).await,
                Some(ask) = self.view.asked().recv() => self.observe(ask).await,
                Some(()) = self.changes.recv() => self.repair().await,
                _ = pulse.tick() => self.pulse().await,
                _ = terminate.recv() => break tracing::info!("SIGTERM: stopping; the guard stays"),
                _ = interrupt.recv() => break tracing::info!("SIGINT: stopping; the guard stays"),
            }
            if self.leaving {
                // The answer to whoever asked is still on its way.
                tokio::time::sleep(FAREWELL).await;
                break;
            }
        }
    }

    async fn learn(&mut self, event: registry::Event) {
        match event {
            registry::Event::Snapshot(snapshot) => {
                let known = self.cluster();
                self.snapshot = Some(snapshot);
                if self.cluster() != known {
                    self.look_at_underlay().await;
                }
            }
            registry::Event::Static(statics) => self.statics = statics,
            registry::Event::Contact { registry, revision } => return self.view.contact(registry, revision),
            registry::Event::Cidrs(said) => return self.hear_of_cidrs(said).await,
            registry::Event::Health(health) => {
                if health.ok {
                    tracing::info!(registry = health.registry, detail = %health.detail, "registry is well");
                } else {
                    tracing::warn!(registry = health.registry, detail = %health.detail, "registry is not well");
                }
                self.health.insert(health.registry, health);
                return;
            }
        }
        self.reconcile().await;
    }

    /// Once a second: whose tunnel stands, whose grace is over, whether the host and its CNI still are as they should be.
    async fn pulse(&mut self) {
        let alive = self.alive();
        self.greet(&alive);
        let proven = self.proven.add(&alive, &self.peers);
        if proven || self.hold_is_due(Instant::now()) || self.host_problem.is_some() {
            self.reconcile().await;
        }
        if self.dataplane.device_is_gone() {
            self.repair().await;
        }
        self.keep_cni();
        self.keep_registries();
        self.join();
        if Instant::now() >= self.next_look {
            self.next_look = Instant::now() + LOOK;
            self.host.distrust();
            self.repair().await;
            self.tell_concerns().await;
        }
        if Instant::now() >= self.next_check {
            self.check_host().await;
        }
    }

    /// Somebody else changed the host.
    async fn repair(&mut self) {
        while self.changes.try_recv().is_ok() {}
        self.path_mtus.clear();
        self.next_check = Instant::now();
        self.restore_device();
        if self.look_at_underlay().await {
            return self.reconcile().await;
        }
        let writes = self.apply_host().await;
        if writes > 0 {
            self.repairs += u64::from(writes);
            tracing::warn!(writes, "somebody changed what belongs to the overlay; repaired");
        }
    }

    /// Makes the device anew after somebody deleted it.
    fn restore_device(&mut self) {
        if !self.dataplane.device_is_gone() {
            return;
        }
        let device = &self.config.overlay.device;
        match self.dataplane.reopen() {
            Ok(()) => {
                self.repairs += 1;
                tracing::warn!(%device, "somebody deleted the device; made it anew");
            }
            Err(error) => tracing::error!(%device, %error, "somebody deleted the device and it cannot be made anew"),
        }
    }

    /// Says once of each peer that a tunnel stands: what renews it is no news.
    fn greet(&mut self, alive: &BTreeSet<NodeName>) {
        self.met.retain(|name| alive.contains(name) || self.peers.contains_key(name));
        let new: Vec<_> = alive.difference(&self.met).cloned().collect();
        for name in new {
            let report = self.peers.get(&name).and_then(|spec| self.dataplane.peer(&spec.public_key));
            let endpoint = report.and_then(|report| report.endpoint).map(tracing::field::display);
            tracing::info!(peer = %name, endpoint, "first handshake");
            self.met.insert(name);
        }
    }

    /// Peers that are not known to be dead: a session, or nobody asked for one.
    fn not_known_dead(&self) -> BTreeSet<NodeName> {
        self.dataplane.peers().into_iter().filter(|peer| !peer.connecting).map(|peer| peer.name).collect()
    }

    /// Peers whose tunnel stands now.
    fn alive(&self) -> BTreeSet<NodeName> {
        self.dataplane.peers().into_iter().filter(|peer| peer.handshake_age.is_some()).map(|peer| peer.name).collect()
    }
}

impl Control {
    /// Withdraws the record and ends the agent.
    async fn leave(&mut self) -> Result<String, String> {
        if !self.config.has_store() {
            return Err(
                "this node publishes no record: without a registry there is nothing to leave; just stop the agent"
                    .into(),
            );
        }
        if self.registries.iter().any(tokio::task::AbortHandle::is_finished) {
            return Err("the registry's task has ended by a fault of its own and takes nothing back: this node stays; try again \
                        within a minute, when it is started again"
                .into());
        }
        self.publish.send_replace(None);
        // The registry's task ends when the record is gone, and with it the last receiver.
        if tokio::time::timeout(LEAVE, self.publish.closed()).await.is_err() {
            // What does not leave, stays: nobody would hear of it otherwise.
            self.publish_record();
            return Err(
                "the store did not confirm within ten seconds: this node stays; see `warren status`, and try again when the \
                 registry is well; of an agent that is stopped instead, etcd drops the record when its lease ends, Kubernetes \
                 keeps it"
                    .into(),
            );
        }
        self.leaving = true;
        Ok("the record is withdrawn and the agent stops; the guard stays until `warren cleanup`".to_owned())
    }
}
