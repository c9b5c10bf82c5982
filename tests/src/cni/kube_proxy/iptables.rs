//! The chains `KUBE-…` of the tables `filter` and `nat`, as iptables-restore(8) takes them.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{Place, Service};

/// Jumps and chains that are there without any service.
const BASE: &str = "\
*filter
:KUBE-NODEPORTS - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
";
const NAT: &str = "\
COMMIT
*nat
:KUBE-NODEPORTS - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
";
/// Incoming packets for the loopback network; IPv6 has no rule for that.
const MARTIANS: &str = "-A KUBE-FIREWALL -m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s 127.0.0.0/8 \
     -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n";
const NODEPORTS: &str = "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
     -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n";

/// Every chain and rule.
pub fn rules(place: &Place<'_>, services: &[&Service]) -> String {
    let mut filter = BASE.to_owned();
    if !place.v6 {
        filter.push_str(MARTIANS);
    }
    let mut nat = NAT.to_owned();
    for (number, service) in services.iter().enumerate() {
        for protocol in ["tcp", "udp"] {
            let port = Port { place, service, protocol, id: format!("{}{number:013}", &protocol.to_uppercase()) };
            filter.push_str(&port.filter());
            nat.push_str(&port.nat());
        }
    }
    format!("{filter}{}{NODEPORTS}COMMIT\n", chains_first(&nat))
}

/// A rule may only jump to what was declared before it.
fn chains_first(table: &str) -> String {
    let (chains, rules): (Vec<&str>, Vec<&str>) = table.lines().partition(|line| line.starts_with([':', '*', 'C']));
    chains.into_iter().chain(rules).fold(String::new(), |text, line| text + line + "\n")
}

/// One port of one service by one protocol.
struct Port<'a> {
    place: &'a Place<'a>,
    service: &'a Service,
    protocol: &'static str,
    id: String,
}

impl Port<'_> {
    fn filter(&self) -> String {
        let Some(port) = self.service.node_port else { return String::new() };
        if !self.place.external_endpoints(self.service).is_empty() {
            return String::new();
        }
        let (name, matches) = (self.service.name, self.matches());
        format!(
            "-A KUBE-EXTERNAL-SERVICES -m comment --comment \"{name}:p has no local endpoints\" -m addrtype --dst-type LOCAL \
             {matches} --dport {port} -j DROP\n"
        )
    }

    fn nat(&self) -> String {
        let (id, name, matches, cluster) = (&self.id, self.service.name, self.matches(), self.service.cluster);
        let (to, pods) = (format!("-d {} --dport {}", cluster.ip(), cluster.port()), self.place.cluster);
        let mut text = format!(":KUBE-SVC-{id} - [0:0]\n");
        let _ = writeln!(
            text,
            "-A KUBE-SERVICES -m comment --comment \"{name}:p cluster IP\" {matches} {to} -j KUBE-SVC-{id}"
        );
        let not_pods = if self.place.masquerade_all { String::new() } else { format!(" ! -s {pods}") };
        let _ = writeln!(
            text,
            "-A KUBE-SVC-{id} -m comment --comment \"{name}:p cluster IP\" {matches} {to}{not_pods} -j KUBE-MARK-MASQ"
        );
        let all: Vec<&SocketAddr> = self.service.endpoints.iter().map(|(_, address)| address).collect();
        self.spread(&mut text, "SVC", &all);
        for (number, address) in all.iter().enumerate() {
            self.endpoint(&mut text, number, address);
        }
        if let Some(port) = self.service.node_port {
            self.external(&mut text, port);
        }
        text
    }

    fn endpoint(&self, text: &mut String, number: usize, address: &SocketAddr) {
        let (id, name) = (&self.id, self.service.name);
        let chain = format!("KUBE-SEP-{id}{number}");
        let comment = format!("-m comment --comment {name}:p");
        let _ = writeln!(text, ":{chain} - [0:0]\n-A {chain} {comment} -s {} -j KUBE-MARK-MASQ", address.ip());
        let _ = writeln!(text, "-A {chain} {comment} {} -j DNAT --to-destination {address}", self.matches());
    }

    /// What comes by a node's port.
    fn external(&self, text: &mut String, port: u16) {
        let (id, name, pods) = (&self.id, self.service.name, self.place.cluster);
        let to = |what: &str| format!("-m comment --comment \"{what} {name}:p external destinations\"");
        let _ = writeln!(text, ":KUBE-EXT-{id} - [0:0]");
        let _ = writeln!(
            text,
            "-A KUBE-NODEPORTS -m comment --comment {name}:p {} --dport {port} -j KUBE-EXT-{id}",
            self.matches()
        );
        if !self.service.local {
            let _ = writeln!(text, "-A KUBE-EXT-{id} {} -j KUBE-MARK-MASQ", to("masquerade traffic for"));
            let _ = writeln!(text, "-A KUBE-EXT-{id} -j KUBE-SVC-{id}");
            return;
        }
        let local = "-m addrtype --src-type LOCAL";
        let _ = writeln!(text, "-A KUBE-EXT-{id} {} -s {pods} -j KUBE-SVC-{id}", to("pod traffic for"));
        let _ = writeln!(text, "-A KUBE-EXT-{id} {} {local} -j KUBE-MARK-MASQ", to("masquerade LOCAL traffic for"));
        let _ = writeln!(text, "-A KUBE-EXT-{id} {} {local} -j KUBE-SVC-{id}", to("route LOCAL traffic for"));
        let here = self.place.external_endpoints(self.service);
        if !here.is_empty() {
            let _ = writeln!(text, ":KUBE-SVL-{id} - [0:0]");
            self.spread(text, "SVL", &here);
            let _ = writeln!(text, "-A KUBE-EXT-{id} -j KUBE-SVL-{id}");
        }
    }

    /// One rule for each endpoint, each with the share of what the ones before it left.
    fn spread(&self, text: &mut String, kind: &str, endpoints: &[&SocketAddr]) {
        let (id, name) = (&self.id, self.service.name);
        for (number, address) in endpoints.iter().enumerate() {
            let position = self.service.endpoints.iter().position(|(_, known)| known == *address).unwrap_or(number);
            let left = endpoints.len() - number;
            let share = if left == 1 {
                String::new()
            } else {
                format!(
                    " -m statistic --mode random --probability {:.10}",
                    1.0 / f64::from(u32::try_from(left).unwrap_or(1))
                )
            };
            let _ = writeln!(
                text,
                "-A KUBE-{kind}-{id} -m comment --comment \"{name}:p -> {address}\"{share} -j KUBE-SEP-{id}{position}"
            );
        }
    }

    fn matches(&self) -> String {
        format!("-m {protocol} -p {protocol}", protocol = self.protocol)
    }
}
