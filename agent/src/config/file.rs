//! The file, with what wins over it, into [`Config`]. Every fault names its place and its key; all are found at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use warren_crypto::association::Suite;
use warren_overlay::mesh::Enforcement;

use super::fault::{ConfigError, Fault, Place};
use super::layers::Layers;
use super::table::{Document, Table};
use super::value::{
    Auto, MTUS, absolute, any, cidrs, device, host_name, level, listener, mark, mtu, node_name, ports, prefixes,
    preshared_key, secret_path, server_url, table, urls, within, word,
};
use super::{
    Associations, Cidrs, Cni, Config, Etcd, Health, Kubernetes, Log, LogFormat, Metrics, Mode, Node, Offload, Overlay,
    Password, Peer, RUN_DIR, STATE_DIR, Underlay, Workers,
};
use crate::cidrs::{CNI_DIR, FLANNEL_FILE, Where};
use crate::cni::BIN_DIR;

/// Reads and checks the file, with the environment and the flags of this process over it.
///
/// # Errors
/// Everything that is wrong: place, key, allowed values.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let fault = |what: String| Fault { place: Place::File, what };
    let failed = |faults: Vec<Fault>| ConfigError { path: path.to_owned(), faults };
    let text = std::fs::read_to_string(path).map_err(|cause| {
        failed(vec![fault(format!("cannot be read: {cause}; name the file with --config FILE or WARREN_CONFIG"))])
    })?;
    let mut layers = Layers::of_this_process();
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.mode() & 0o777);
    if mode & 0o077 != 0 && Document::new(&text).has("etcd", "password") {
        let shown = path.display();
        let what = format!("holds a password and is readable by others (mode {mode:o}): `chmod 600 {shown}`");
        layers.faults.push(fault(what));
    }
    let mut config = read(&text, path, layers)?;
    config.path = Some(path.to_owned());
    Ok(config)
}

/// Checks a text as if it were the file at `path`, with nothing over it.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    read(text, path, Layers::default())
}

/// Checks a text with what wins over it.
///
/// # Errors
/// As [`load`].
pub(super) fn read(text: &str, path: &Path, layers: Layers) -> Result<Config, ConfigError> {
    let Layers { settings, mut faults, in_pod } = layers;
    let mut document = Document::new(text);
    settings.iter().for_each(|setting| document.lay(setting));
    // What follows from half a file would be guesses.
    let config = if document.is_sound() { config(&mut document) } else { None };
    faults.extend(document.faults());
    match config {
        Some(mut config) if faults.is_empty() => {
            decide_auto(&mut config, in_pod);
            config.overridden =
                settings.iter().map(|setting| (setting.key.path(), setting.origin.to_string())).collect();
            Ok(config)
        }
        _ => Err(ConfigError { path: path.to_owned(), faults }),
    }
}

/// `cidrs = "auto"`: where a CNI decides, what it says; on a host of its own with a registry, what is free there. In a Pod it
/// is never the latter, unless it is the CNI: until the CNI says its prefix, none is right.
fn decide_auto(config: &mut Config, in_pod: bool) {
    if !matches!(config.node.cidrs, Cidrs::Auto { .. }) {
        return;
    }
    if (in_pod && !config.cni.install) || !config.has_store() {
        config.node.cidrs = Cidrs::Listed(Default::default());
    } else {
        config.node.cidrs_from = None;
    }
}

fn config(document: &mut Document<'_>) -> Option<Config> {
    let (node, overlay) = (document.table("node", node), document.table("overlay", overlay));
    let (underlay, offload) = (document.table("underlay", underlay), document.table("offload", offload));
    let workers = document.table("workers", workers);
    let (health, metrics) = (document.table("health", health), document.table("metrics", metrics));
    let cni = document.table("cni", cni);
    let etcd = document.optional("etcd", etcd);
    let (enabled, api_server) = document.optional("kubernetes", kubernetes).unwrap_or_default();
    let kubernetes = enabled.then(|| api_server.clone());
    let peers = document.array("peer", peer);
    let log = document.table("log", log);
    document.refuse_the_rest();
    if etcd.is_some() && kubernetes.is_some() {
        document.fault(
            "[etcd] and [kubernetes]: a node has one registry; leave one of the two out, or set kubernetes.enabled = false \
             where the API server is only asked for node.cidrs",
        );
    }
    if cfg!(not(feature = "kubernetes")) && node.as_ref().is_some_and(asks_api_server) {
        document.fault(
            "node.cidrs: this agent was built without the feature \"kubernetes\", and cannot ask the API server",
        );
    }
    Some(Config {
        path: None,
        overridden: Vec::new(),
        node: node?,
        overlay: overlay?,
        underlay: underlay?,
        offload: offload?,
        workers: workers?,
        health: health?,
        metrics: metrics?,
        cni: cni?,
        etcd,
        kubernetes,
        api_server,
        peers,
        log: log?,
    })
}

