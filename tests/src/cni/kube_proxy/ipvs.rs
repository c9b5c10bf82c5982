//! What `ipvs` mode leaves on a node: every cluster address on `kube-ipvs0`, and so local to each node; the sets `KUBE-…` of
//! ipset(8); the chains `KUBE-…` of iptables that look into them (`pkg/proxy/ipvs/proxier.go`).
//!
//! IPVS itself is missing: the lab's kernels have none. A chain of nftables behind kube-proxy's translates addresses in its
//! place, before the packet is routed and not, as IPVS does, when it has come to the local address. Their kernels have no
//! `dummy` either: `kube-ipvs0` is the end of a veth that is down, as the real device is, and resolves nobody, as it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::{Place, Service};
use crate::cni::rules::{ipset, iptables};

const DEVICE: &str = "kube-ipvs0";
const PROTOCOLS: [&str; 2] = ["tcp", "udp"];
/// Chains and jumps that are there without any service. `S-` stands for what the sets' names begin with.
const FILTER: &str = "\
*filter
:KUBE-FORWARD - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
-A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER
-A INPUT -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check rules\" -j KUBE-NODE-PORT
-A FORWARD -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A OUTPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-OUT-FILTER
-A KUBE-SOURCE-RANGES-FIREWALL -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-NODE-PORT -m set --match-set S-HEALTH-CHECK-NODE-PORT dst -j ACCEPT
-A KUBE-IPVS-FILTER -m set --match-set S-LOAD-BALANCER dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set S-CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set S-EXTERNAL-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set S-EXTERNAL-IP-LOCAL dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set S-HEALTH-CHECK-NODE-PORT dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set S-IPVS-IPS dst -j REJECT
COMMIT
";
const NAT: &str = "\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-SERVICES -s LOOPBACK -j RETURN
-A KUBE-POSTROUTING -m set --match-set S-LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-NODE-PORT -p tcp -m set --match-set S-NODE-PORT-LOCAL-TCP dst -j RETURN
-A KUBE-NODE-PORT -p tcp -m set --match-set S-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-NODE-PORT -p udp -m set --match-set S-NODE-PORT-LOCAL-UDP dst -j RETURN
-A KUBE-NODE-PORT -p udp -m set --match-set S-NODE-PORT-UDP dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set S-CLUSTER-IP dst,dst NOT-PODS -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set S-CLUSTER-IP dst,dst -j ACCEPT
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
COMMIT
";

/// Everything for one version of IP.
#[track_caller]
pub fn install(place: &Place<'_>, services: &[&Service]) {
    bind(place, services);
    ipset(place.node, &sets(place, services));
    iptables(place.node, place.v6, &tables(place));
    place.node.namespace().nft(&in_place_of_ipvs(place, services));
}

/// Cluster addresses on the device, which is made when it is not there.
fn bind(place: &Place<'_>, services: &[&Service]) {
    let namespace = place.node.namespace();
    if !namespace.attempt(&["ip", "link", "show", DEVICE]).success() {
        namespace.ip_batch(&format!("link add {DEVICE} type veth peer name {DEVICE}-end\nlink set {DEVICE} arp off\n"));
    }
    let mut lines = String::new();
    for cluster in services.iter().map(|service| service.cluster.ip()) {
        let _ = writeln!(lines, "addr add {} dev {DEVICE}", ipnet::IpNet::from(cluster));
    }
    namespace.ip_batch(&lines);
}

fn prefix(v6: bool) -> &'static str {
    if v6 { "KUBE-6" } else { "KUBE" }
}

