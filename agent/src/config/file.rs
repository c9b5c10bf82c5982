//! The file itself: TOML into raw values, raw values into [`Config`]. Every error names file, line and key.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml::Spanned;
use warren_crypto::{PresharedKey, PublicKey};
use warren_overlay::mesh::Enforcement;
use warren_overlay::record::NodeName;

use super::explain;
use super::raw::{Auto, RawEtcd, RawFile, RawLog, RawNode, RawOverlay, RawPeer, RawUnderlay, RawWorkers};
use super::{Cidrs, Config, Etcd, Log, LogFormat, Mode, Node, Offload, Overlay, Password, Peer, Underlay, Workers};
use crate::{keyfile, log};

/// What is wrong with the configuration: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// Line and column, from 1, where known.
    pub at: Option<(usize, usize)>,
    /// What is wrong, with the key and the allowed values.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong and where in the text; the path is added last.
struct Fault(Option<usize>, String);

/// Inner MTUs, in bytes: the least that IPv6 allows, and what a jumbo frame leaves.
const MTUS: RangeInclusive<u16> = 1280..=9200;

type Checked<T> = Result<T, Fault>;

fn fault<T, V>(value: &Spanned<V>, what: impl Into<String>) -> Checked<T> {
    Err(Fault(Some(value.span().start), what.into()))
}

/// Reads and checks the file.
///
/// # Errors
/// The first thing that is wrong: file, line, key, allowed values.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let error = |what: String| ConfigError { path: path.to_owned(), at: None, what };
    let text = std::fs::read_to_string(path)
        .map_err(|cause| error(format!("cannot be read: {cause}; `warren up --config FILE` names the file")))?;
    let mut config = parse(&text, path)?;
    if config.etcd.as_ref().is_some_and(|etcd| etcd.password.is_some()) {
        let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.mode() & 0o777);
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(error(format!(
                "holds a password and is readable by others (mode {mode:o}): `chmod 600 {path}`"
            )));
        }
    }
    config.path = Some(path.to_owned());
    Ok(config)
}

/// Checks a text as if it were the file at `path`.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let located = |offset: Option<usize>, what: String| {
        let at = offset.map(|offset| position(text, offset));
        ConfigError { path: path.to_owned(), at, what }
    };
    let raw: RawFile = toml::from_str(text)
        .map_err(|error| located(error.span().map(|span| span.start), explain::misread(text, &error)))?;
    config(raw).map_err(|Fault(offset, what)| located(offset, what))
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before.len() - line_start + 1)
}

fn config(raw: RawFile) -> Checked<Config> {
    let node = node(raw.node)?;
    let overlay = overlay(raw.overlay)?;
    let underlay = underlay(raw.underlay)?;
    Ok(Config {
        path: None,
        node,
        overlay,
        underlay,
        offload: Offload {
            tun_tso: raw.offload.tun_tso.unwrap_or(true),
            tun_uso: raw.offload.tun_uso.unwrap_or(true),
            udp_gso: raw.offload.udp_gso.unwrap_or(true),
            udp_gro: raw.offload.udp_gro.unwrap_or(true),
        },
        workers: workers(raw.workers)?,
        etcd: raw.etcd.map(etcd).transpose()?,
        peers: raw.peer.into_iter().map(peer).collect::<Checked<_>>()?,
        log: log(raw.log)?,
    })
}

fn node(raw: RawNode) -> Checked<Node> {
    let state_dir = path(raw.state_dir, "node.state_dir")?.unwrap_or_else(|| "/var/lib/warren".into());
    let name = match raw.name {
        Some(name) => node_name(&name, "node.name")?,
        None => host_name()?,
    };
    let length = (
        within(raw.cidr_length, "node.cidr_length", 8..=30, 24)?,
        within(raw.cidr_length_v6, "node.cidr_length_v6", 16..=126, 64)?,
    );
    Ok(Node {
        name,
        addresses: raw
            .addresses
            .map(|value| auto(value, "node.addresses", "a list of addresses"))
            .transpose()?
            .flatten(),
        endpoints: raw.endpoints,
        cidrs: match raw.cidrs {
            None => Cidrs::Listed(BTreeSet::new()),
            Some(value) => match value.get_ref() {
                Auto::Word(word) if word == "auto" => Cidrs::Auto { length },
                Auto::Word(word) => {
                    return fault(&value, format!("node.cidrs: {word:?} is neither \"auto\" nor a list"));
                }
                Auto::Value(list) => Cidrs::Listed(prefixes(list, &value, "node.cidrs")?),
            },
        },
        key_file: path(raw.key_file, "node.key_file")?.unwrap_or_else(|| state_dir.join("private.key")),
        run_dir: path(raw.run_dir, "node.run_dir")?.unwrap_or_else(|| "/run/warren".into()),
        state_dir,
    })
}

