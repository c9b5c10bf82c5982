//! Felix' sets and chains, in its iptables form.

use std::fmt::Write as _;

use super::Encapsulation;
use crate::Node;
use crate::cni::rules::{ipset, iptables};
use crate::lab::networks;

/// Every table's chains `cali-…`, with no endpoint in them yet.
#[track_caller]
pub(super) fn install(how: Encapsulation, own: &Node, others: &[&Node]) {
    for network in networks(own.plan().overlay) {
        let v6 = network.addr().is_ipv6();
        let nodes = [&[own][..], others].concat();
        ipset(own, &sets(&network.to_string(), v6, &nodes));
        iptables(own, v6, &tables(how, v6));
    }
}

/// The chains of one Pod's link: its namespace's profile allows everything.
#[track_caller]
pub(super) fn endpoint(node: &Node, name: &str) {
    for network in networks(node.plan().overlay) {
        iptables(node, network.addr().is_ipv6(), &of_endpoint(name));
    }
}

/// Sets are named by the version of IP.
fn prefix(v6: bool) -> &'static str {
    if v6 { "cali60" } else { "cali40" }
}

/// Pools are never left without masquerading over IPv4; over IPv6 nothing is masqueraded, which is Calico's default.
fn sets(pool: &str, v6: bool, nodes: &[&Node]) -> String {
    let (prefix, family) = (prefix(v6), if v6 { "inet6" } else { "inet" });
    let mut lines = String::new();
    for set in ["all-ipam-pools", "masq-ipam-pools", "all-hosts-net", "all-vxlan-net"] {
        let _ = writeln!(lines, "create {prefix}{set} hash:net family {family} maxelem 1048576");
    }
    let _ = writeln!(lines, "add {prefix}all-ipam-pools {pool}");
    if !v6 {
        let _ = writeln!(lines, "add {prefix}masq-ipam-pools {pool}");
    }
    for address in nodes.iter().flat_map(|node| node.addresses()).filter(|address| address.is_ipv6() == v6) {
        for set in ["all-hosts-net", "all-vxlan-net"] {
            let _ = writeln!(lines, "add {prefix}{set} {address}");
        }
    }
    lines
}

fn tables(how: Encapsulation, v6: bool) -> String {
    [raw(how), MANGLE.to_owned(), nat(how, v6), filter(how, v6)].concat()
}

/// What comes from a Pod must come from its own address; a VXLAN's datagrams are nobody's connection.
fn raw(how: Encapsulation) -> String {
    let untracked = |chain: &str| match how {
        Encapsulation::CrossSubnet => format!("-A {chain} -p udp -m udp --dport 4789 -j CT --notrack\n"),
        _ => String::new(),
    };
    format!(
        "*raw\n:cali-PREROUTING - [0:0]\n:cali-OUTPUT - [0:0]\n:cali-rpf-skip - [0:0]\n:cali-from-host-endpoint - [0:0]\n\
         :cali-to-host-endpoint - [0:0]\n\
         -A PREROUTING -j cali-PREROUTING\n-A OUTPUT -j cali-OUTPUT\n\
         -A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000\n{}\
         -A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000\n\
         -A cali-PREROUTING -m mark --mark 0x40000/0x40000 -j cali-rpf-skip\n\
         -A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP\n\
         -A cali-PREROUTING -m mark --mark 0x0/0x40000 -j cali-from-host-endpoint\n\
         -A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
         -A cali-OUTPUT -j MARK --set-xmark 0x0/0xf0000\n-A cali-OUTPUT -j cali-to-host-endpoint\n{}\
         -A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT\nCOMMIT\n",
        untracked("cali-PREROUTING"),
        untracked("cali-OUTPUT"),
    )
}