fn sets(place: &Place<'_>, services: &[&Service]) -> String {
    let (prefix, family) = (prefix(place.v6), if place.v6 { "inet6" } else { "inet" });
    let mut lines = String::new();
    for (name, kind) in [
        ("LOOP-BACK", "hash:ip,port,ip"),
        ("CLUSTER-IP", "hash:ip,port"),
        ("EXTERNAL-IP", "hash:ip,port"),
        ("EXTERNAL-IP-LOCAL", "hash:ip,port"),
        ("LOAD-BALANCER", "hash:ip,port"),
        ("IPVS-IPS", "hash:ip"),
    ] {
        let _ = writeln!(lines, "create {prefix}-{name} {kind} family {family}");
    }
    for name in
        ["NODE-PORT-TCP", "NODE-PORT-LOCAL-TCP", "NODE-PORT-UDP", "NODE-PORT-LOCAL-UDP", "HEALTH-CHECK-NODE-PORT"]
    {
        let _ = writeln!(lines, "create {prefix}-{name} bitmap:port range 0-65535");
    }
    services.iter().for_each(|service| members(&mut lines, place, service));
    lines
}

fn members(lines: &mut String, place: &Place<'_>, service: &Service) {
    let prefix = prefix(place.v6);
    let (cluster, port) = (service.cluster.ip(), service.cluster.port());
    let _ = writeln!(lines, "add {prefix}-IPVS-IPS {cluster} -exist");
    for protocol in PROTOCOLS {
        let _ = writeln!(lines, "add {prefix}-CLUSTER-IP {cluster},{protocol}:{port}");
        for (_, end) in service.endpoints.iter().filter(|(number, _)| *number == place.node.number) {
            let (ip, port) = (end.ip(), end.port());
            let _ = writeln!(lines, "add {prefix}-LOOP-BACK {ip},{protocol}:{port},{ip} -exist");
        }
        let Some(port) = service.node_port else { continue };
        let upper = protocol.to_uppercase();
        let _ = writeln!(lines, "add {prefix}-NODE-PORT-{upper} {port}");
        if service.local {
            let _ = writeln!(lines, "add {prefix}-NODE-PORT-LOCAL-{upper} {port}");
        }
    }
}

fn tables(place: &Place<'_>) -> String {
    let not_pods = if place.masquerade_all { String::new() } else { format!("! -s {}", place.cluster) };
    let text = format!("{FILTER}{NAT}").replace("--match-set S-", &format!("--match-set {}-", prefix(place.v6)));
    text.replace("NOT-PODS", &not_pods).replace("LOOPBACK", if place.v6 { "::1/128" } else { "127.0.0.0/8" })
}

/// Each virtual server's address and port, translated to one of its real servers.
fn in_place_of_ipvs(place: &Place<'_>, services: &[&Service]) -> String {
    let family = if place.v6 { "ip6" } else { "ip" };
    let mut rules = String::new();
    for service in services {
        let all: Vec<&SocketAddr> = service.endpoints.iter().map(|(_, address)| address).collect();
        rules.push_str(&server(family, service.cluster, &all));
        let Some(port) = service.node_port else { continue };
        // Without one on this node all of them serve, whoever asks.
        let here = place.external_endpoints(service);
        let ends = if here.is_empty() { &all } else { &here };
        let at = |node: IpAddr| server(family, SocketAddr::new(node, port), ends);
        rules.extend(place.addresses().into_iter().map(at));
    }
    let chain = |name: &str, hook: &str| {
        format!("chain {name} {{\ntype nat hook {hook} priority -95; policy accept;\n{rules}}}\n")
    };
    format!("table {family} in-place-of-ipvs {{\n{}{}}}\n", chain("in", "prerouting"), chain("out", "output"))
}

fn server(family: &str, at: SocketAddr, ends: &[&SocketAddr]) -> String {
    let each = ends.iter().enumerate().map(|(number, end)| format!("{number} : {} . {}", end.ip(), end.port()));
    let (ip, port, count, each) = (at.ip(), at.port(), ends.len(), each.collect::<Vec<_>>().join(", "));
    let to = format!("dnat to numgen inc mod {count} map {{ {each} }}");
    PROTOCOLS.map(|protocol| format!("{family} daddr {ip} {protocol} dport {port} {to}\n")).concat()
}