fn host_name() -> Checked<NodeName> {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    name.to_lowercase()
        .parse()
        .map_err(|error| Fault(None, format!("the host name cannot be the node's name ({error}): set node.name")))
}

fn overlay(raw: RawOverlay) -> Checked<Overlay> {
    Ok(Overlay {
        device: device(raw.device)?,
        address: raw.address,
        mode: word(raw.mode, "overlay.mode", &[("pods", Mode::Pods), ("nodes", Mode::Nodes)])?,
        networks: match &raw.networks {
            Some(list) => prefixes(list.get_ref(), list, "overlay.networks")?,
            None => BTreeSet::new(),
        },
        enforcement: word(
            raw.enforcement,
            "overlay.enforcement",
            &[("strict", Enforcement::Strict), ("permissive", Enforcement::Permissive)],
        )?,
        mtu: match raw.mtu {
            Some(value) => match auto_ref(&value, "overlay.mtu", "a number of bytes")? {
                Some(mtu) if !MTUS.contains(mtu) => {
                    return fault(&value, format!("overlay.mtu: {mtu} is neither \"auto\" nor from 1280 to 9200"));
                }
                mtu => mtu.copied(),
            },
            None => None,
        },
        rule_priority: within(raw.rule_priority, "overlay.rule_priority", 1..=32_000, 90)?,
        table: table(raw.table)?,
        mark: match raw.mark {
            Some(mark) if mark.get_ref().count_ones() != 1 => {
                return fault(&mark, "overlay.mark: must be one bit, as 0x10");
            }
            mark => mark.map_or(0x10, Spanned::into_inner),
        },
        exempt_ports: match raw.exempt_ports {
            Some(list) => ports(&list)?,
            None => vec![22..=22, 6443..=6443, 2379..=2380, 10250..=10250],
        },
        grace_seconds: within(raw.grace_seconds, "overlay.grace_seconds", 0..=604_800, 900)?,
    })
}

fn device(raw: Option<Spanned<String>>) -> Checked<String> {
    let Some(name) = raw else { return Ok("warren0".to_owned()) };
    let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%';
    if name.get_ref().is_empty() || name.get_ref().len() > 15 || !name.get_ref().bytes().all(valid) {
        return fault(&name, "overlay.device: 1 to 15 printable characters without '/', ':' and '%'");
    }
    Ok(name.into_inner())
}

fn ports(list: &Spanned<Vec<Auto<u16>>>) -> Checked<Vec<RangeInclusive<u16>>> {
    let parse = |word: &str| -> Option<RangeInclusive<u16>> {
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        let range = low.trim().parse().ok()?..=high.trim().parse().ok()?;
        (!range.is_empty()).then_some(range)
    };
    let port = |port: &Auto<u16>| match port {
        Auto::Value(port) => Ok(*port..=*port),
        Auto::Word(word) => match parse(word) {
            Some(range) => Ok(range),
            None => fault(list, format!("overlay.exempt_ports: {word:?} is no port and no range as \"2379-2380\"")),
        },
    };
    list.get_ref().iter().map(port).collect()
}

fn underlay(raw: RawUnderlay) -> Checked<Underlay> {
    let port = within(raw.port, "underlay.port", 1..=u16::MAX, 51840)?;
    let devices =
        raw.devices.map(|value| auto(value, "underlay.devices", "a list of device names")).transpose()?.flatten();
    Ok(Underlay { port, devices })
}

fn workers(raw: RawWorkers) -> Checked<Workers> {
    Ok(Workers { count: within(raw.count, "workers.count", 0..=64, 0)? })
}