fn asks_api_server(node: &Node) -> bool {
    node.cidrs_from.as_ref().is_some_and(|place| place.source.is_remote())
}

fn node(raw: &mut Table<'_, '_>) -> Option<Node> {
    let state_dir = raw.get("state_dir", absolute).unwrap_or_else(|| STATE_DIR.into());
    let name = match raw.has("name") {
        true => raw.get("name", node_name),
        false => host_name().map_err(|what| raw.fault(what)).ok(),
    };
    let length = (
        raw.get("cidr_length", within(8..=30)).unwrap_or(24),
        raw.get("cidr_length_v6", within(16..=126)).unwrap_or(64),
    );
    let (cidrs, source) =
        raw.get("cidrs", |value| cidrs(value, length)).unwrap_or((Cidrs::Listed(Default::default()), None));
    let cni_dir = raw.get("cni_dir", absolute).unwrap_or_else(|| CNI_DIR.into());
    let flannel_file = raw.get("flannel_file", absolute).unwrap_or_else(|| FLANNEL_FILE.into());
    Some(Node {
        addresses: raw.get("addresses", |value: Auto<_>| value.value("a list of addresses")).flatten(),
        endpoints: raw.get("endpoints", any),
        cidrs,
        cidrs_from: source.map(|source| Where { source, cni_dir: cni_dir.clone(), flannel_file }),
        cni_dir,
        key_file: raw.get("key_file", absolute).unwrap_or_else(|| state_dir.join("private.key")),
        run_dir: raw.get("run_dir", absolute).unwrap_or_else(|| RUN_DIR.into()),
        state_dir,
        name: name?,
    })
}

fn overlay(raw: &mut Table<'_, '_>) -> Option<Overlay> {
    let suites = [
        ("auto", None),
        (Suite::Aes256Gcm.name(), Some(Suite::Aes256Gcm)),
        (Suite::ChaCha20Poly1305.name(), Some(Suite::ChaCha20Poly1305)),
    ];
    let suite = raw.get("suite", word(&suites)).flatten();
    let associations = associations(raw, suite);
    let modes = [("pods", Mode::Pods), ("nodes", Mode::Nodes)];
    let enforcements = [("strict", Enforcement::Strict), ("permissive", Enforcement::Permissive)];
    Some(Overlay {
        device: raw.get("device", device).unwrap_or_else(|| "warren0".to_owned()),
        address: raw.get("address", any).unwrap_or_default(),
        mode: raw.get("mode", word(&modes)).unwrap_or(Mode::Pods),
        networks: raw.get("networks", prefixes).unwrap_or_default(),
        enforcement: raw.get("enforcement", word(&enforcements)).unwrap_or(Enforcement::Strict),
        mtu: raw.get("mtu", mtu).flatten(),
        rule_priority: raw.get("rule_priority", within(1..=32_000)).unwrap_or(90),
        table: raw.get("table", table).unwrap_or(51840),
        mark: raw.get("mark", mark).unwrap_or(0x10),
        exempt_ports: raw
            .get("exempt_ports", ports)
            .unwrap_or_else(|| vec![22..=22, 6443..=6443, 2379..=2380, 10250..=10250]),
        associations,
        suite,
        grace_seconds: raw.get("grace_seconds", within(0..=604_800)).unwrap_or(900),
    })
}

/// A pinned suite is refused, not lowered, and its data waits.
fn associations(raw: &mut Table<'_, '_>, suite: Option<Suite>) -> Associations {
    let words = [("prefer", Associations::Prefer), ("require", Associations::Require), ("off", Associations::Off)];
    let associations = raw.get("associations", word(&words)).unwrap_or_default();
    if suite.is_none() {
        return associations;
    }
    if associations == Associations::Off {
        raw.fault("overlay.suite and overlay.associations = \"off\": without associations there is no suite to choose");
    }
    Associations::Require
}

fn underlay(raw: &mut Table<'_, '_>) -> Option<Underlay> {
    Some(Underlay {
        port: raw.get("port", within(1..=u16::MAX)).unwrap_or(51840),
        devices: raw.get("devices", |value: Auto<_>| value.value("a list of device names")).flatten(),
        source_ports: raw.get("source_ports", word(&[("auto", true), ("single", false)])).unwrap_or(true),
    })
}

