//! The chains `CILIUM_…`, fed from every table's own chains.

use std::fmt::Write as _;

use super::{Routing, router};
use crate::Node;
use crate::cni::rules::{ipset, iptables};
use crate::lab::networks;

/// Writes them, with masquerading by iptables (`bpf.masquerade=false`).
#[track_caller]
pub(super) fn install(routing: Routing, own: &Node, others: &[&Node]) {
    for (cidr, network) in own.cidrs().into_iter().zip(networks(own.plan().overlay)) {
        let v6 = cidr.addr().is_ipv6();
        let nat = Nat { own: cidr.to_string(), all: network.to_string(), router: router(cidr).to_string() };
        if routing == Routing::Native {
            ipset(own, &nodes(v6, own, others));
        }
        iptables(own, v6, &format!("{}{}{}{}", raw(), mangle(), nat.rules(routing, v6), filter()));
    }
}

/// Nodes are spoken to without masquerading where Pods' addresses are routed.
fn nodes(v6: bool, own: &Node, others: &[&Node]) -> String {
    let (set, family) = (set(v6), if v6 { "inet6" } else { "inet" });
    let mut lines = format!("create {set} hash:ip family {family}\n");
    let all = [&[own][..], others].concat();
    for address in all.iter().flat_map(|node| node.addresses()).filter(|address| address.is_ipv6() == v6) {
        let _ = writeln!(lines, "add {set} {address}");
    }
    lines
}

fn set(v6: bool) -> &'static str {
    if v6 { "cilium_node_set_v6" } else { "cilium_node_set_v4" }
}

fn feed(hook: &str, chain: &str) -> String {
    format!(":{chain} - [0:0]\n-A {hook} -m comment --comment \"cilium-feeder: {chain}\" -j {chain}\n")
}

fn raw() -> String {
    let notrack = |chain: &str, matches: &str, why: &str| {
        format!("-A {chain} {matches} -m comment --comment \"cilium: NOTRACK for {why}\" -j CT --notrack\n")
    };
    let output = "CILIUM_OUTPUT_raw";
    [
        "*raw\n".to_owned(),
        feed("PREROUTING", "CILIUM_PRE_raw"),
        feed("OUTPUT", output),
        notrack("CILIUM_PRE_raw", "-m mark --mark 0x200/0xf00", "proxy traffic"),
        notrack(output, "-o lxc+ -m mark --mark 0xa00/0xfffffeff", "proxy return traffic"),
        notrack(output, "-o cilium_host -m mark --mark 0xa00/0xfffffeff", "proxy return traffic"),
        notrack(output, "-o lxc+ -m mark --mark 0x800/0xe00", "L7 proxy upstream traffic"),
        notrack(output, "-o cilium_host -m mark --mark 0x800/0xe00", "L7 proxy upstream traffic"),
        "COMMIT\n".to_owned(),
    ]
    .concat()
}

fn mangle() -> String {
    format!(
        "*mangle\n{}{}-A CILIUM_PRE_mangle ! -i lo -m socket --transparent -m mark ! --mark 0xe00/0xf00 -m mark ! --mark 0x800/0xf00 \
         -m comment --comment \"cilium: any->pod redirect proxied traffic to host proxy\" -j MARK --set-xmark 0x200/0xffffffff\nCOMMIT\n",
        feed("PREROUTING", "CILIUM_PRE_mangle"),
        feed("POSTROUTING", "CILIUM_POST_mangle"),
    )
}

fn filter() -> String {
    let accept = |chain: &str, link: &str, why: &str| {
        format!("-A {chain} {link} -m comment --comment \"cilium: {why}\" -j ACCEPT\n")
    };
    [
        "*filter\n".to_owned(),
        feed("INPUT", "CILIUM_INPUT"),
        feed("OUTPUT", "CILIUM_OUTPUT"),
        feed("FORWARD", "CILIUM_FORWARD"),
        accept("CILIUM_INPUT", "-m mark --mark 0x200/0xf00", "ACCEPT for proxy traffic"),
        accept("CILIUM_OUTPUT", "-m mark --mark 0xa00/0xe00", "ACCEPT for proxy traffic"),
        accept("CILIUM_OUTPUT", "-m mark --mark 0x800/0xe00", "ACCEPT for l7 proxy upstream traffic"),
        "-A CILIUM_OUTPUT -m mark ! --mark 0xe00/0xf00 -m mark ! --mark 0xd00/0xf00 -m mark ! --mark 0x400/0xf00 \
         -m mark ! --mark 0xa00/0xe00 -m mark ! --mark 0x800/0xe00 -m mark ! --mark 0xf00/0xf00 \
         -m comment --comment \"cilium: host->any mark as from host\" -j MARK --set-xmark 0xc00/0xf00\n"
            .to_owned(),
        accept("CILIUM_FORWARD", "-o cilium_host", "any->cluster on cilium_host forward accept"),
        accept("CILIUM_FORWARD", "-i cilium_host", "cluster->any on cilium_host forward accept (nodeport)"),
        accept("CILIUM_FORWARD", "-i lxc+", "cluster->any on lxc+ forward accept"),
        accept("CILIUM_FORWARD", "-i cilium_net", "cluster->any on cilium_net forward accept (nodeport)"),
        accept("CILIUM_FORWARD", "-o lxc+", "any->cluster on lxc+ forward accept"),
        accept("CILIUM_FORWARD", "-i lxc+", "cluster->any on lxc+ forward accept (nodeport)"),
        "COMMIT\n".to_owned(),
    ]
    .concat()
}

/// One version's addresses.
struct Nat {
    own: String,
    all: String,
    router: String,
}

impl Nat {
    fn rules(&self, routing: Routing, v6: bool) -> String {
        let Self { own, all, router } = self;
        let rule = |matches: &str, why: &str, target: &str| {
            format!("-A CILIUM_POST_nat {matches} -m comment --comment \"{why}\" -j {target}\n")
        };
        let snat = format!("SNAT --to-source {router}");
        let mut lines = vec![
            "*nat\n".to_owned(),
            feed("PREROUTING", "CILIUM_PRE_nat"),
            feed("OUTPUT", "CILIUM_OUTPUT_nat"),
            feed("POSTROUTING", "CILIUM_POST_nat"),
        ];
        if routing == Routing::Native {
            let matches = format!("-s {own} -m set --match-set {} dst", set(v6));
            lines.push(rule(&matches, "exclude traffic to cluster nodes from masquerade", "ACCEPT"));
        }
        // In tunnel mode only the own range is left out: other Pods are behind a device of Cilium's.
        let left_out = if routing == Routing::Native { all } else { own };
        lines.push(rule(
            &format!("-s {own} ! -d {left_out} ! -o cilium_+"),
            "cilium masquerade non-cluster",
            "MASQUERADE",
        ));
        lines.push(rule("-m mark --mark 0xa00/0xe00", "exclude proxy return traffic from masquerade", "ACCEPT"));
        if routing == Routing::Tunnel {
            let matches = format!("! -s {own} ! -d {own} -o cilium_host");
            lines.push(rule(&matches, "cilium host->cluster masquerade", &snat));
        }
        if !v6 {
            lines.push(rule("-s 127.0.0.1/32 -o cilium_host", "cilium host->cluster from 127.0.0.1 masquerade", &snat));
        }
        let hairpin = "-o cilium_host -m mark --mark 0xf00/0xf00 -m conntrack --ctstate DNAT";
        lines.push(rule(hairpin, "hairpin traffic that originated from a local pod", &snat));
        lines.push("COMMIT\n".to_owned());
        lines.concat()
    }
}
