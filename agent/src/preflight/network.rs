//! Port, device, addresses, forwarding.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use ipnet::IpNet;

use super::Finding;
use crate::config::{Cidrs, Config};
use crate::control::underlay::{node_addresses, overlay_networks, without_pods};
use crate::host::{self, Survey, sysctl};
use crate::status::Status;

/// `running` is the agent that answers here.
pub(super) fn port(port: u16, running: Option<&Status>) -> Finding {
    let taken = |address: IpAddr| {
        UdpSocket::bind(SocketAddr::new(address, port))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    };
    if !taken(Ipv4Addr::UNSPECIFIED.into()) && !taken(Ipv6Addr::UNSPECIFIED.into()) {
        return Finding::fine(format!("UDP port {port}"));
    }
    match running {
        Some(agent) if agent.port == port => {
            Finding::fine(format!("UDP port {port} (in use by the running agent of {})", agent.node))
        }
        _ => Finding::fatal(
            format!("UDP port {port} is taken"),
            format!("see who has it with `ss -ulpn sport = :{port}`, and stop that, or set underlay.port"),
        ),
    }
}

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    match host::survey(&config.overlay.device, config.underlay.devices.as_ref()) {
        Ok(survey) => found(config, &survey),
        Err(error) => vec![Finding::fatal(
            format!("the kernel's routing cannot be read ({error})"),
            "the kernel needs CONFIG_IP_MULTIPLE_TABLES; check underlay.devices",
        )],
    }
}

fn found(config: &Config, survey: &Survey) -> Vec<Finding> {
    // As the agent sees it: a device on which only Pods live is no underlay.
    let overlay = overlay_networks(config, None, &BTreeSet::new());
    let addresses = node_addresses(config, &without_pods(config, &overlay, survey.underlay.clone()));
    let mut findings = vec![device(&config.overlay.device, survey)];
    if addresses.is_empty() {
        findings.push(Finding::fatal(
            "this host has no underlay address",
            "no device has a default route or a global address: set underlay.devices and node.addresses",
        ));
    }
    let networks = networks(config);
    let etcd = config.etcd.iter().flat_map(|etcd| &etcd.endpoints).map(|url| ("the etcd endpoint", url));
    let kubernetes = config.asked_server().into_iter().filter_map(crate::config::Kubernetes::url);
    let registries = etcd.chain(kubernetes.map(|url| ("the API server", url)));
    let registries = registries.filter_map(|(what, url)| Some((what, host_of(url)?)));
    let named = addresses.iter().map(|address| ("the node address", *address));
    for (what, address) in named.chain(registries) {
        findings.extend(networks.iter().find(|net| net.contains(&address)).map(|net| {
            Finding::fatal(
                format!("{what} {address} is inside the cluster network {net}"),
                "the node would cut itself off: choose other Pod networks or another address; node.addresses names the node's own",
            )
        }));
    }
    if networks.iter().any(|net| net.addr().is_ipv6()) && !Path::new("/proc/net/if_inet6").exists() {
        findings.push(Finding::fatal(
            "the cluster has IPv6 networks and this kernel has no IPv6",
            "remove ipv6.disable=1 from the kernel's command line",
        ));
    }
    findings
}

fn device(name: &str, survey: &Survey) -> Finding {
    match survey.device_kind.as_deref() {
        None | Some("tun") => Finding::fine(format!("device name {name}")),
        Some(kind) => Finding::fatal(
            format!("the device {name} belongs to somebody else (kind {kind:?})"),
            "remove it, or set overlay.device",
        ),
    }
}

fn networks(config: &Config) -> Vec<IpNet> {
    let own = config.node.cidrs.known();
    let peers = config.peers.iter().flat_map(|peer| peer.cidrs.iter().copied());
    config.overlay.networks.iter().copied().chain(own).chain(peers).collect()
}

/// The literal address in a URL; names are resolved later, by those who use them.
fn host_of(url: &str) -> Option<IpAddr> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next()?;
    let literal = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    literal.trim_matches(['[', ']']).parse().ok().or_else(|| authority.trim_matches(['[', ']']).parse().ok())
}