fn offload(raw: &mut Table<'_, '_>) -> Option<Offload> {
    let mut on = |name| raw.get(name, any).unwrap_or(true);
    Some(Offload { tun_tso: on("tun_tso"), tun_uso: on("tun_uso"), udp_gso: on("udp_gso"), udp_gro: on("udp_gro") })
}

fn workers(raw: &mut Table<'_, '_>) -> Option<Workers> {
    Some(Workers { count: raw.get("count", within(0..=64)).unwrap_or(0), pin: raw.get("pin", any).unwrap_or(false) })
}

fn health(raw: &mut Table<'_, '_>) -> Option<Health> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9587));
    Some(Health { listen: raw.get("listen", listener).unwrap_or(Some(default)) })
}

fn metrics(raw: &mut Table<'_, '_>) -> Option<Metrics> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9586));
    Some(Metrics {
        listen: raw.get("listen", listener).unwrap_or(Some(default)),
        per_peer: raw.get("per_peer", any).unwrap_or(true),
    })
}

fn cni(raw: &mut Table<'_, '_>) -> Option<Cni> {
    Some(Cni {
        gate: raw.get("gate", any).unwrap_or(false),
        install: raw.get("install", any).unwrap_or(false),
        bin_dir: raw.get("bin_dir", absolute).unwrap_or_else(|| BIN_DIR.into()),
    })
}

fn etcd(raw: &mut Table<'_, '_>) -> Option<Etcd> {
    if raw.has("cert_file") != raw.has("key_file") {
        raw.fault("etcd.cert_file and etcd.key_file: both or neither");
    }
    let passwords = usize::from(raw.has("password_file")) + usize::from(raw.has("password"));
    if usize::from(raw.has("username")) != passwords {
        raw.fault("etcd.username needs etcd.password_file or etcd.password, one of the two");
    }
    let endpoints = raw.require("endpoints", urls);
    Some(Etcd {
        cluster: raw.get("cluster", node_name).map_or_else(|| "default".to_owned(), |name| name.to_string()),
        ca_file: raw.get("ca_file", absolute),
        cert_file: raw.get("cert_file", absolute),
        key_file: raw.get("key_file", secret_path),
        username: raw.get("username", any),
        password_file: raw.get("password_file", secret_path),
        password: raw.get("password", any).map(Password),
        lease_seconds: raw.get("lease_seconds", within(5..=86_400)).unwrap_or(60),
        endpoints: endpoints?,
    })
}

/// Whether it is the registry, and how it is reached.
fn kubernetes(raw: &mut Table<'_, '_>) -> Option<(bool, Kubernetes)> {
    let enabled = raw.get("enabled", any).unwrap_or(true);
    if enabled && cfg!(not(feature = "kubernetes")) {
        raw.fault("[kubernetes]: this agent was built without the feature \"kubernetes\"");
    }
    if raw.has("context") && !raw.has("kubeconfig") {
        raw.fault("kubernetes.context is one of a kubeconfig: set kubernetes.kubeconfig");
    }
    let kubernetes = Kubernetes {
        kubeconfig: raw.get("kubeconfig", secret_path),
        context: raw.get("context", any),
        server: raw.get("server", server_url),
        found: None,
    };
    Some((enabled, kubernetes))
}

fn peer(raw: &mut Table<'_, '_>) -> Option<Peer> {
    let name = raw.require("name", node_name);
    if let Some(name) = &name {
        raw.belongs_to(name);
    }
    let public_key = raw
        .require("public_key", |text: String| text.parse().map_err(|error: warren_crypto::KeyError| error.to_string()));
    Some(Peer {
        endpoint: raw.get("endpoint", any),
        cidrs: raw.get("cidrs", prefixes).unwrap_or_default(),
        addresses: raw.get("addresses", any).unwrap_or_default(),
        preshared_key: raw.get("preshared_key_file", preshared_key),
        persistent_keepalive: raw.get("persistent_keepalive", any).filter(|seconds| *seconds != 0),
        mtu: raw.get("mtu", within(MTUS)),
        associations: raw.get("associations", any).unwrap_or(false),
        name: name?,
        public_key: public_key?,
    })
}

fn log(raw: &mut Table<'_, '_>) -> Option<Log> {
    Some(Log {
        level: raw.get("level", level).unwrap_or_else(|| "info".to_owned()),
        format: raw
            .get("format", word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]))
            .unwrap_or(LogFormat::Text),
    })
}
