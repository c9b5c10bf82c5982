//! The host's routing against a real kernel, each test in a network namespace of its own. Needs root.

mod host_space;

use std::process::Command;

use host_space::{Space, desired, ip};

#[test]
#[ignore = "needs root"]
fn a_second_apply_writes_nothing() {
    Space::enter(|space| async move {
        let mut host = space.host();
        let wanted = desired();
        let first = host.apply(&wanted).await.expect("applies");
        assert!(first.writes > 10, "{first:?}");
        let second = host.apply(&wanted).await.expect("applies again");
        assert_eq!(second.writes, 0);
        let mut again = space.host();
        assert_eq!(again.apply(&wanted).await.expect("applies after a restart").writes, 0);
    });
}

#[test]
#[ignore = "needs root"]
fn traffic_between_pods_and_to_remote_pods_goes_into_the_device() {
    Space::enter(|space| async move {
        space.host().apply(&desired()).await.expect("applies");
        for (query, expected) in [
            ("10.42.2.7", "dev warren0 table 51840 src 192.168.77.1"),
            ("10.42.2.7 from 10.42.1.9 iif cni0", "dev warren0 table 51840"),
            ("192.168.77.2 from 10.42.1.9 iif cni0", "dev warren0 table 51841"),
            ("192.168.77.2", "dev eth0 src 192.168.77.1"),
            ("10.42.1.9", "dev cni0 src 10.42.1.1"),
            ("192.168.77.1", "local 192.168.77.1 dev lo"),
            ("192.0.2.99 mark 0x10", "dev warren0 table 51842"),
            ("10.42.2.7 ipproto udp sport 51840 dport 51840", "via 192.168.77.254 dev eth0"),
            ("fd42:2::7", "from :: dev warren0 table 51840 proto 87 src fd77::1"),
            ("fd77::2", "dev eth0"),
            ("fd77::2 from fd42:1::9 iif cni0", "dev warren0 table 51841"),
        ] {
            let route = get(query);
            assert!(squeeze(&route).contains(expected), "{query}: {route}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn in_strict_an_unknown_pod_is_unreachable() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        assert!(get("10.42.9.9").contains("No route to host"), "{}", get("10.42.9.9"));
        assert!(get("fd42:9::9").contains("No route to host"), "{}", get("fd42:9::9"));
        let mut permissive = desired();
        permissive.enforcement = warren_overlay::mesh::Enforcement::Permissive;
        host.apply(&permissive).await.expect("applies");
        assert!(get("10.42.9.9").contains("dev eth0"), "{}", get("10.42.9.9"));
    });
}

#[test]
#[ignore = "needs root"]
fn in_strict_nothing_leaves_when_the_device_is_gone() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        ip("link del warren0");
        for query in ["10.42.2.7", "192.168.77.2 from 10.42.1.9 iif cni0", "192.0.2.99 mark 0x10"] {
            assert!(get(query).contains("No route to host"), "{query}: {}", get(query));
        }
        let error = host.apply(&desired()).await.expect_err("there is no device").to_string();
        assert!(error.contains("warren0 does not exist"), "{error}");
        ip("tuntap add warren0 mode tun");
        host.apply(&desired()).await.expect("applies");
        assert!(get("10.42.2.7").contains("dev warren0"));
    });
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_is_gone_is_unreachable() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        ip("link del cni0");
        assert!(get("10.42.1.9").contains("unreachable"), "{}", get("10.42.1.9"));
    });
}

#[test]
#[ignore = "needs root"]
fn mode_nodes_carries_node_traffic_except_exempt_ports_and_our_own_datagrams() {
    Space::enter(|space| async move {
        let mut nodes = desired();
        nodes.mode = warren_agent::config::Mode::Nodes;
        let mut host = space.host();
        host.apply(&nodes).await.expect("applies");
        for (query, device) in [
            ("192.168.77.2", "dev warren0"),
            ("192.168.77.2 ipproto tcp dport 22", "dev eth0"),
            ("192.168.77.2 ipproto tcp sport 22 dport 40000", "dev eth0"),
            ("192.168.77.2 ipproto tcp dport 80", "dev warren0"),
            ("192.168.77.2 mark 0x10 ipproto udp sport 51840 dport 51840", "dev eth0"),
            ("192.168.77.2 mark 0x10 ipproto tcp sport 22 dport 40000", "dev warren0"),
            ("192.168.77.2 from 10.42.1.9 iif cni0 ipproto tcp sport 40000 dport 22", "dev warren0"),
            ("192.168.77.254", "dev eth0"),
        ] {
            assert!(get(query).contains(device), "{query}: {}", get(query));
        }
        assert_eq!(host.apply(&nodes).await.expect("applies again").writes, 0);
        let writes = host.apply(&desired()).await.expect("back to pods").writes;
        assert!(writes >= 17, "the exemptions and the lookup go, for both families: {writes}");
    });
}

#[test]
#[ignore = "needs root"]
fn only_the_difference_is_written() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        let mut changed = desired();
        changed.remote_cidrs.insert("10.42.2.0/24".parse().expect("a prefix"), 1300);
        assert_eq!(host.apply(&changed).await.expect("applies").writes, 1);
        let routes = squeeze(&ip("route show table 51840"));
        assert!(routes.contains("10.42.2.0/24 dev warren0"), "{routes}");
        assert!(routes.contains("src 192.168.77.1 metric 1024"), "{routes}");
        assert!(routes.contains("mtu 1300"), "{routes}");
    });
}

#[test]
#[ignore = "needs root"]
fn what_somebody_else_deletes_or_adds_in_our_place_is_repaired() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        let before = (ip("rule show"), ip("-6 rule show"), ip("route show table all"), ip("address show dev warren0"));
        ip("route del 10.42.2.0/24 table 51840 metric 1024");
        ip("rule del priority 95");
        ip("-6 rule del priority 91");
        ip("address del 192.168.77.1/32 dev warren0");
        ip("address add 192.0.2.77/32 dev warren0");
        ip("link set warren0 mtu 1280");
        let writes = host.apply(&desired()).await.expect("applies").writes;
        assert!(writes >= 6, "{writes}");
        let after = (ip("rule show"), ip("-6 rule show"), ip("route show table all"), ip("address show dev warren0"));
        assert_eq!(sorted(&before.0), sorted(&after.0));
        assert_eq!(sorted(&before.1), sorted(&after.1));
        assert_eq!(sorted(&before.2), sorted(&after.2));
        assert_eq!(sorted(&before.3), sorted(&after.3));
    });
}

#[test]
#[ignore = "needs root"]
fn a_device_of_another_kind_is_refused() {
    Space::enter(|space| async move {
        ip("link del warren0");
        ip("link add warren0 type bridge");
        let error = space.host().apply(&desired()).await.expect_err("not ours").to_string();
        assert!(error.contains("overlay.device"), "{error}");
    });
}

/// What the kernel would do, with the error when it refuses.
fn get(query: &str) -> String {
    let family = if query.split(' ').next().is_some_and(|address| address.contains(':')) { "-6" } else { "-4" };
    let output = Command::new("ip").args([family, "route", "get"]).args(query.split(' ')).output().expect("ip runs");
    String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr }).into_owned()
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sorted(text: &str) -> Vec<&str> {
    // The kernel's own IPv6 routes come and go with its duplicate detection.
    let kernels = |line: &&str| line.contains("fe80::") || line.contains("ff00::") || line.contains("anycast");
    let mut lines: Vec<_> = text.lines().filter(|line| !kernels(line)).collect();
    lines.sort_unstable();
    lines
}