fn etcd(raw: RawEtcd) -> Checked<Etcd> {
    endpoints(&raw.endpoints)?;
    let cluster = match raw.cluster {
        Some(cluster) => node_name(&cluster, "etcd.cluster")?.to_string(),
        None => "default".to_owned(),
    };
    if raw.cert_file.is_some() != raw.key_file.is_some() {
        return fault(&raw.endpoints, "etcd.cert_file and etcd.key_file: both or neither");
    }
    let passwords = usize::from(raw.password_file.is_some()) + usize::from(raw.password.is_some());
    if usize::from(raw.username.is_some()) != passwords {
        return fault(&raw.endpoints, "etcd.username needs etcd.password_file or etcd.password, one of the two");
    }
    Ok(Etcd {
        endpoints: raw.endpoints.into_inner(),
        cluster,
        ca_file: path(raw.ca_file, "etcd.ca_file")?,
        cert_file: path(raw.cert_file, "etcd.cert_file")?,
        key_file: secret_path(raw.key_file, "etcd.key_file")?,
        username: raw.username,
        password_file: secret_path(raw.password_file, "etcd.password_file")?,
        password: raw.password.map(Password),
        lease_seconds: within(raw.lease_seconds, "etcd.lease_seconds", 5..=86_400, 60)?,
    })
}

/// A URL may hold a password: none is quoted.
fn endpoints(urls: &Spanned<Vec<String>>) -> Checked<()> {
    let authority = |url: &str| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
        Some(rest.trim_end_matches('/').to_owned())
    };
    if urls.get_ref().is_empty() {
        return fault(urls, "etcd.endpoints: at least one URL, as \"https://192.0.2.1:2379\"");
    }
    for url in urls.get_ref() {
        match authority(url) {
            Some(place) if place.contains('@') => {
                return fault(
                    urls,
                    "etcd.endpoints: no user or password in a URL: use etcd.username and etcd.password_file",
                );
            }
            Some(place)
                if !place.is_empty()
                    && !place.contains(['/', '?', '#'])
                    && place.bytes().all(|b| b.is_ascii_graphic()) => {}
            _ => {
                return fault(
                    urls,
                    "etcd.endpoints: each is a URL as \"https://192.0.2.1:2379\" or \"http://127.0.0.1:2379\"",
                );
            }
        }
    }
    Ok(())
}

fn peer(raw: RawPeer) -> Checked<Peer> {
    let name = node_name(&raw.name, "peer.name")?;
    let public_key: PublicKey = match raw.public_key.get_ref().parse() {
        Ok(key) => key,
        Err(error) => return fault(&raw.public_key, format!("peer.public_key of {name}: {error}")),
    };
    let preshared_key = preshared_key(raw.preshared_key_file, &name)?;
    let cidrs = match &raw.cidrs {
        Some(list) => prefixes(list.get_ref(), list, "peer.cidrs")?,
        None => BTreeSet::new(),
    };
    Ok(Peer {
        name,
        public_key,
        endpoint: raw.endpoint,
        cidrs,
        addresses: raw.addresses,
        preshared_key,
        persistent_keepalive: raw.persistent_keepalive.filter(|seconds| *seconds != 0),
        mtu: raw.mtu.map(|mtu| within(Some(mtu), "peer.mtu", MTUS, 0)).transpose()?,
    })
}

fn preshared_key(file: Option<Spanned<String>>, peer: &NodeName) -> Checked<Option<PresharedKey>> {
    let Some(raw) = file else { return Ok(None) };
    let at = raw.span().start;
    let path = absolute(&raw, "peer.preshared_key_file")?;
    let loaded = keyfile::load_preshared(&path);
    loaded.map(Some).map_err(|error| Fault(Some(at), format!("peer.preshared_key_file of {peer}: {error}")))
}