const MANGLE: &str = "\
*mangle
:cali-PREROUTING - [0:0]
:cali-POSTROUTING - [0:0]
:cali-from-host-endpoint - [0:0]
:cali-to-host-endpoint - [0:0]
-A PREROUTING -j cali-PREROUTING
-A POSTROUTING -j cali-POSTROUTING
-A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-PREROUTING -j cali-from-host-endpoint
-A cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-POSTROUTING -j MARK --set-xmark 0x0/0xf0000
-A cali-POSTROUTING -m conntrack --ctstate DNAT -j cali-to-host-endpoint
COMMIT
";

/// Pods are masqueraded where they leave the pools; the host, where it would enter a tunnel by another address.
fn nat(how: Encapsulation, v6: bool) -> String {
    let device = match (how, v6) {
        (Encapsulation::Ipip, false) => Some("tunl0"),
        (Encapsulation::CrossSubnet, false) => Some("vxlan.calico"),
        (Encapsulation::CrossSubnet, true) => Some("vxlan-v6.calico"),
        _ => None,
    };
    let tunnel = device.map(|device| {
        format!(
            "-A cali-POSTROUTING -o {device} -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL \
             -j MASQUERADE --random-fully\n"
        )
    });
    format!(
        "*nat\n:cali-PREROUTING - [0:0]\n:cali-POSTROUTING - [0:0]\n:cali-OUTPUT - [0:0]\n:cali-fip-dnat - [0:0]\n:cali-fip-snat - [0:0]\n\
         :cali-nat-outgoing - [0:0]\n\
         -A PREROUTING -j cali-PREROUTING\n-A OUTPUT -j cali-OUTPUT\n-A POSTROUTING -j cali-POSTROUTING\n\
         -A cali-PREROUTING -j cali-fip-dnat\n-A cali-OUTPUT -j cali-fip-dnat\n\
         -A cali-POSTROUTING -j cali-fip-snat\n-A cali-POSTROUTING -j cali-nat-outgoing\n{}\
         -A cali-nat-outgoing -m set --match-set {prefix}masq-ipam-pools src -m set ! --match-set {prefix}all-ipam-pools dst \
         -j MASQUERADE --random-fully\nCOMMIT\n",
        tunnel.unwrap_or_default(),
        prefix = prefix(v6),
    )
}

/// Tunnels' packets come from nodes alone; Pods' packets pass the chains of their link.
fn filter(how: Encapsulation, v6: bool) -> String {
    format!(
        "*filter\n:cali-INPUT - [0:0]\n:cali-FORWARD - [0:0]\n:cali-OUTPUT - [0:0]\n:cali-from-wl-dispatch - [0:0]\n\
         :cali-to-wl-dispatch - [0:0]\n:cali-wl-to-host - [0:0]\n:cali-from-hep-forward - [0:0]\n:cali-to-hep-forward - [0:0]\n\
         :cali-from-host-endpoint - [0:0]\n:cali-to-host-endpoint - [0:0]\n:cali-cidr-block - [0:0]\n\
         -A INPUT -j cali-INPUT\n-A OUTPUT -j cali-OUTPUT\n-A FORWARD -j cali-FORWARD\n\
         -A FORWARD -m comment --comment \"Policy explicitly accepted packet.\" -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
         -A FORWARD -j MARK --set-xmark 0x10000/0x10000\n\
         {}-A cali-INPUT -i cali+ -g cali-wl-to-host\n-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
         -A cali-INPUT -j MARK --set-xmark 0x0/0xf0000\n-A cali-INPUT -j cali-from-host-endpoint\n\
         -A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
         -A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000\n-A cali-FORWARD -m mark --mark 0x0/0x10000 -j cali-from-hep-forward\n\
         -A cali-FORWARD -i cali+ -j cali-from-wl-dispatch\n-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch\n\
         -A cali-FORWARD -j cali-to-hep-forward\n-A cali-FORWARD -j cali-cidr-block\n\
         -A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT\n-A cali-OUTPUT -o cali+ -j RETURN\n\
         -A cali-OUTPUT -j MARK --set-xmark 0x0/0xf0000\n-A cali-OUTPUT -m conntrack ! --ctstate DNAT -j cali-to-host-endpoint\n\
         -A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
         -A cali-wl-to-host{} -j cali-from-wl-dispatch\n\
         -A cali-wl-to-host -m comment --comment \"Configured DefaultEndpointToHostAction\" -j ACCEPT\nCOMMIT\n",
        encapsulated(how, prefix(v6)),
        if v6 { NEIGHBOURS } else { "" },
    )
}

