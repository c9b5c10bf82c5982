//! The host's routing against a real kernel, each test in a network namespace of its own. Needs root.
#![allow(clippy::expect_used, reason = "a test fails by it")]

mod host_space;

use std::io::IoSlice;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use host_space::{Space, desired, ip};
use warren_io::tun::{FRAME_MAX, Tun, TunConfig, VNET_HDR_LEN};

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
        assert!(ip("rule").contains("sport 51840") && ip("-6 rule").contains("sport 51840"));
        let writes = host.apply(&desired()).await.expect("back to pods").writes;
        assert!(writes >= 36, "exemptions, lookup and the rule of our own datagrams go, for both families: {writes}");
        assert!(!ip("rule").contains("sport") && !ip("-6 rule").contains("sport"), "{}", ip("rule"));
    });
}

#[test]
#[ignore = "needs root"]
fn as_many_packets_may_wait_for_a_worker_as_on_ethernet_and_who_changes_that_is_not_fought() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        assert!(ip("link show warren0").contains("qlen 1000"), "{}", ip("link show warren0"));
        ip("link set warren0 txqueuelen 4000 mtu 1400");
        assert_eq!(host.apply(&desired()).await.expect("applies").writes, 1);
        assert!(ip("link show warren0").contains("qlen 4000"), "{}", ip("link show warren0"));
    });
}

#[test]
#[ignore = "needs root"]
fn the_local_table_is_asked_by_us_only_where_somebody_moved_its_own_rule() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        let ours = |family: &str| ip(&format!("{family} rule show priority 90")).contains("lookup local");
        assert!(!ours("-4") && !ours("-6"));
        for family in ["-4", "-6"] {
            ip(&format!("{family} rule add priority 100 lookup local"));
            // Neither is for all packets.
            ip(&format!("{family} rule add priority 10 iif cni0 lookup local"));
            ip(&format!("{family} rule add priority 11 not fwmark 0x7 lookup local"));
            // Nor does it stand for ours, where others' jumps land.
            ip(&format!("{family} rule add priority 12 nop"));
            ip(&format!("{family} rule del priority 0 lookup local"));
        }
        assert_eq!(host.apply(&desired()).await.expect("applies").writes, 2);
        assert!(ours("-4") && ours("-6"));
        assert!(get("10.42.1.1").contains("local 10.42.1.1 dev lo"), "{}", get("10.42.1.1"));
        assert!(ip("rule show priority 98").contains("nop"), "{}", ip("rule"));
        assert_eq!(host.apply(&desired()).await.expect("applies again").writes, 0);
        ip("rule add priority 0 lookup local");
        assert_eq!(host.apply(&desired()).await.expect("applies").writes, 1);
        assert!(!ours("-4") && ours("-6"));
    });
}

#[test]
#[ignore = "needs root"]
fn our_own_datagrams_never_enter_the_device() {
    Space::enter(|space| async move {
        ip("link del warren0");
        let config = TunConfig { name: "warren0".into(), mtu: 1420, queues: 1, tso: false, uso: false };
        let tun = Tun::open(&config).expect("a device");
        space.host().apply(&desired()).await.expect("applies");
        let ours = UdpSocket::bind("192.168.77.1:51840").expect("binds");
        let sent = |to: &str| ours.send_to(b"our own datagram", to).map_err(|error| error.kind());
        // A remote Pod's address; and a node's, whose masqueraded Pod asked our port by the device before.
        assert_eq!(sent("10.42.2.7:51840"), Err(std::io::ErrorKind::PermissionDenied));
        let question = datagram([192, 168, 77, 2], [192, 168, 77, 1], (51840, 51840));
        tun.queues[0].send(&[IoSlice::new(&[0; VNET_HDR_LEN]), IoSlice::new(&question)]).expect("written");
        ours.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        ours.recv_from(&mut [0; 16]).expect("it is delivered");
        sent("192.168.77.2:51840").expect("by the underlay");
        // The control: another port is answered by the device.
        let other = UdpSocket::bind("192.168.77.1:7000").expect("binds");
        other.send_to(b"by the device", "10.42.2.7:7000").expect("sent");
        let frames = received(&tun, |frame| frame.ends_with(b"by the device"));
        assert!(frames.last().is_some_and(|frame| frame.ends_with(b"by the device")), "nothing comes by the device");
        assert!(!frames.iter().any(|frame| frame.ends_with(b"our own datagram")), "the tunnel would carry itself");
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

/// An IPv4 datagram with two bytes in it, behind an empty vnet header.
fn datagram(source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.into_iter().chain(destination));
    let words = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    for word in [ports.0, ports.1, 10, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(*b"hi");
    packet
}

#[test]
#[ignore = "needs root"]
fn who_came_in_by_the_device_is_answered_by_it_also_with_strict_reverse_path_checks() {
    Space::enter(|space| async move {
        ip("link del warren0");
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").expect("strict");
        let config = TunConfig { name: "warren0".into(), mtu: 1420, queues: 1, tso: false, uso: false };
        let tun = Tun::open(&config).expect("a device");
        space.host().apply(&desired()).await.expect("applies");
        let service = UdpSocket::bind("192.168.77.1:7000").expect("binds");
        service.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        // A Pod of the peer, masqueraded there: it comes from the peer's node address.
        let question = datagram([192, 168, 77, 2], [192, 168, 77, 1], (5000, 7000));
        tun.queues[0].send(&[IoSlice::new(&[0; VNET_HDR_LEN]), IoSlice::new(&question)]).expect("written");
        let (_, client) = service.recv_from(&mut [0; 16]).expect("it is delivered");
        service.send_to(b"answer", client).expect("sent");
        let frames = received(&tun, |frame| frame.ends_with(b"answer"));
        assert!(frames.last().is_some_and(|frame| frame.ends_with(b"answer")), "the answer left by another device");
        // The control: a connection of our own to the same address does not enter the tunnel.
        assert!(get("192.168.77.2").contains("dev eth0"));
    });
}

/// The frames that come by the device, until one is the last or two seconds passed.
fn received(tun: &Tun, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let (mut buffer, mut frames) = (vec![0; FRAME_MAX], Vec::new());
    while Instant::now() < deadline && !frames.last().is_some_and(|frame: &Vec<u8>| last(frame)) {
        frames.extend(tun.queues[0].recv(&mut buffer).map(|length| buffer[..length].to_vec()));
    }
    frames
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

#[test]
#[ignore = "needs root"]
fn addresses_of_the_host_and_of_pods_with_a_route_of_their_own_are_in_use() {
    Space::enter(|space| async move {
        let mut host = space.host();
        let mut wanted = desired();
        wanted.overlay_addresses.insert("10.42.9.9".parse().expect("an address"));
        host.apply(&wanted).await.expect("applies");
        for route in [
            "10.42.1.9 dev cni0",
            "fd42:1::9 dev cni0",
            "10.42.2.9 via 192.168.77.2 dev eth0",
            "10.42.1.64/26 dev cni0",
            "blackhole 10.42.1.128/32",
        ] {
            ip(&format!("route add {route}"));
        }
        let used = host.used("warren0").await.expect("the kernel answers");
        for (address, is_used) in [
            ("10.42.1.1", true),
            ("10.42.1.9", true),
            ("fd42:1::9", true),
            ("192.168.77.1", true),
            ("10.42.2.9", false),
            ("10.42.1.64", false),
            ("10.42.1.128", false),
            ("10.42.9.9", false),
        ] {
            assert_eq!(used.contains(&address.parse().expect("an address")), is_used, "{address}: {used:?}");
        }
    });
}
