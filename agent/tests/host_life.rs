//! The host's other duties against a real kernel: cleanup, discovery, checks, the monitor.
#![allow(clippy::expect_used, reason = "a test fails by it")]

mod host_space;

use std::time::{Duration, Instant};

use host_space::{Space, desired, ip, run};
use warren_agent::config::Mode;

/// Everything that cleanup must leave as it was. Lifetimes of addresses count down.
fn dump() -> Vec<String> {
    let commands = ["-j address", "-j route show table all", "-j -6 route show table all", "-j rule", "-j -6 rule"];
    let mut dump: Vec<_> = commands.iter().map(|command| ip(command)).collect();
    dump.push(run("nft", &["list", "ruleset"]));
    dump.push(run("tc", &["qdisc", "show"]));
    dump.push(run("sysctl", &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.eth0.accept_ra"]));
    dump
}

/// Duplicate detection and carriers settle first.
async fn settled() -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let first = dump();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let quiet = !ip("address").contains("tentative") && first == dump();
        if quiet || Instant::now() > deadline {
            return first;
        }
    }
}

#[test]
#[ignore = "needs root"]
fn cleanup_leaves_the_host_as_it_was() {
    Space::enter(|space| async move {
        ip("link del warren0");
        run(
            "sysctl",
            &["-q", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.eth0.accept_ra=1"],
        );
        run("nft", &["add", "table", "ip", "somebody"]);
        let before = settled().await;
        let mut host = space.host();
        for mode in [Mode::Nodes, Mode::Pods] {
            ip("tuntap add warren0 mode tun");
            let mut wanted = desired();
            wanted.mode = mode;
            host.apply(&wanted).await.expect("applies");
            assert_ne!(dump(), before);
            // Another process cleans up, as `warren cleanup` does.
            let removed = space.host().cleanup("warren0", 51840).await.expect("cleans up");
            assert!(removed.len() >= 6, "{removed:?}");
            assert_eq!(settled().await, before);
            assert_eq!(std::fs::read_dir(space.state.path()).expect("the folder").count(), 0);
            host = space.host();
        }
        assert_eq!(host.cleanup("warren0", 51840).await.expect("nothing is left"), Vec::<String>::new());
    });
}

#[test]
#[ignore = "needs root"]
fn cleanup_on_a_host_without_warren_removes_nothing() {
    Space::enter(|space| async move {
        ip("link del warren0");
        ip("rule add priority 95 to 198.51.100.0/24 lookup main");
        ip("route add 198.51.100.0/24 dev eth0 table 51840");
        let before = settled().await;
        assert_eq!(space.host().cleanup("warren0", 51840).await.expect("cleans up"), Vec::<String>::new());
        assert_eq!(settled().await, before);
    });
}

#[test]
#[ignore = "needs root"]
fn the_underlay_is_what_leads_to_other_nodes() {
    Space::enter(|space| async move {
        ip("link add docker0 type bridge");
        ip("address add 172.17.0.1/16 dev docker0");
        ip("link set docker0 up");
        ip("address add 192.168.77.100/32 dev eth0");
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        let underlay = host.discover(None).await.expect("discovers");
        assert_eq!(underlay.devices.keys().map(String::as_str).collect::<Vec<_>>(), ["eth0"]);
        let addresses: Vec<_> = underlay.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.168.77.1", "fd77::1"]);
        assert_eq!(underlay.devices["eth0"].mtu, 1500);
        let missing = std::collections::BTreeSet::from(["eth7".to_owned()]);
        let error = host.discover(Some(&missing)).await.expect_err("there is no eth7").to_string();
        assert!(error.contains("eth7") && error.contains("eth0"), "{error}");
    });
}

#[test]
#[ignore = "needs root"]
fn vxlan_ends_where_a_device_that_is_up_has_its_sockets() {
    Space::enter(|space| async move {
        ip("link add v4 type vxlan id 1 local 192.168.77.1 dstport 8472");
        ip("link add v6 type vxlan id 2 local fd77::1 dstport 4789");
        ip("link add both type vxlan external dstport 8473");
        ip("link add down type vxlan id 4 dstport 8474");
        ip("link add bridge0 type bridge");
        ip("link add lower type veth peer name other");
        ip("link set lower master bridge0");
        ip("link add part type vxlan id 5 dev lower dstport 8475");
        for device in ["v4", "v6", "both", "lower", "part"] {
            ip(&format!("link set {device} up"));
        }
        let host = space.host();
        let sockets = || async {
            let found = host.discover(None).await.expect("discovers").vxlan;
            found.iter().map(|socket| (socket.port, socket.v6)).collect::<Vec<_>>()
        };
        assert_eq!(sockets().await, [(4789, true), (8472, false), (8473, false), (8473, true)]);
        ip("link set both down");
        ip("link del v6");
        assert_eq!(sockets().await, [(8472, false)]);
    });
}

#[test]
#[ignore = "needs root"]
fn the_path_mtu_is_that_of_the_route_our_datagrams_take() {
    Space::enter(|space| async move {
        let mut wanted = desired();
        wanted.mode = Mode::Nodes;
        let mut host = space.host();
        host.apply(&wanted).await.expect("applies");
        let peer = "192.168.77.2".parse().expect("an address");
        assert_eq!(host.path_mtu(peer).await.expect("a route"), 1500);
        ip("route add 192.168.77.2/32 dev eth0 mtu 1400");
        assert_eq!(host.path_mtu(peer).await.expect("a route"), 1400);
        ip("link set eth0 mtu 1300");
        assert_eq!(host.path_mtu(peer).await.expect("a route"), 1300);
    });
}

#[test]
#[ignore = "needs root"]
fn a_rule_before_ours_is_found_and_named() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        assert_eq!(host.check(&desired()).await, Vec::<String>::new());
        ip("rule add priority 50 to 10.42.2.0/24 lookup main");
        let problems = host.check(&desired()).await;
        assert!(
            problems.iter().any(|problem| problem.contains("this host to 10.42.2.0/24 would go by eth0")),
            "{problems:?}"
        );
        assert!(
            problems.iter().any(|problem| problem.starts_with("Pods of 10.42.1.0/24 to 10.42.2.0/24")),
            "{problems:?}"
        );
        ip("rule del priority 50");
        ip("rule add priority 50 from 10.42.1.0/24 to 192.168.77.2 lookup main");
        let problems = host.check(&desired()).await;
        assert!(
            matches!(&problems[..], [only] if only.starts_with("Pods of 10.42.1.0/24 to 192.168.77.2 would go by eth0")),
            "{problems:?}"
        );
        ip("rule del priority 50");
        ip("rule add priority 94 to 198.51.100.0/24 lookup main");
        ip("rule add priority 500 fwmark 0x10/0x30 lookup main");
        let problems = host.check(&desired()).await;
        assert!(
            matches!(&problems[..], [taken, bit] if taken.contains("94") && bit.contains("overlay.mark")),
            "{problems:?}"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_firewall_that_drops_what_is_forwarded_is_named_with_its_remedy() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        run("nft", &["add", "table", "ip", "filter"]);
        run(
            "nft",
            &["add", "chain", "ip", "filter", "FORWARD", "{ type filter hook forward priority 0; policy drop; }"],
        );
        let problems = host.check(&desired()).await;
        assert!(
            matches!(&problems[..], [only] if only.contains("DOCKER-USER") && only.contains("FORWARD")),
            "{problems:?}"
        );
        run("nft", &["add", "rule", "ip", "filter", "FORWARD", "iifname", "warren0", "accept"]);
        assert_eq!(host.check(&desired()).await, Vec::<String>::new());
    });
}