fn encapsulated(how: Encapsulation, prefix: &str) -> String {
    match how {
        Encapsulation::Ipip => format!(
            "-A cali-INPUT -p 4 -m comment --comment \"Allow IPIP packets from Calico hosts\" \
             -m set --match-set {prefix}all-hosts-net src -m addrtype --dst-type LOCAL -j ACCEPT\n\
             -A cali-INPUT -p 4 -m comment --comment \"Drop IPIP packets from non-Calico hosts\" -j DROP\n"
        ),
        Encapsulation::CrossSubnet => format!(
            "-A cali-INPUT -p 17 -m comment --comment \"Allow VXLAN packets from allowed hosts\" -m multiport --dports 4789 \
             -m set --match-set {prefix}all-vxlan-net src -m addrtype --dst-type LOCAL -j ACCEPT\n\
             -A cali-INPUT -p 17 -m comment --comment \"Drop VXLAN packets from non-allowed hosts\" -m multiport --dports 4789 \
             -m addrtype --dst-type LOCAL -j DROP\n"
        ),
        Encapsulation::Bgp => String::new(),
    }
}

/// What a Pod needs of its router.
const NEIGHBOURS: &str = " -p ipv6-icmp -m icmp6 --icmpv6-type 133 -j ACCEPT\n\
     -A cali-wl-to-host -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT\n\
     -A cali-wl-to-host -p ipv6-icmp -m icmp6 --icmpv6-type 136 -j ACCEPT\n\
     -A cali-wl-to-host";

fn of_endpoint(name: &str) -> String {
    let pair = |way: &str, more: &str| {
        format!(
            "-A cali-{way}-{name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A cali-{way}-{name} -m conntrack --ctstate INVALID -j DROP\n\
             -A cali-{way}-{name} -j MARK --set-xmark 0x0/0x30000\n{more}\
             -A cali-{way}-{name} -j cali-pr{}-kns.default\n\
             -A cali-{way}-{name} -m comment --comment \"Return if profile accepted\" -m mark --mark 0x10000/0x10000 -j RETURN\n\
             -A cali-{way}-{name} -m comment --comment \"Drop if no profiles matched\" -j DROP\n",
            if way == "fw" { "o" } else { "i" },
        )
    };
    let encapsulated = format!(
        "-A cali-fw-{name} -p 17 -m comment --comment \"Drop VXLAN encapped packets originating in workloads\" -m multiport --dports 4789 -j DROP\n\
         -A cali-fw-{name} -p 4 -m comment --comment \"Drop IPinIP encapped packets originating in workloads\" -j DROP\n"
    );
    format!(
        "*filter\n:cali-fw-{name} - [0:0]\n:cali-tw-{name} - [0:0]\n:cali-pro-kns.default - [0:0]\n:cali-pri-kns.default - [0:0]\n\
         -A cali-pro-kns.default -j MARK --set-xmark 0x10000/0x10000\n-A cali-pro-kns.default -m mark --mark 0x10000/0x10000 -j RETURN\n\
         -A cali-pri-kns.default -j MARK --set-xmark 0x10000/0x10000\n-A cali-pri-kns.default -m mark --mark 0x10000/0x10000 -j RETURN\n\
         {}{}\
         -A cali-from-wl-dispatch -i {name} -g cali-fw-{name}\n\
         -A cali-from-wl-dispatch -m comment --comment \"Unknown interface\" -j DROP\n\
         -A cali-to-wl-dispatch -o {name} -g cali-tw-{name}\n\
         -A cali-to-wl-dispatch -m comment --comment \"Unknown interface\" -j DROP\nCOMMIT\n",
        pair("fw", &encapsulated),
        pair("tw", ""),
    )
}
