//! The file's tables as they stand in it: shapes only, nothing checked but the kinds and the names of keys.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use toml::Spanned;

/// `"auto"` or a value.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Auto<T> {
    Value(T),
    Word(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawFile {
    pub(super) node: RawNode,
    pub(super) overlay: RawOverlay,
    pub(super) underlay: RawUnderlay,
    pub(super) offload: RawOffload,
    pub(super) workers: RawWorkers,
    pub(super) etcd: Option<RawEtcd>,
    pub(super) peer: Vec<RawPeer>,
    pub(super) log: RawLog,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawNode {
    pub(super) name: Option<Spanned<String>>,
    pub(super) addresses: Option<Spanned<Auto<BTreeSet<IpAddr>>>>,
    pub(super) endpoints: Option<Vec<SocketAddr>>,
    pub(super) cidrs: Option<Spanned<Auto<Vec<String>>>>,
    pub(super) cidr_length: Option<Spanned<u8>>,
    pub(super) cidr_length_v6: Option<Spanned<u8>>,
    pub(super) state_dir: Option<Spanned<String>>,
    pub(super) key_file: Option<Spanned<String>>,
    pub(super) run_dir: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawOverlay {
    pub(super) device: Option<Spanned<String>>,
    pub(super) address: BTreeSet<IpAddr>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) networks: Option<Spanned<Vec<String>>>,
    pub(super) enforcement: Option<Spanned<String>>,
    pub(super) mtu: Option<Spanned<Auto<u16>>>,
    pub(super) rule_priority: Option<Spanned<u32>>,
    pub(super) table: Option<Spanned<u32>>,
    pub(super) mark: Option<Spanned<u32>>,
    pub(super) exempt_ports: Option<Spanned<Vec<Auto<u16>>>>,
    pub(super) grace_seconds: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawUnderlay {
    pub(super) port: Option<Spanned<u16>>,
    pub(super) devices: Option<Spanned<Auto<BTreeSet<String>>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawOffload {
    pub(super) tun_tso: Option<bool>,
    pub(super) tun_uso: Option<bool>,
    pub(super) udp_gso: Option<bool>,
    pub(super) udp_gro: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawWorkers {
    pub(super) count: Option<Spanned<u16>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEtcd {
    pub(super) endpoints: Spanned<Vec<String>>,
    pub(super) cluster: Option<Spanned<String>>,
    pub(super) ca_file: Option<Spanned<String>>,
    pub(super) cert_file: Option<Spanned<String>>,
    pub(super) key_file: Option<Spanned<String>>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<Spanned<String>>,
    pub(super) password: Option<String>,
    pub(super) lease_seconds: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPeer {
    pub(super) name: Spanned<String>,
    pub(super) public_key: Spanned<String>,
    pub(super) endpoint: Option<SocketAddr>,
    #[serde(default)]
    pub(super) cidrs: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) preshared_key_file: Option<Spanned<String>>,
    pub(super) persistent_keepalive: Option<u16>,
    pub(super) mtu: Option<Spanned<u16>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) level: Option<Spanned<String>>,
    pub(super) format: Option<Spanned<String>>,
}
