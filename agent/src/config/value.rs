//! Checks of single values: each gives the value or says what is wrong with it, with what is allowed. The key's name is
//! put in front by the caller. What may be a secret is not quoted.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use warren_crypto::PresharedKey;
use warren_overlay::record::NodeName;

use super::Cidrs;
use crate::cidrs::Source;
use crate::{keyfile, log};

/// Inner MTUs, in bytes: the least that IPv6 allows, and what a jumbo frame leaves.
pub(super) const MTUS: RangeInclusive<u16> = 1280..=9200;

/// A value, or what is wrong with it.
pub(super) type Checked<T> = Result<T, String>;

/// `"auto"` or a value.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Auto<T> {
    Value(T),
    Word(String),
}

impl<T> Auto<T> {
    /// None for `"auto"`.
    pub(super) fn value(self, else_what: &str) -> Checked<Option<T>> {
        match self {
            Self::Value(value) => Ok(Some(value)),
            Self::Word(word) if word == "auto" => Ok(None),
            Self::Word(word) => Err(format!("{word:?} is neither \"auto\" nor {else_what}")),
        }
    }
}

/// Anything that could be read is right.
#[expect(clippy::unnecessary_wraps, reason = "one check among others")]
pub(super) fn any<T>(value: T) -> Checked<T> {
    Ok(value)
}

/// A number in its bounds.
pub(super) fn within<T: PartialOrd + fmt::Display>(allowed: RangeInclusive<T>) -> impl FnOnce(T) -> Checked<T> {
    move |value| match allowed.contains(&value) {
        true => Ok(value),
        false => Err(format!("{value} is not from {} to {}", allowed.start(), allowed.end())),
    }
}

/// One of these words.
pub(super) fn word<T: Copy>(allowed: &[(&str, T)]) -> impl FnOnce(String) -> Checked<T> {
    move |value| match allowed.iter().find(|(word, _)| *word == value) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let words: Vec<_> = allowed.iter().map(|(word, _)| format!("{word:?}")).collect();
            Err(format!("{value:?} is not one of {}", words.join(", ")))
        }
    }
}

pub(super) fn node_name(value: String) -> Checked<NodeName> {
    value.parse().map_err(|error| format!("{value:?}: {error}"))
}

/// The host's name as the node's.
pub(super) fn host_name() -> Checked<NodeName> {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let parsed = name.to_lowercase().parse();
    parsed.map_err(|error| format!("the host name cannot be the node's name ({error}): set node.name"))
}

pub(super) fn device(name: String) -> Checked<String> {
    let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%';
    if name.is_empty() || name.len() > 15 || !name.bytes().all(valid) {
        return Err("1 to 15 printable characters without '/', ':' and '%'".to_owned());
    }
    Ok(name)
}

/// None for `"auto"`.
pub(super) fn mtu(value: Auto<u16>) -> Checked<Option<u16>> {
    match value.value("a number of bytes")? {
        Some(mtu) if !MTUS.contains(&mtu) => Err(format!("{mtu} is neither \"auto\" nor from 1280 to 9200")),
        mtu => Ok(mtu),
    }
}

/// None for `"off"`.
pub(super) fn listener(text: String) -> Checked<Option<SocketAddr>> {
    match text.parse::<SocketAddr>() {
        _ if text == "off" => Ok(None),
        Ok(address) if address.port() != 0 => Ok(Some(address)),
        _ => Err(format!("{text:?} is neither \"off\" nor an address with a port, as \"127.0.0.1:9587\"")),
    }
}

/// The kernel's own tables (rtnetlink: unspecified, default, main, local) would be emptied by a cleanup.
pub(super) fn table(number: u32) -> Checked<u32> {
    match number {
        0 | 253..=255 => Err(format!("{number} belongs to the kernel; any other number will do")),
        _ => Ok(number),
    }
}

pub(super) fn mark(bits: u32) -> Checked<u32> {
    if bits.count_ones() == 1 { Ok(bits) } else { Err("must be one bit, as 0x10".to_owned()) }
}

