//! Every key of the configuration file, in one table: what error messages, `docs/config.md` and `deploy/warren.toml` say.
//!
//! It reads and checks nothing; tests hold it, the two pages and the reader to each other.

use std::fmt::Write as _;

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The table it stands in; `peer` is an array of tables.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it may hold, for people.
    pub takes: &'static str,
    /// What holds without it: TOML that could be written instead, or words in parentheses.
    pub default: &'static str,
    /// A value as one would write it.
    pub example: &'static str,
    /// What it is for.
    pub about: &'static str,
}

impl Key {
    /// Its dotted name, as `--set` takes it.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that wins over the file.
    pub fn variable(&self) -> String {
        format!("WARREN_{}_{}", self.section, self.name).to_uppercase()
    }

    /// It stands in an array of tables: no single value could win.
    pub fn is_listed(&self) -> bool {
        self.section == "peer"
    }

    /// It holds a secret itself: never in the environment or among flags.
    pub fn is_secret(&self) -> bool {
        (self.section, self.name) == ("etcd", "password")
    }

    /// What it must be, without what it is: that may be a secret.
    pub fn must_be(&self) -> String {
        format!("key '{}': must be {}, as {}", self.path(), self.takes, self.example)
    }
}

/// The tables, in the order of the file.
pub const SECTIONS: &[(&str, &str)] = &[
    ("node", "Who this node is, and where the agent keeps its files."),
    ("overlay", "Which traffic is carried, and how the host is set up for it."),
    ("underlay", "The network that the nodes already have."),
    ("offload", "Each is used where the kernel has it; switch one off to find a fault, at the price of speed."),
    ("workers", "The data path."),
    ("health", "Probes by HTTP: `/livez` and `/readyz` (docs/health.md)."),
    ("metrics", "Metrics by HTTP: `/metrics`, OpenMetrics text (docs/metrics.md)."),
    (
        "cni",
        "What the agent puts before the host's container runtime, as files of its own in `node.cni_dir` (docs/cni.md). `warren cleanup` removes them.",
    ),
    ("etcd", "The registry. Without this table the static peers below are the whole mesh."),
    (
        "kubernetes",
        "The registry of a Kubernetes cluster, instead of etcd: custom resources (docs/kubernetes-registry.md). The table alone enables it, even empty.",
    ),
    (
        "peer",
        "Static peers, `[[peer]]` once each: Warren nodes or any WireGuard peer. They win over the registry, and are read again when the file changes.",
    ),
    (
        "log",
        "Log lines go to standard error. They never hold keys or packets; a warning that repeats itself is said once a minute, and counted.",
    ),
];

const fn key(
    section: &'static str,
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    example: &'static str,
    about: &'static str,
) -> Key {
    Key { section, name, takes, default, example, about }
}

