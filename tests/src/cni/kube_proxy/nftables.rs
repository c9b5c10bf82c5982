//! One table `kube-proxy` for each version of IP.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{Place, Service};

/// Every chain, set, map and rule.
pub fn rules(place: &Place<'_>, services: &[&Service]) -> String {
    let family = if place.v6 { "ip6" } else { "ip" };
    let mut text = base(family);
    for address in place.addresses() {
        let _ = writeln!(text, "add element {family} kube-proxy nodeport-ips {{ {address} }}");
    }
    for service in services {
        for protocol in ["tcp", "udp"] {
            text.push_str(&Port { place, service, protocol, family }.rules());
        }
    }
    text
}

/// What is there without any service.
fn base(family: &str) -> String {
    let address = if family == "ip6" { "ipv6_addr" } else { "ipv4_addr" };
    let lines = format!(
        "add table F kube-proxy {{ comment \"rules for kube-proxy\" ; }}
         add set F kube-proxy cluster-ips {{ type {address} ; comment \"Active ClusterIPs\" ; }}
         add set F kube-proxy nodeport-ips {{ type {address} ; comment \"IPs that accept NodePort traffic\" ; }}
         add map F kube-proxy firewall-ips {{ type {address} . inet_proto . inet_service : verdict ; }}
         add map F kube-proxy no-endpoint-nodeports {{ type inet_proto . inet_service : verdict ; }}
         add map F kube-proxy no-endpoint-services {{ type {address} . inet_proto . inet_service : verdict ; }}
         add map F kube-proxy service-ips {{ type {address} . inet_proto . inet_service : verdict ; }}
         add map F kube-proxy service-nodeports {{ type inet_proto . inet_service : verdict ; }}
         add chain F kube-proxy cluster-ips-check
         add chain F kube-proxy filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110 ; }}
         add chain F kube-proxy filter-output-pre-dnat {{ type filter hook output priority -110 ; }}
         add chain F kube-proxy filter-forward {{ type filter hook forward priority 0 ; }}
         add chain F kube-proxy filter-input {{ type filter hook input priority 0 ; }}
         add chain F kube-proxy filter-output {{ type filter hook output priority 0 ; }}
         add chain F kube-proxy firewall-check
         add chain F kube-proxy mark-for-masquerade
         add chain F kube-proxy masquerading
         add chain F kube-proxy nat-output {{ type nat hook output priority -100 ; }}
         add chain F kube-proxy nat-postrouting {{ type nat hook postrouting priority 100 ; }}
         add chain F kube-proxy nat-prerouting {{ type nat hook prerouting priority -100 ; }}
         add chain F kube-proxy nodeport-endpoints-check
         add chain F kube-proxy reject-chain
         add chain F kube-proxy services
         add chain F kube-proxy service-endpoints-check
         add rule F kube-proxy cluster-ips-check F daddr @cluster-ips reject
         add rule F kube-proxy filter-prerouting-pre-dnat ct state new jump firewall-check
         add rule F kube-proxy filter-forward ct state new jump service-endpoints-check
         add rule F kube-proxy filter-forward ct state new jump cluster-ips-check
         add rule F kube-proxy filter-input ct state new jump nodeport-endpoints-check
         add rule F kube-proxy filter-input ct state new jump service-endpoints-check
         add rule F kube-proxy filter-output ct state new jump service-endpoints-check
         add rule F kube-proxy filter-output-pre-dnat ct state new jump firewall-check
         add rule F kube-proxy filter-output ct state new jump cluster-ips-check
         add rule F kube-proxy firewall-check F daddr . meta l4proto . th dport vmap @firewall-ips
         add rule F kube-proxy mark-for-masquerade mark set mark or 0x4000
         add rule F kube-proxy masquerading mark and 0x4000 == 0 return
         add rule F kube-proxy masquerading mark set mark xor 0x4000
         add rule F kube-proxy masquerading masquerade fully-random
         add rule F kube-proxy nat-output jump services
         add rule F kube-proxy nat-postrouting jump masquerading
         add rule F kube-proxy nat-prerouting jump services
         add rule F kube-proxy nodeport-endpoints-check F daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
         add rule F kube-proxy reject-chain reject
         add rule F kube-proxy services F daddr . meta l4proto . th dport vmap @service-ips
         add rule F kube-proxy services F daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
         add rule F kube-proxy service-endpoints-check F daddr . meta l4proto . th dport vmap @no-endpoint-services\n"
    );
    lines.replace(" F ", &format!(" {family} "))
}

/// One port of one service by one protocol.
struct Port<'a> {
    place: &'a Place<'a>,
    service: &'a Service,
    protocol: &'static str,
    family: &'static str,
}

impl Port<'_> {
    fn rules(&self) -> String {
        let (family, protocol, cluster) = (self.family, self.protocol, self.service.cluster);
        let chain = self.chain("service");
        let mut text = format!("add chain {family} kube-proxy {chain}\n");
        let not_pods = if self.place.masquerade_all {
            String::new()
        } else {
            format!(" {family} saddr != {}", self.place.cluster)
        };
        self.rule(&mut text, &chain, &format!("{family} daddr {}{not_pods} jump mark-for-masquerade", cluster.ip()));
        self.endpoints(&mut text);
        let all: Vec<&SocketAddr> = self.service.endpoints.iter().map(|(_, address)| address).collect();
        self.spread(&mut text, &chain, &all);
        let element = |map: &str, element: String| format!("add element {family} kube-proxy {map} {{ {element} }}\n");
        text.push_str(&element("cluster-ips", cluster.ip().to_string()));
        let key = format!("{} . {protocol} . {} : goto {chain}", cluster.ip(), cluster.port());
        text.push_str(&element("service-ips", key));
        if let Some(port) = self.service.node_port {
            self.external(&mut text);
            let key = format!("{protocol} . {port} : goto {}", self.chain("external"));
            text.push_str(&element("service-nodeports", key));
            if self.place.external_endpoints(self.service).is_empty() {
                text.push_str(&element("no-endpoint-nodeports", format!("{protocol} . {port} : drop")));
            }
        }
        text
    }

    fn endpoints(&self, text: &mut String) {
        let (family, protocol) = (self.family, self.protocol);
        for (_, address) in &self.service.endpoints {
            let chain = self.endpoint(address);
            let _ = writeln!(text, "add chain {family} kube-proxy {chain}");
            self.rule(text, &chain, &format!("{family} saddr {} jump mark-for-masquerade", address.ip()));
            self.rule(text, &chain, &format!("meta l4proto {protocol} dnat to {address}"));
        }
    }

    /// What comes by a node's port.
    fn external(&self, text: &mut String) {
        let (family, service, external) = (self.family, self.chain("service"), self.chain("external"));
        let _ = writeln!(text, "add chain {family} kube-proxy {external}");
        if !self.service.local {
            self.rule(text, &external, "jump mark-for-masquerade");
            self.rule(text, &external, &format!("goto {service}"));
            return;
        }
        self.rule(text, &external, &format!("{family} saddr {} goto {service}", self.place.cluster));
        self.rule(text, &external, "fib saddr type local jump mark-for-masquerade");
        self.rule(text, &external, &format!("fib saddr type local goto {service}"));
        self.spread(text, &external, &self.place.external_endpoints(self.service));
    }

    fn spread(&self, text: &mut String, chain: &str, endpoints: &[&SocketAddr]) {
        let each = endpoints.iter().enumerate().map(|(n, address)| format!("{n} : goto {}", self.endpoint(address)));
        let each: Vec<String> = each.collect();
        if !each.is_empty() {
            self.rule(text, chain, &format!("numgen random mod {} vmap {{ {} }}", each.len(), each.join(", ")));
        }
    }

    fn rule(&self, text: &mut String, chain: &str, rule: &str) {
        let _ = writeln!(text, "add rule {} kube-proxy {chain} {rule}", self.family);
    }

    fn chain(&self, kind: &str) -> String {
        format!("{kind}-ULMVA6XW-{}/{}/p", self.service.name, self.protocol)
    }

    fn endpoint(&self, address: &SocketAddr) -> String {
        // Colons are none of nft's: kube-proxy writes dots instead.
        let ip = address.ip().to_string().replace(':', ".");
        format!("{}__{ip}/{}", self.chain("endpoint"), address.port())
    }
}