fn log(raw: RawLog) -> Checked<Log> {
    let format = word(raw.format, "log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
    let Some(level) = raw.level else { return Ok(Log { level: "info".to_owned(), format }) };
    if log::is_level(level.get_ref()) {
        return Ok(Log { level: level.into_inner(), format });
    }
    fault(&level, format!("log.level: {:?} is none of {}", level.get_ref(), log::LEVELS))
}

/// A number in its bounds.
fn within<T>(raw: Option<Spanned<T>>, key: &str, allowed: RangeInclusive<T>, default: T) -> Checked<T>
where
    T: PartialOrd + fmt::Display,
{
    let Some(value) = raw else { return Ok(default) };
    if allowed.contains(value.get_ref()) {
        return Ok(value.into_inner());
    }
    fault(&value, format!("{key}: {} is not from {} to {}", value.get_ref(), allowed.start(), allowed.end()))
}

/// The kernel's own tables (rtnetlink: unspecified, default, main, local) would be emptied by a cleanup.
fn table(raw: Option<Spanned<u32>>) -> Checked<u32> {
    match raw {
        Some(table) if matches!(table.get_ref(), 0 | 253..=255) => {
            fault(&table, format!("overlay.table: {} belongs to the kernel; any other number will do", table.get_ref()))
        }
        table => Ok(table.map_or(51840, Spanned::into_inner)),
    }
}

fn path(raw: Option<Spanned<String>>, key: &str) -> Checked<Option<PathBuf>> {
    raw.map(|value| absolute(&value, key)).transpose()
}

/// What is no path may be the secret itself: it is not quoted.
fn absolute(value: &Spanned<String>, key: &str) -> Checked<PathBuf> {
    let text = value.get_ref();
    if !text.starts_with('/') || text.contains('\0') || text.parse::<PresharedKey>().is_ok() {
        return fault(
            value,
            format!("{key}: must be an absolute path, as \"/etc/warren/name\"; never the content itself"),
        );
    }
    Ok(PathBuf::from(text))
}

fn secret_path(raw: Option<Spanned<String>>, key: &str) -> Checked<Option<PathBuf>> {
    let Some(value) = raw else { return Ok(None) };
    let path = absolute(&value, key)?;
    match keyfile::check_secret(&path) {
        Ok(()) => Ok(Some(path)),
        Err(error) => fault(&value, format!("{key}: {error}")),
    }
}

/// One of these words; the first is the default.
fn word<T: Copy>(raw: Option<Spanned<String>>, key: &str, allowed: &[(&str, T)]) -> Checked<T> {
    let Some(value) = raw else { return Ok(allowed[0].1) };
    match allowed.iter().find(|(word, _)| word == value.get_ref()) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let words: Vec<_> = allowed.iter().map(|(word, _)| format!("{word:?}")).collect();
            fault(&value, format!("{key}: {:?} is not one of {}", value.get_ref(), words.join(", ")))
        }
    }
}

fn auto_ref<'v, T>(value: &'v Spanned<Auto<T>>, key: &str, else_what: &str) -> Checked<Option<&'v T>> {
    match value.get_ref() {
        Auto::Value(inner) => Ok(Some(inner)),
        Auto::Word(word) if word == "auto" => Ok(None),
        Auto::Word(word) => fault(value, format!("{key}: {word:?} is neither \"auto\" nor {else_what}")),
    }
}

fn auto<T>(value: Spanned<Auto<T>>, key: &str, else_what: &str) -> Checked<Option<T>> {
    auto_ref(&value, key, else_what)?;
    Ok(match value.into_inner() {
        Auto::Value(inner) => Some(inner),
        Auto::Word(_) => None,
    })
}

fn node_name(value: &Spanned<String>, key: &str) -> Checked<NodeName> {
    match value.get_ref().parse() {
        Ok(name) => Ok(name),
        Err(error) => fault(value, format!("{key}: {:?}: {error}", value.get_ref())),
    }
}

fn prefixes<V>(list: &[String], at: &Spanned<V>, key: &str) -> Checked<BTreeSet<IpNet>> {
    let one = |text: &String| match text.parse::<IpNet>() {
        Ok(prefix) if prefix.addr() == prefix.network() => Ok(prefix),
        Ok(prefix) => fault(at, format!("{key}: {text:?} has host bits set; did you mean \"{}\"?", prefix.trunc())),
        Err(_) => fault(at, format!("{key}: {text:?} is no prefix as \"10.1.0.0/24\" or \"fd00:1::/64\"")),
    };
    list.iter().map(one).collect()
}
