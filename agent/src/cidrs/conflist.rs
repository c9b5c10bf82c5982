//! A CNI configuration: which prefixes its first plugin may give to Pods. Pure.
//!
//! The first plugin makes the Pod's interface; those behind it change what it made, and a `host-local` among them gives
//! out addresses of something else (the AWS CNI has one for its way out).

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

/// Why a configuration names no prefix of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silent {
    /// It is none.
    Malformed(String),
    /// Flannel's: the prefix is in a file of its own.
    Flannel,
    /// The plugin asks the API server for the Node's.
    OfTheNode(String),
    /// Addresses come one by one, or from an allocator that says nothing here.
    Allocator {
        /// The first plugin.
        plugin: String,
        /// What gives out addresses, where it is named.
        ipam: Option<String>,
    },
    /// A part of a prefix: the rest may be other nodes'.
    Part(String),
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "this is no CNI configuration: {what}"),
            Self::Flannel => {
                f.write_str("Flannel's configuration names no prefix: node.cidrs = \"flannel\" reads where it does")
            }
            Self::OfTheNode(plugin) => write!(
                f,
                "the plugin {plugin} gives out Node.spec.podCIDRs, which only the API server knows: list them in node.cidrs, or \
                 ask it, by node.cidrs = \"kubernetes\""
            ),
            Self::Allocator { plugin, ipam } => write!(
                f,
                "the plugin {plugin}{} names no prefix of this node: if Pods' packets travel in a tunnel of the CNI (VXLAN, \
                 Geneve, IP-in-IP), overlay.mode = \"nodes\" with node.cidrs = [] encrypts that; if the nodes have prefixes \
                 all the same, list this one's in node.cidrs",
                ipam.as_ref().map(|ipam| format!(" with the IPAM {ipam}")).unwrap_or_default()
            ),
            Self::Part(subnet) => write!(
                f,
                "only a part of {subnet} is this node's (rangeStart, rangeEnd): list what is this node's alone in node.cidrs"
            ),
        }
    }
}

/// A list of plugins, or one plugin alone.
#[derive(Deserialize)]
struct Network {
    plugins: Option<Vec<Plugin>>,
    #[serde(flatten)]
    alone: Plugin,
}

#[derive(Default, Deserialize)]
struct Plugin {
    #[serde(default, rename = "type")]
    kind: String,
    ipam: Option<Value>,
}

/// What `host-local` takes (containernetworking/plugins, plugins/ipam/host-local).
#[derive(Deserialize)]
struct HostLocal {
    #[serde(default)]
    ranges: Vec<Vec<Range>>,
    #[serde(flatten)]
    range: Option<Range>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    subnet: String,
    range_start: Option<Value>,
    range_end: Option<Value>,
}

/// The prefixes out of which Pods of this node get addresses.
pub(super) fn prefixes(text: &str) -> Result<BTreeSet<IpNet>, Silent> {
    let network: Network = serde_json::from_str(text).map_err(|error| Silent::Malformed(error.to_string()))?;
    let plugin = match network.plugins {
        Some(plugins) => plugins.into_iter().next().unwrap_or_default(),
        None => network.alone,
    };
    match (plugin.kind.as_str(), plugin.ipam) {
        ("", _) => Err(Silent::Malformed("its first plugin has no type".to_owned())),
        ("flannel", _) => Err(Silent::Flannel),
        (_, Some(ipam)) if ipam["type"] == "host-local" => host_local(plugin.kind, ipam),
        (_, ipam) => {
            let ipam = ipam.as_ref().and_then(|ipam| ipam["type"].as_str()).map(str::to_owned);
            Err(Silent::Allocator { plugin: plugin.kind, ipam })
        }
    }
}

fn host_local(plugin: String, ipam: Value) -> Result<BTreeSet<IpNet>, Silent> {
    let HostLocal { ranges, range } =
        serde_json::from_value(ipam).map_err(|error| Silent::Malformed(format!("its host-local: {error}")))?;
    let all: Vec<Range> = ranges.into_iter().flatten().chain(range).collect();
    // Antrea names none; Calico and Canal name this word, as one range among others too.
    if all.is_empty() || all.iter().any(|range| range.subnet.eq_ignore_ascii_case("usePodCidr")) {
        return Err(Silent::OfTheNode(plugin));
    }
    all.into_iter().map(prefix).collect()
}

fn prefix(Range { subnet, range_start, range_end }: Range) -> Result<IpNet, Silent> {
    match subnet.parse::<IpNet>() {
        Ok(net) if net.addr() != net.network() => Err(Silent::Malformed(format!("{subnet:?} has host bits set"))),
        Ok(_) if range_start.is_some() || range_end.is_some() => Err(Silent::Part(subnet)),
        Ok(net) => Ok(net),
        Err(_) => Err(Silent::Malformed(format!("{subnet:?} is no prefix"))),
    }
}