/// All of them, in the order of the file.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("node", "name", "1 to 63 of a-z, 0-9, '-' and '.', alphanumeric at both ends", "(the host name in lower case)", "\"node-a\"",
        "The node's name, unique in the cluster."),
    key("node", "addresses", "\"auto\" or a list of IP addresses", "\"auto\"", "[\"192.0.2.1\"]",
        "The node's own addresses on the underlay, as peers know it; `auto` takes those of the underlay devices. Devices without any of them are guarded all the same; in mode `nodes`, what other nodes send to further addresses is neither carried nor guarded. With `[kubernetes]`, those of them that the Node shows are published."),
    key("node", "endpoints", "a list of address:port", "(every node address with underlay.port)", "[\"192.0.2.1:51840\", \"[2001:db8::1]:51840\"]",
        "What peers dial, best first. Set it behind a NAT."),
    key("node", "cidrs", "\"auto\", \"cni\", \"flannel\", \"kubernetes\", \"calico\", \"cilium\" or a list of prefixes", "[]", "[\"10.1.0.0/24\"]",
        "The node's Pod CIDRs. With a registry, `[]` takes what an administrator allocated (`warren cluster add-node`). `cni`: the ranges of host-local in the CNI's configuration; `flannel`: what Flannel wrote; both are read again when they change. `kubernetes`: the Node's `spec.podCIDRs`; `calico`: the blocks that have an affinity to this node; `cilium`: those of its CiliumNode; all three are asked of the API server, whatever the registry is, and followed. `auto`: in a Pod of Kubernetes or without a registry, whichever of `cni` and `flannel` is there; else the node allocates for itself, which trusts every node."),
    key("node", "cni_dir", "an absolute path", "\"/etc/cni/net.d\"", "\"/var/lib/rancher/k3s/agent/etc/cni/net.d\"",
        "The CNI's configurations: where `cidrs = \"cni\"` looks, and where `cni.gate` and `cni.install` write. The first file by name is the one that counts."),
    key("node", "flannel_file", "an absolute path", "\"/run/flannel/subnet.env\"", "\"/run/flannel/subnet.env\"",
        "Where `cidrs = \"flannel\"` looks."),
    key("node", "cidr_length", "a prefix length from 8 to 30", "24", "26",
        "Where the node allocates for itself: the length of an IPv4 CIDR."),
    key("node", "cidr_length_v6", "a prefix length from 16 to 126", "64", "80",
        "Where the node allocates for itself: the length of an IPv6 CIDR."),
    key("node", "state_dir", "an absolute path", "\"/var/lib/warren\"", "\"/var/lib/warren\"",
        "Holds the key, the last good mesh and the saved guard; made with mode 0700."),
    key("node", "key_file", "an absolute path", "(private.key in state_dir)", "\"/var/lib/warren/private.key\"",
        "The private key: made at the first start, mode 0600, never replaced when it is damaged."),
    key("node", "run_dir", "an absolute path", "\"/run/warren\"", "\"/run/warren\"",
        "Holds the admin socket `warren.sock`."),
    key("overlay", "device", "1 to 15 printable characters without '/', ':' and '%'", "\"warren0\"", "\"warren0\"",
        "The TUN device."),
    key("overlay", "address", "a list of IP addresses", "[]", "[\"10.1.0.1\"]",
        "Addresses of its own in the overlay, for a host without Pods."),
    key("overlay", "mode", "\"pods\" or \"nodes\"", "\"pods\"", "\"nodes\"",
        "`pods` carries traffic among Pods and between Pods and nodes; `nodes` also everything between node addresses."),
    key("overlay", "networks", "a list of prefixes", "[]", "[\"10.0.0.0/8\"]",
        "The cluster network, a superset of all Pod CIDRs. What the registry says wins; without either it is the union of all known CIDRs."),
    key("overlay", "enforcement", "\"strict\" or \"permissive\"", "\"strict\"", "\"permissive\"",
        "`strict`: tunnel or nothing. `permissive`, for a roll-out: nodes without an agent are still reached in clear, and counted. What the registry says wins."),
    key("overlay", "mtu", "\"auto\" or a number of bytes from 1280 to 9200", "\"auto\"", "1420",
        "The inner MTU; `auto` is the underlay's less 60 (IPv4) or 80 (IPv6)."),
    key("overlay", "rule_priority", "a number from 1 to 32000", "90", "90",
        "The first preference of the routing rules. It must be ahead of every rule that would divert Pod traffic, and of main (32766)."),
    key("overlay", "table", "a number from 1 to 4294967295, but not 253, 254 or 255", "51840", "51840",
        "The routing table, Warren's alone: `warren cleanup` empties it."),
    key("overlay", "mark", "a number with exactly one bit set", "0x10", "0x10",
        "The packet mark's bit, clear of those that the CNI and kube-proxy use."),
    key("overlay", "exempt_ports", "a list of ports and of ranges as \"2379-2380\"", "[22, 6443, \"2379-2380\", 10250]", "[22]",
        "In mode `nodes`: ports that stay in clear between nodes. The same on every node."),
    key("overlay", "associations", "\"prefer\", \"require\" or \"off\"", "\"prefer\"", "\"require\"",
        "Between two agents, data leaves the WireGuard session for associations: a key and a counter for every worker, AES-256-GCM, post-quantum key agreement. `prefer`: what cannot be agreed on travels in the session. `require`: it is dropped. `off`: nothing but standard WireGuard on the wire."),
    key("overlay", "suite", "\"auto\", \"aes-256-gcm\" or \"chacha20-poly1305\"", "\"auto\"", "\"aes-256-gcm\"",
        "The cipher of associations. `auto`: AES where both CPUs have its instructions. A named one is never lowered: it implies `associations = \"require\"`."),
    key("overlay", "grace_seconds", "a number from 0 to 604800", "900", "900",
        "How long a peer is kept after its record vanished, while its tunnel lives."),
    key("underlay", "port", "a port from 1 to 65535", "51840", "51840",
        "The UDP port of the tunnel. Open it in the firewall, both ways."),
    key("underlay", "devices", "\"auto\" or a list of device names", "\"auto\"", "[\"eth0\"]",
        "The devices that the guard watches; `auto` is those with a default route or a global address, but for those of containers and tunnels."),
    key("underlay", "source_ports", "\"auto\" or \"single\"", "\"auto\"", "\"single\"",
        "Whether associations leave from a UDP source port for each worker, so that network cards and paths spread them. `auto`: where the peer says that they arrive, and unchanged; in mode `nodes` never, since there our datagrams are known by the one port. `single`: everything leaves from `underlay.port`."),
    key("offload", "tun_tso", "true or false", "true", "false", "Take and give TCP superpackets at the TUN device."),
    key("offload", "tun_uso", "true or false", "true", "false", "Take and give UDP superpackets at the TUN device (Linux 6.2); with `tun_tso` also take those of flows inside of VXLAN or Geneve, and give those of TCP inside of a VXLAN that ends here (Linux 6.17). No test has had Geneve yet."),
    key("offload", "udp_gso", "true or false", "true", "false", "Send trains of datagrams in one system call."),
    key("offload", "udp_gro", "true or false", "true", "false", "Receive trains of datagrams in one system call."),
    key("workers", "count", "a number from 0 to 64", "0", "4", "Data-path threads; 0 is one per core."),
    key("workers", "pin", "true or false", "false", "true",
        "Keep each data-path thread on one core, for hosts that set cores apart for it; the kernel's scheduler does better where other programs run on the same cores."),
    key("health", "listen", "\"off\" or address:port", "\"127.0.0.1:9587\"", "\"127.0.0.1:9587\"",
        "Where `/livez` and `/readyz` are answered; best left where only this host can ask."),
    key("metrics", "listen", "\"off\" or address:port", "\"127.0.0.1:9586\"", "\"192.0.2.1:9586\"",
        "Where `/metrics` is answered, without TLS and for whoever asks: for a Prometheus on another host the node's own address, behind a firewall. The same as `health.listen` serves all three in one place."),
    key("metrics", "per_peer", "true or false", "true", "false",
        "Whether there are series of every single peer: their number grows with the square of the cluster's size."),
    key("cni", "gate", "true or false", "false", "true",
        "No Pod is added to this node before the guard stands (in `strict`), also after a reboot: puts the plugin `warren-gate` behind the plugins of the CNI, in a copy of its configuration (`00-warren-gate.conflist`)."),
    key("cni", "install", "true or false", "false", "true",
        "A network for a node that has no CNI: writes `10-warren.conflist` (ptp, host-local, portmap, firewall) from the node's CIDRs, unless there is another CNI's. With etcd, `node.cidrs = \"auto\"` then allocates."),
    key("cni", "bin_dir", "an absolute path", "\"/opt/cni/bin\"", "\"/usr/lib/cni\"",
        "Where the container runtime looks for plugins: nothing is written that names one which is not there."),
    key("etcd", "endpoints", "a list of URLs as \"https://192.0.2.1:2379\", without user and password", "(required)", "[\"https://192.0.2.1:2379\"]",
        "Where etcd answers. An address inside the cluster network is refused."),
    key("etcd", "cluster", "1 to 63 of a-z, 0-9, '-' and '.', alphanumeric at both ends", "\"default\"", "\"default\"",
        "Everything lives below `/warren/<cluster>/v1/`."),
    key("etcd", "ca_file", "an absolute path", "(none)", "\"/etc/warren/etcd-ca.pem\"", "The CA that signed the servers' certificates, PEM."),
    key("etcd", "cert_file", "an absolute path", "(none)", "\"/etc/warren/etcd.pem\"", "The client certificate, PEM; needs `key_file`."),
    key("etcd", "key_file", "an absolute path to a file that only its owner can read", "(none)", "\"/etc/warren/etcd.key\"",
        "The client certificate's key, PEM, mode 0600."),
    key("etcd", "username", "text", "(none)", "\"warren-node-a\"", "The etcd user; needs `password_file`. Prefer certificates."),
    key("etcd", "password_file", "an absolute path to a file that only its owner can read", "(none)", "\"/etc/warren/etcd.password\"",
        "Holds the user's password, mode 0600."),
    key("etcd", "password", "text", "(none)", "\"correct horse\"",
        "The user's password, instead of `password_file`; this file must then be readable by its owner alone. `warren cluster add-node` writes it, so that one file is all that a host needs."),
    key("etcd", "lease_seconds", "a number from 5 to 86400", "60", "60",
        "How long the record outlives the agent. A lease is a hint: peers keep a live tunnel for `overlay.grace_seconds`."),
    key("kubernetes", "enabled", "true or false", "true", "false", "`false`: it is not the registry. The other keys still say how the API server is reached for `node.cidrs`."),
    key("kubernetes", "kubeconfig", "an absolute path to a file that only its owner can read", "(none: what Kubernetes gives a Pod)", "\"/etc/warren/kubeconfig\"",
        "For hosts that are no Pod: a kubeconfig, mode 0600, of user `warren:host:NAME` in group `warren:hosts`."),
    key("kubernetes", "context", "text", "(the kubeconfig's current context)", "\"prod\"", "Which context of the kubeconfig."),
    key("kubernetes", "server", "a URL as \"https://192.0.2.1:6443\"", "(as found in the kubeconfig or the Pod)", "\"https://192.0.2.1:6443\"",
        "Where the API server answers, instead of the cluster's Service: for clusters where kube-proxy starts later than the agent. An address inside the cluster network is refused."),
    key("peer", "name", "1 to 63 of a-z, 0-9, '-' and '.', alphanumeric at both ends", "(required)", "\"node-b\"", "The peer's name here."),
    key("peer", "public_key", "44 characters of base64, as `warren pubkey` and `wg pubkey` print it", "(required)", "\"oFQbHDFmKH6PEYzwMPfxCXCQfBYwYGVAcQOqgGWDiGo=\"",
        "The peer's public key."),
    key("peer", "endpoint", "address:port; names are not resolved", "(none: the peer dials us)", "\"192.0.2.2:51840\"", "Where the peer listens, outside of the overlay."),
    key("peer", "cidrs", "a list of prefixes", "[]", "[\"10.2.0.0/24\"]", "The prefixes behind it: what is routed to it, and the only sources it may use."),
    key("peer", "addresses", "a list of IP addresses", "[]", "[\"192.0.2.2\"]", "The peer's own node addresses."),
    key("peer", "preshared_key_file", "an absolute path to a file that only its owner can read", "(none)", "\"/etc/warren/node-b.psk\"",
        "Holds a key as `wg genpsk` prints it, shared with this peer, mode 0600."),
    key("peer", "persistent_keepalive", "seconds from 0 to 65535", "0", "25", "Seconds between keepalives, for a peer behind a NAT; 0 is off."),
    key("peer", "associations", "true or false", "false", "true", "The peer is an agent that knows associations; leave it out for other WireGuard peers."),
    key("peer", "mtu", "a number of bytes from 1280 to 9200", "(as overlay.mtu)", "1420", "The largest inner packet that the peer takes."),
    key("log", "level", "error, warn, info, debug, trace, or filters as \"info,warren_agent::host=debug\"", "\"info\"", "\"debug\"", "How much is said."),
    key("log", "format", "\"text\" or \"json\"", "\"text\"", "\"json\"", "How a line looks."),
];