/// Pods need a host that forwards; the agent switches it on where it may.
pub(super) fn forwarding(config: &Config) -> Vec<Finding> {
    let v6 = |net: &IpNet| net.addr().is_ipv6();
    let networks = networks(config);
    let pods = config.node.cidrs != Cidrs::Listed(Default::default()) || config.node.cidrs_from.is_some();
    let needed = |name: &'static str, wanted: bool| (wanted && pods).then_some(name);
    let names = [
        needed("net/ipv4/ip_forward", networks.is_empty() || networks.iter().any(|net| !v6(net))),
        needed("net/ipv6/conf/all/forwarding", networks.iter().any(v6)),
    ];
    names.into_iter().flatten().filter_map(forwards).collect()
}

fn forwards(name: &str) -> Option<Finding> {
    let shown = name.replace('/', ".");
    if sysctl::read(name)? == "1" {
        return Some(Finding::fine(shown));
    }
    let path = Path::new("/proc/sys").join(name);
    Some(match std::fs::OpenOptions::new().write(true).open(path) {
        Ok(_) => Finding::fine(format!("{shown} (will be switched on)")),
        Err(error) => Finding::fatal(
            format!("{shown} is off and may not be switched on ({error}): Pods would reach nobody"),
            format!("`sysctl -w {shown}=1`, and keep it in /etc/sysctl.d"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Underlay, UnderlayDevice};

    #[test]
    fn the_address_in_a_url_is_found_whatever_its_spelling() {
        let found = |url: &str| host_of(url).map(|address| address.to_string());
        assert_eq!(found("https://10.0.0.1:2379"), Some("10.0.0.1".into()));
        assert_eq!(found("http://[fd00::1]:2379/x"), Some("fd00::1".into()));
        assert_eq!(found("10.0.0.1"), Some("10.0.0.1".into()));
        assert_eq!(found("https://[fd00::1]"), Some("fd00::1".into()));
        assert_eq!(found("https://etcd.example:2379"), None);
    }

    #[test]
    fn a_port_is_fatal_when_somebody_but_our_own_agent_has_it() {
        let holder = UdpSocket::bind("0.0.0.0:0").expect("binds");
        let number = holder.local_addr().expect("an address").port();
        let agent = |port: u16| Status { node: "a".into(), port, ..Status::default() };
        assert!(port(number, None).is_fatal());
        assert!(port(number, Some(&agent(number ^ 1))).is_fatal());
        let own = port(number, Some(&agent(number)));
        assert!(own.ok && own.what.contains("in use by the running agent of a"), "{own}");
        drop(holder);
        assert!(port(number, None).ok);
    }

    #[test]
    fn an_address_on_the_pods_device_is_no_node_address_unless_it_is_named_as_one() {
        let text = "[node]\nname = \"a\"\ncidrs = [\"10.42.1.0/24\"]\n[overlay]\nnetworks = [\"10.42.0.0/16\"]\n";
        let config = crate::config::parse(text, Path::new("warren.toml")).expect("valid");
        let device = |address: &str| UnderlayDevice { mtu: 1500, addresses: [address.parse().expect("valid")].into() };
        let fatal = |devices: &[(&str, &str)]| {
            let devices = devices.iter().map(|(name, address)| ((*name).to_owned(), device(address))).collect();
            let underlay = Underlay { devices, ..Underlay::default() };
            let found = found(&config, &Survey { underlay, ..Survey::default() });
            found.into_iter().filter(Finding::is_fatal).map(|finding| finding.to_string()).collect::<String>()
        };
        assert_eq!(fatal(&[("eth0", "10.0.0.11"), ("pods", "10.42.1.1")]), "");
        assert!(fatal(&[("pods", "10.42.1.1")]).contains("no underlay address"));
        assert!(fatal(&[]).contains("no underlay address"));
        let named =
            crate::config::parse(&text.replace("[node]", "[node]\naddresses = [\"10.42.1.1\"]"), Path::new("x"));
        let found = found(&named.expect("valid"), &Survey::default());
        assert!(found.iter().any(|finding| finding.to_string().contains("10.42.1.1 is inside the cluster network")));
    }

    #[test]
    fn a_device_of_somebody_else_is_fatal() {
        let survey = |kind: Option<&str>| Survey { device_kind: kind.map(Into::into), ..Survey::default() };
        assert!(device("warren0", &survey(None)).ok);
        assert!(device("warren0", &survey(Some("tun"))).ok);
        assert!(device("warren0", &survey(Some("bridge"))).is_fatal());
        assert!(device("eth0", &survey(Some(""))).is_fatal());
    }
}
