//! The start: guard first, then device and threads, then registries; publishing comes last, by the first reconcile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use warren_crypto::PublicKey;
use warren_crypto::association::Suite;
use warren_overlay::hold::Hold;
use warren_overlay::mesh::{self, Mesh};

use super::cni::follow;
use super::concerns::Teller;
use super::desired::{Facts, desired, overhead, registry_inside};
use super::observe::View;
use super::reconcile::{fallback, own};
use super::underlay::{node_addresses, overlay_networks, without_pods};
use super::{Control, Error};
use crate::cidrs::{self, Found, Where};
use crate::config::{Config, Mode};
use crate::dataplane::{self, Dataplane};
use crate::host::{Host, Underlay};
use crate::registry::Health;
use crate::registry::cache::{Cache, Cached};
use crate::{admin, health, keyfile, preflight, registry};

/// Registry events that wait, at most; each is a whole picture, so few suffice.
const EVENTS: usize = 16;

impl Control {
    /// Brings everything up but peers, which come with the first registry event.
    pub(super) async fn start(mut config: Config) -> Result<Self, Error> {
        find_api_server(&mut config).await;
        let private = keyfile::load_or_create(&config.node.key_file).map_err(|error| Error::Key(error.to_string()))?;
        let public_key = private.public_key();
        check(&config)?;
        let cni = follow(&mut config);
        let requests = admin::serve(&config.node.run_dir).map_err(|error| Error::Admin(error.to_string()))?;
        let mut host = Host::open(&config.node.state_dir).map_err(host_error)?;
        let cached = load_cache(&config);
        let found = host.discover(config.underlay.devices.as_ref()).await.map_err(host_error)?;
        let cluster = cached.snapshot.as_ref().and_then(|snapshot| snapshot.cluster.as_ref());
        let underlay = without_pods(&config, &overlay_networks(&config, cluster, &BTreeSet::new()), found);
        let node_addresses = node_addresses(&config, &underlay);
        let mtu = inner_mtu(&config, &underlay, &node_addresses);
        let workers = workers(&config);
        let remembered = cached.clone();
        let ((publish, _), (cidrs, _)) = (watch::channel(None), watch::channel(config.node.cidrs.clone()));
        let (to_events, events) = mpsc::channel(EVENTS);
        let changes = host.monitor();
        guard_first(&mut host, &config, &cached, public_key, &node_addresses, &underlay, mtu)?;
        let dataplane = Arc::new(start_dataplane(&config, private, mtu, workers, &node_addresses)?);
        let window = health::start(config.health, config.metrics, Arc::downgrade(&dataplane)).map_err(host_error)?;
        let mut control = Self {
            public_key,
            underlay_devices: underlay.devices.keys().cloned().collect(),
            gateways: underlay.gateways,
            vxlan: underlay.vxlan,
            mtu,
            workers,
            suites: suites(config.overlay.suite),
            dataplane,
            host,
            hold: Hold::new(Duration::from_secs(config.overlay.grace_seconds)),
            statics: config.static_peers(),
            snapshot: cached.snapshot.map(Arc::new),
            ownership: cached.ownership,
            remembered,
            mesh: Mesh::default(),
            peers: BTreeMap::new(),
            path_mtus: BTreeMap::new(),
            vanished: BTreeSet::new(),
            held: None,
            deadline: None,
            proven: cached.proven,
            met: BTreeSet::new(),
            given: None,
            api_server: cached.api_server,
            lent: Default::default(),
            no_cidrs: cni.as_ref().and_then(|said| said.as_ref().err().cloned()),
            few_cidrs: None,
            cni_problems: Vec::new(),
            health: BTreeMap::new(),
            registries: Vec::new(),
            restarts: Default::default(),
            to_events,
            publish,
            cidrs,
            events,
            requests,
            changes,
            host_problem: None,
            host_problems: Vec::new(),
            next_check: Instant::now(),
            next_look: Instant::now(),
            repairs: 0,
            concerns: Teller::new(),
            view: View::new(window),
            leaving: false,
            node_addresses,
            config,
        };
        control.reconcile().await;
        control.start_registries();
        control.watch_files(cni);
        tracing::info!(
            node = %control.config.node.name, public_key = %public_key, port = control.config.underlay.port,
            mtu, workers, offloads = ?control.dataplane.offloads(), "warren is up"
        );
        Ok(control)
    }

    /// Starts the store's task, anew if it runs: what it told stays in force, and what it published stays there.
    pub(super) fn start_registries(&mut self) {
        self.registries.drain(..).for_each(|task| task.abort());
        let started = self.start_store();
        self.registries.extend(started);
    }