/// The key of this dotted name.
pub fn find(path: &str) -> Option<&'static Key> {
    let (section, name) = path.split_once('.')?;
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The names in one table, or the tables themselves for an empty name, as an error message lists them.
pub fn names(section: &str) -> String {
    let names: Vec<&str> = match section {
        "" => SECTIONS.iter().map(|(name, _)| *name).collect(),
        _ => KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect(),
    };
    names.join(", ")
}

/// `docs/config.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# The configuration file\n\n\
         TOML, `/etc/warren/warren.toml` unless `--config FILE` or `WARREN_CONFIG` names another. Unknown keys are refused, so a typing\n\
         error cannot pass for a default. `warren check-config` says what a file means, or file, line, key and what is allowed there.\n\
         All faults are said at once. The file is read again while the agent runs, for its peers.\n\n\
         A flag wins over an environment variable, and that over the file. Every key but those of `[[peer]]` has a variable, named\n\
         below, and `--set SECTION.KEY=VALUE` with every command. There, text needs no quotes and a list may stand without brackets:\n\
         `--set overlay.mode=nodes`, `WARREN_NODE_CIDRS=10.1.0.0/24,fd00:1::/64`; TOML as in the file is understood too. An empty\n\
         variable is none; a variable that no key has is left alone, since Kubernetes sets such. What holds in the end, and where it\n\
         comes from, `warren check-config` says.\n\n\
         Secrets stand in files of their own, readable by their owner alone; this file names them by absolute path.\n\
         [deploy/warren.toml](../deploy/warren.toml) is an example with every key in it.\n\n\
         This page is written from the table that the agent reads by: `WARREN_WRITE_DOCS=1 cargo test -p warren config::keys`.\n",
    );
    for (section, about) in SECTIONS {
        let title = if *section == "peer" { "[[peer]]".to_owned() } else { format!("[{section}]") };
        let _ = write!(
            page,
            "\n## `{title}`\n\n{about}\n\n| key | takes | default | variable | meaning |\n|---|---|---|---|---|\n"
        );
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let default = match key.default.strip_prefix('(') {
                Some(words) => words.trim_end_matches(')').to_owned(),
                None => format!("`{}`", key.default),
            };
            let variable = match key.is_listed() || key.is_secret() {
                true => "none".to_owned(),
                false => format!("`{}`", key.variable()),
            };
            let _ = writeln!(page, "| `{}` | {} | {default} | {variable} | {} |", key.name, key.takes, key.about);
        }
    }
    page
}

/// `deploy/warren.toml`: every key as a comment, with its default, or an example where the default is none to write.
pub fn example() -> String {
    let mut file = String::from(
        "# Warren's configuration: every key, commented out. What is commented out is the default, or an example where\n\
         # the default cannot be written. docs/config.md has the same as a page; `warren check-config` checks a file.\n",
    );
    for (section, about) in SECTIONS {
        let _ = writeln!(file, "\n{}", comment(about));
        let _ = writeln!(file, "{}", if *section == "peer" { "#[[peer]]".to_owned() } else { format!("#[{section}]") });
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let written = !key.default.starts_with('(');
            let _ = writeln!(file, "\n{}", comment(&format!("{} Takes {}.", key.about, key.takes)));
            if !written {
                let _ = writeln!(file, "{}", comment(&format!("Default: {}.", key.default.trim_matches(['(', ')']))));
            }
            let _ = writeln!(file, "#{} = {}", key.name, if written { key.default } else { key.example });
        }
    }
    file
}

/// The text as comment lines of at most 110 characters.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 110 => *line += &format!(" {word}"),
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