pub(super) fn ports(list: Vec<Auto<u16>>) -> Checked<Vec<RangeInclusive<u16>>> {
    let parse = |word: &str| -> Option<RangeInclusive<u16>> {
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        let range = low.trim().parse().ok()?..=high.trim().parse().ok()?;
        (!range.is_empty()).then_some(range)
    };
    let port = |port: Auto<u16>| match port {
        Auto::Value(port) => Ok(port..=port),
        Auto::Word(word) => parse(&word).ok_or(format!("{word:?} is no port and no range as \"2379-2380\"")),
    };
    list.into_iter().map(port).collect()
}

pub(super) fn prefixes(list: Vec<String>) -> Checked<BTreeSet<IpNet>> {
    let one = |text: &String| match text.parse::<IpNet>() {
        Ok(prefix) if prefix.addr() == prefix.network() => Ok(prefix),
        Ok(prefix) => Err(format!("{text:?} has host bits set; did you mean \"{}\"?", prefix.trunc())),
        Err(_) => Err(format!("{text:?} is no prefix as \"10.1.0.0/24\" or \"fd00:1::/64\"")),
    };
    list.iter().map(one).collect()
}

/// Prefixes, or who says which; what `"auto"` means is decided when the whole file is known.
pub(super) fn cidrs(value: Auto<Vec<String>>, length: (u8, u8)) -> Checked<(Cidrs, Option<Source>)> {
    let word = match value {
        Auto::Value(list) => return prefixes(list).map(|list| (Cidrs::Listed(list), None)),
        Auto::Word(word) => word,
    };
    match word.as_str() {
        "auto" => Ok((Cidrs::Auto { length }, Some(Source::Any))),
        "cni" => Ok((Cidrs::Listed(BTreeSet::new()), Some(Source::Cni))),
        "flannel" => Ok((Cidrs::Listed(BTreeSet::new()), Some(Source::Flannel))),
        "kubernetes" => Ok((Cidrs::Listed(BTreeSet::new()), Some(Source::Kubernetes))),
        "calico" => Ok((Cidrs::Listed(BTreeSet::new()), Some(Source::Calico))),
        "cilium" => Ok((Cidrs::Listed(BTreeSet::new()), Some(Source::Cilium))),
        _ => Err(format!(
            "{word:?} is neither \"auto\", \"cni\", \"flannel\", \"kubernetes\", \"calico\", \"cilium\" nor a list of \
             prefixes"
        )),
    }
}

/// A URL may hold a password: none is quoted.
pub(super) fn urls(list: Vec<String>) -> Checked<Vec<String>> {
    if list.is_empty() {
        return Err("at least one URL, as \"https://192.0.2.1:2379\"".to_owned());
    }
    list.iter().try_for_each(|url| check_url(url))?;
    Ok(list)
}

/// One, with TLS: a token goes there.
pub(super) fn server_url(url: String) -> Checked<String> {
    if !url.starts_with("https://") {
        return Err("a URL as \"https://192.0.2.1:6443\": tokens travel by TLS alone".to_owned());
    }
    check_url(&url).map(|()| url)
}

fn check_url(url: &str) -> Checked<()> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let place = rest.map(|rest| rest.trim_end_matches('/')).unwrap_or_default();
    if place.contains('@') {
        return Err("no user or password in a URL: they have keys of their own".to_owned());
    }
    if place.is_empty() || place.contains(['/', '?', '#']) || !place.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("each is a URL as \"https://192.0.2.1:2379\" or \"http://127.0.0.1:2379\"".to_owned());
    }
    Ok(())
}

/// What is no path may be the secret itself: it is not quoted.
pub(super) fn absolute(text: String) -> Checked<PathBuf> {
    if !text.starts_with('/') || text.contains('\0') || text.parse::<PresharedKey>().is_ok() {
        return Err("must be an absolute path, as \"/etc/warren/name\"; never the content itself".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// A file that only its owner can read.
pub(super) fn secret_path(text: String) -> Checked<PathBuf> {
    let path = absolute(text)?;
    keyfile::check_secret(&path).map(|()| path).map_err(|error| error.to_string())
}

pub(super) fn preshared_key(text: String) -> Checked<PresharedKey> {
    keyfile::load_preshared(&absolute(text)?).map_err(|error| error.to_string())
}

pub(super) fn level(text: String) -> Checked<String> {
    if log::is_level(&text) { Ok(text) } else { Err(format!("{text:?} is none of {}", log::LEVELS)) }
}