    /// etcd's or Kubernetes', whichever is configured.
    fn start_store(&self) -> Option<AbortHandle> {
        let (node, known) = (self.config.node.name.clone(), self.known());
        let (events, publish, cidrs) = (self.to_events.clone(), self.publish.subscribe(), self.cidrs.subscribe());
        let channels = registry::Channels { events, publish, cidrs };
        if let Some(etcd) = self.config.etcd.clone() {
            let task = tokio::task::spawn_local(registry::etcd::run(etcd, node, known, channels));
            return Some(task.abort_handle());
        }
        // The configuration of an agent without the feature has no such table.
        #[cfg(feature = "kubernetes")]
        if let Some(kubernetes) = self.config.kubernetes.clone() {
            let concerns = self.concerns.listen();
            let registry = registry::kubernetes::run(kubernetes, node, known, channels, concerns);
            let task = tokio::task::spawn_local(registry);
            return Some(task.abort_handle());
        }
        None
    }

    /// A store's task ends when this node has left, and else by a fault of its own: nobody would hear anything any more.
    pub(super) fn keep_registries(&mut self) {
        if self.leaving || !self.registries.iter().any(AbortHandle::is_finished) {
            return;
        }
        let registry = if self.config.etcd.is_some() { "etcd" } else { "kubernetes" };
        let detail = "its task ended by a fault of its own, which the log has: nothing is heard until it is started again, \
                      within a minute; please report it";
        self.health.insert(registry, Health { registry, ok: false, detail: detail.to_owned() });
        if self.restarts.is_due(Instant::now()) {
            tracing::error!(registry, "the registry's task has ended; starting it again");
            self.start_registries();
        }
    }

    /// The configuration's, for its peers; and the CNI's, where they decide about this node's prefixes.
    fn watch_files(&self, said: Option<Result<Found, String>>) {
        if let Some(path) = self.config.path.clone() {
            tokio::task::spawn_local(registry::static_peers::run(path, self.to_events.clone()));
        }
        if let (Some(place), Some(said)) = (self.config.node.cidrs_from.clone(), said) {
            self.watch_prefixes(place, said);
        }
    }

    fn watch_prefixes(&self, place: Where, said: Result<Found, String>) {
        let events = self.to_events.clone();
        // The configuration of an agent without the feature asks no API server.
        #[cfg(feature = "kubernetes")]
        if place.source.is_remote() {
            let (server, node) = (self.config.api_server.clone(), self.config.node.name.clone());
            let (cluster, had) = (self.api_cluster(), self.mesh.own_cidrs.clone());
            let asks = registry::kubernetes::prefixes::run(server, node, place.source, cluster, had, events);
            tokio::task::spawn_local(asks);
            return;
        }
        tokio::task::spawn_local(cidrs::run(place, said, events));
    }
}

impl Control {
    /// Whose API server said this node's prefixes before; with the registry there, whose records were read.
    #[cfg(feature = "kubernetes")]
    fn api_cluster(&self) -> Option<String> {
        let registry =
            self.snapshot.as_ref().filter(|_| self.config.etcd.is_none() && self.config.kubernetes.is_some());
        let of_registry = || registry?.cluster.as_ref().map(|cluster| cluster.id.clone());
        self.api_server.clone().or_else(of_registry)
    }

    /// What a registry must not contradict.
    fn known(&self) -> registry::Known {
        let cluster = self.snapshot.as_ref().and_then(|snapshot| snapshot.cluster.clone());
        let mut entries = self.snapshot.as_ref().map_or_else(Vec::new, |snapshot| snapshot.entries.clone());
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        registry::Known { cluster, owners: self.ownership.owners.clone(), entries }
    }
}

/// Puts down where the API server is, for whoever asks whether the overlay would carry it. The registry itself looks again with
/// each connection.
async fn find_api_server(config: &mut Config) {
    #[cfg(feature = "kubernetes")]
    if let Some(server) = config.asked_server().cloned() {
        let found = registry::kubernetes::server(&server).await;
        config.api_server.found.clone_from(&found);
        config.kubernetes.iter_mut().for_each(|registry| registry.found.clone_from(&found));
    }
    #[cfg(not(feature = "kubernetes"))]
    let _ = config;
}