#[test]
#[ignore = "needs root"]
fn every_kind_of_change_is_heard_of_within_a_second() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        let mut changes = host.monitor();
        // The listeners are there once they hear of something.
        while tokio::time::timeout(Duration::from_millis(100), changes.recv()).await.is_err() {
            run("nft", &["add", "chain", "inet", "warren", "probe"]);
            run("nft", &["delete", "chain", "inet", "warren", "probe"]);
        }
        let sabotage: [&[&str]; 5] = [
            &["ip", "route", "del", "10.42.2.0/24", "table", "51840", "metric", "1024"],
            &["ip", "rule", "del", "priority", "95"],
            &["ip", "address", "del", "192.168.77.1/32", "dev", "warren0"],
            &["ip", "link", "set", "warren0", "down"],
            &["nft", "delete", "table", "inet", "warren"],
        ];
        for command in sabotage {
            while tokio::time::timeout(Duration::from_millis(500), changes.recv()).await.is_ok() {}
            run(command[0], &command[1..]);
            let heard = tokio::time::timeout(Duration::from_secs(1), changes.recv()).await;
            assert_eq!(heard.expect("within a second"), Some(()), "{command:?}");
            assert!(host.apply(&desired()).await.expect("repairs").writes > 0, "{command:?}");
            assert_eq!(host.apply(&desired()).await.expect("is repaired").writes, 0, "{command:?}");
        }
        assert_eq!(host.repairs(), 5);
        assert!(host.check(&desired()).await.iter().any(|problem| problem.contains("somebody keeps changing")));
    });
}