/// The guard of what is known before anything was heard: the configuration and the last good mesh.
fn guard_first(
    host: &mut Host,
    config: &Config,
    cached: &Cached,
    public_key: PublicKey,
    node_addresses: &BTreeSet<IpAddr>,
    underlay: &Underlay,
    mtu: u16,
) -> Result<(), Error> {
    let own = own(config, public_key, node_addresses, &underlay.gateways);
    let (snapshot, fallback) = (cached.snapshot.as_ref(), fallback(config));
    let mesh = mesh::compute(&own, snapshot, &config.static_peers(), &cached.ownership, &fallback);
    let cluster = snapshot.and_then(|snapshot| snapshot.cluster.clone()).unwrap_or(fallback);
    if let Some(problem) = registry_inside(config, &cluster.networks) {
        return Err(Error::Host(problem));
    }
    let desired = desired(&Facts {
        config,
        cluster: &cluster,
        mesh: &mesh,
        peers: &mesh.peers,
        proven: &cached.proven,
        node_addresses,
        underlay_devices: &underlay.devices.keys().cloned().collect(),
        mtu,
    });
    host.guard(&desired).map(|_| ()).map_err(host_error)
}

fn host_error(error: impl std::fmt::Display) -> Error {
    Error::Host(error.to_string())
}

/// What the host lacks, all of it at once.
fn check(config: &Config) -> Result<(), Error> {
    let findings = preflight::run(config);
    let fatal: Vec<_> = findings.iter().filter(|finding| finding.is_fatal()).map(ToString::to_string).collect();
    for finding in findings.iter().filter(|finding| !finding.ok && !finding.is_fatal()) {
        tracing::warn!(finding = %finding, "preflight");
    }
    if fatal.is_empty() { Ok(()) } else { Err(Error::Host(fatal.join("\n"))) }
}

fn load_cache(config: &Config) -> Cached {
    match Cache::load(&config.node.state_dir) {
        // Without a store the file is the truth, but who is proven stays so.
        Ok(Some(cached)) if !config.has_store() => {
            Cached { proven: cached.proven, api_server: cached.api_server, ..Cached::default() }
        }
        Ok(Some(cached)) => cached,
        Ok(None) => Cached::default(),
        Err(error) => {
            tracing::warn!(%error, "the last good mesh cannot be read; starting without it");
            Cached::default()
        }
    }
}

fn start_dataplane(
    config: &Config,
    private: warren_crypto::PrivateKey,
    mtu: u16,
    workers: usize,
    addresses: &BTreeSet<IpAddr>,
) -> Result<Dataplane, Error> {
    let mark = if config.overlay.mode == Mode::Nodes { config.overlay.mark } else { 0 };
    let options = dataplane::Options {
        device: config.overlay.device.clone(),
        mtu,
        port: config.underlay.port,
        // In mode `nodes` the guard and the rules know our datagrams by the one port.
        source_ports: config.underlay.source_ports && config.overlay.mode == Mode::Pods,
        mark,
        workers,
        pin: config.workers.pin,
        offload: config.offload,
        associations: config.overlay.associations,
        suites: suites(config.overlay.suite),
        addresses: addresses.iter().copied().collect(),
    };
    Dataplane::start(private, options).map_err(|error| {
        let (device, port) = (&config.overlay.device, config.underlay.port);
        Error::Host(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("UDP port {port} is taken: stop the other program or set underlay.port")
            }
            std::io::ErrorKind::ResourceBusy => {
                format!("the device {device} belongs to another program: stop it or set overlay.device")
            }
            _ => format!("the device {device} or UDP port {port} cannot be opened: {error}; see `warren preflight`"),
        })
    })
}

/// What this node speaks, best first: AES where the CPU has instructions for it and for GCM's multiplication.
fn suites(pinned: Option<Suite>) -> Vec<Suite> {
    #[cfg(target_arch = "x86_64")]
    let aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let aes = false;
    match pinned {
        Some(suite) => vec![suite],
        None if aes => vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
        None => vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
    }
}

/// As configured, or one per core.
fn workers(config: &Config) -> usize {
    match config.workers.count {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(64),
        count => usize::from(count),
    }
}

/// As configured, or the narrowest of the underlay devices that peers know less the headers around a packet.
fn inner_mtu(config: &Config, underlay: &Underlay, addresses: &BTreeSet<IpAddr>) -> u16 {
    let v6 = addresses.iter().any(IpAddr::is_ipv6);
    let known = underlay.devices.values().filter(|device| !device.addresses.is_disjoint(addresses));
    let all = underlay.devices.values();
    let narrowest = known.map(|device| device.mtu).min().or_else(|| all.map(|device| device.mtu).min()).unwrap_or(1500);
    config.overlay.mtu.unwrap_or_else(|| narrowest.saturating_sub(overhead(v6)).max(1280))
}
