//! The guard against a real kernel: what it refuses, what it lets pass, and that the same packet passes without it.
#![allow(clippy::expect_used, reason = "a test fails by it")]

mod host_space;

use std::net::UdpSocket;
use std::time::Duration;

use host_space::{Space, desired, ip, run};
use warren_agent::config::Mode;
use warren_agent::host::guard::Lacking;
use warren_agent::host::{Desired, Host, guard};
use warren_overlay::mesh::Enforcement;

/// Puts the other end of the underlay into a namespace of its own, and itself on the network of this node.
struct Outside(String);

impl Outside {
    fn new() -> Self {
        let name = format!("wguard{}-{:?}", std::process::id(), std::thread::current().id());
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        ip(&format!("netns add {name}"));
        let outside = Self(name);
        ip(&format!("link set outside netns {}", outside.0));
        outside.ip("link set lo up");
        outside.ip("address add 192.168.77.2/24 dev outside");
        outside.ip("address add 10.42.9.9/32 dev outside");
        outside.ip("address add 192.168.77.254/24 dev outside");
        outside.ip("link set outside up");
        outside.ip("route add 10.42.1.0/24 via 192.168.77.1");
        outside
    }

    fn ip(&self, command: &str) {
        ip(&format!("-n {} {command}", self.0));
    }

    /// A socket that lives out there.
    fn socket(&self, address: &str) -> UdpSocket {
        let path = format!("/run/netns/{}", self.0);
        let address = address.to_owned();
        let open = move || {
            let space = std::fs::File::open(path).expect("the namespace");
            nix::sched::setns(space, nix::sched::CloneFlags::CLONE_NEWNET).expect("enters");
            bound(&address)
        };
        std::thread::spawn(open).join().expect("a socket")
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn bound(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("binds");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    socket
}

/// Did one of three datagrams arrive?
fn passes(from: &UdpSocket, to: &UdpSocket) -> bool {
    let target = to.local_addr().expect("an address");
    let mut buffer = [0; 64];
    (0..3).any(|_| {
        // The guard's drop on the way out is an error of the sender.
        let _ = from.send_to(b"in clear", target);
        to.recv_from(&mut buffer).is_ok()
    })
}

/// Without our routes everything would go out in clear: only the guard stands in the way.
fn only_guard(wanted: &Desired) -> Desired {
    Desired { underlay_devices: wanted.underlay_devices.clone(), ..wanted.clone() }
}

#[test]
#[ignore = "needs root"]
fn in_strict_nothing_of_the_overlay_passes_in_clear_and_without_the_guard_it_does() {
    Space::enter(|space| async move {
        let outside = Outside::new();
        let pod = bound("10.42.1.1:7000");
        let stranger = outside.socket("10.42.9.9:7000");
        assert!(passes(&pod, &stranger), "the control: without a guard a Pod's packet leaves in clear");
        assert!(passes(&stranger, &pod), "the control: without a guard a packet comes in in clear");
        let mut host = space.host();
        assert_eq!(host.guard(&only_guard(&desired())).expect("loads").writes, 2, "rules and a filter");
        assert!(!passes(&pod, &stranger));
        assert!(!passes(&stranger, &pod));
        let counted = host.guard_counters().await;
        assert!(counted.active && counted.refused >= 4 && counted.passed == 0, "{counted:?}");
        let (here, there) = (bound("192.168.77.1:7000"), outside.socket("192.168.77.2:7000"));
        assert!(passes(&here, &there) && passes(&there, &here), "node traffic is not the overlay's");
        assert_eq!(host.guard(&only_guard(&desired())).expect("is loaded").writes, 0);
    });
}

#[test]
#[ignore = "needs root"]
fn in_permissive_it_passes_and_is_counted_but_not_for_a_proven_pair() {
    Space::enter(|space| async move {
        let outside = Outside::new();
        let (pod, stranger) = (bound("10.42.1.1:7000"), outside.socket("10.42.9.9:7000"));
        let mut wanted = desired();
        wanted.enforcement = Enforcement::Permissive;
        let mut host = space.host();
        host.guard(&wanted).expect("loads");
        assert!(passes(&pod, &stranger) && passes(&stranger, &pod));
        let counted = host.guard_counters().await;
        assert!(counted.passed == 2 && counted.refused == 0, "{counted:?}");
        wanted.proven_cidrs.insert("10.42.9.0/24".parse().expect("a prefix"));
        host.guard(&wanted).expect("loads");
        assert!(!passes(&pod, &stranger) && !passes(&stranger, &pod));
        let counted = host.guard_counters().await;
        assert!(counted.passed == 2 && counted.refused >= 2, "counts survive: {counted:?}");
    });
}

#[test]
#[ignore = "needs root"]
fn an_address_that_a_proven_node_no_longer_names_stays_sealed_in_mode_nodes() {
    Space::enter(|space| async move {
        let outside = Outside::new();
        let (here, there) = (bound("192.168.77.1:7000"), outside.socket("192.168.77.2:7000"));
        let mut host = space.host();
        for enforcement in [Enforcement::Strict, Enforcement::Permissive] {
            let mut wanted = desired();
            (wanted.mode, wanted.enforcement) = (Mode::Nodes, enforcement);
            wanted.peer_addresses.clear();
            host.guard(&only_guard(&wanted)).expect("loads");
            assert!(passes(&here, &there) && passes(&there, &here), "the control: no node has that address");
            wanted.proven_nodes.insert("192.168.77.2".parse().expect("an address"));
            host.guard(&only_guard(&wanted)).expect("loads");
            assert!(!passes(&here, &there) && !passes(&there, &here), "{enforcement:?}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn what_passes_in_clear_is_counted_by_prefix_both_ways_for_as_long_as_somebody_wants() {
    Space::enter(|space| async move {
        let outside = Outside::new();
        let (pod, stranger) = (bound("10.42.1.1:7000"), outside.socket("10.42.9.9:7000"));
        let devices = ["eth0".to_owned()].into();
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect();
        let mut host = space.host();
        host.count_in_clear(&devices, nets(&["10.42.9.0/24", "10.42.8.0/24", "fd42:9::/64"]));
        let counts = |host: &mut Host, net: &str| host.in_clear().get(&net.parse().expect("a prefix")).copied();
        assert_eq!(counts(&mut host, "10.42.9.0/24"), Some((0, 0)));
        assert!(passes(&pod, &stranger));
        let sent = counts(&mut host, "10.42.9.0/24").map_or(0, |(_, sent)| sent);
        assert!(sent > 0, "{:?}", host.in_clear());
        assert!(passes(&stranger, &pod));
        let counted = counts(&mut host, "10.42.9.0/24");
        assert!(counted.is_some_and(|(received, still)| received > 0 && still == sent), "{counted:?}");
        assert_eq!(counts(&mut host, "10.42.8.0/24"), Some((0, 0)), "another's");
        // Part of one that goes, and one that stays with its counts.
        host.count_in_clear(&devices, nets(&["10.42.9.0/24", "10.42.8.128/25", "10.42.7.7/32"]));
        assert_eq!(counts(&mut host, "10.42.9.0/24"), counted);
        assert_eq!(host.in_clear().len(), 3, "{:?}", host.in_clear());
        run("nft", &["delete", "table", "inet", "warren_in_clear"]);
        assert!(host.in_clear().is_empty());
        host.count_in_clear(&devices, nets(&["10.42.9.0/24"]));
        assert_eq!(counts(&mut host, "10.42.9.0/24"), Some((0, 0)), "made anew");
        host.count_in_clear(&devices, nets(&[]));
        assert!(!run("nft", &["list", "tables"]).contains("warren"));
        assert!(host.in_clear().is_empty() && passes(&pod, &stranger));
    });
}

#[test]
#[ignore = "needs root"]
fn in_mode_nodes_only_the_tunnel_and_exempt_ports_pass_between_nodes() {
    Space::enter(|space| async move {
        let outside = Outside::new();
        let mut wanted = desired();
        wanted.mode = Mode::Nodes;
        space.host().guard(&wanted).expect("loads");
        let (here, there) = (bound("192.168.77.1:7000"), outside.socket("192.168.77.2:7000"));
        assert!(!passes(&here, &there) && !passes(&there, &here));
        let (here, there) = (bound("192.168.77.1:51840"), outside.socket("192.168.77.2:51841"));
        assert!(passes(&here, &there) && passes(&there, &here), "our own datagrams");
        let (here, there) = (bound("192.168.77.1:7001"), outside.socket("192.168.77.2:2380"));
        assert!(passes(&here, &there) && passes(&there, &here), "an exempt port");
    });
}

/// What leaves, seen by the filter of traffic control alone.
#[test]
#[ignore = "needs root"]
fn without_nftables_the_filter_refuses_and_lets_pass_the_same_on_the_way_out() {
    Space::enter(|space| async move {
        let outside = Outside::new();
        let (pod, stranger) = (bound("10.42.1.1:7000"), outside.socket("10.42.9.9:7000"));
        let mut host = space.host();
        let mut guarded = |change: fn(&mut Desired)| {
            let mut wanted = desired();
            change(&mut wanted);
            host.guard(&wanted).expect("loads");
            run("nft", &["flush", "ruleset"]);
            passes(&pod, &stranger)
        };
        let strict = |_: &mut Desired| {};
        let permissive = |wanted: &mut Desired| wanted.enforcement = Enforcement::Permissive;
        let proven = |wanted: &mut Desired| {
            wanted.enforcement = Enforcement::Permissive;
            wanted.proven_cidrs.insert("10.42.9.0/24".parse().expect("a prefix"));
        };
        assert!(!guarded(strict) && guarded(permissive) && !guarded(proven));
        let ports = [(7000, 7000), (51840, 51841), (7001, 2380), (2379, 7002)];
        for mode in [Mode::Pods, Mode::Nodes] {
            let wanted = Desired { mode, ..desired() };
            host.guard(&wanted).expect("loads");
            run("nft", &["flush", "ruleset"]);
            let counted = host.guard_counters().await.refused;
            let reached = ports.map(|(from, to)| {
                let to = outside.socket(&format!("192.168.77.2:{to}"));
                passes(&bound(&format!("192.168.77.1:{from}")), &to)
            });
            assert_eq!(reached, [mode == Mode::Pods, true, true, true], "{mode:?}");
            let counted = host.guard_counters().await.refused - counted;
            assert_eq!(counted, if mode == Mode::Pods { 0 } else { 3 }, "{mode:?}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn the_saved_guard_is_loaded_again_after_a_reboot_without_devices() {
    Space::enter(|space| async move {
        space.host().guard(&desired()).expect("loads");
        let before = run("nft", &["-s", "list", "table", "inet", "warren"]);
        run("nft", &["flush", "ruleset"]);
        ip("link del eth0");
        assert!(guard::load_saved(space.state.path()).expect("loads"));
        assert_eq!(run("nft", &["-s", "list", "table", "inet", "warren"]), before);
        assert!(!guard::load_saved(&space.state.path().join("nowhere")).expect("nothing is saved there"));
    });
}

#[test]
#[ignore = "needs root"]
fn a_guard_that_somebody_flushed_or_changed_is_loaded_again() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.guard(&desired()).expect("loads");
        let tables = || ["inet", "netdev"].map(|family| run("nft", &["-s", "list", "table", family, "warren"]));
        let before = tables();
        for sabotage in [
            vec!["flush", "ruleset"],
            vec!["flush", "chain", "inet", "warren", "postrouting"],
            vec!["delete", "element", "inet", "warren", "overlay4", "{ 10.42.0.0/16 }"],
            vec!["delete", "table", "netdev", "warren"],
            vec!["insert", "rule", "inet", "warren", "prerouting", "accept"],
        ] {
            run("nft", &sabotage);
            assert_eq!(host.guard(&desired()).expect("loads again").writes, 1, "{sabotage:?}");
            assert_eq!(tables(), before, "{sabotage:?}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn the_kernel_says_whether_the_guard_stands_and_whom_it_watches() {
    Space::enter(|space| async move {
        let pods = ["10.42.1.9", "fd42::9", "10.99.0.9"].map(|text| text.parse().expect("an address"));
        assert_eq!(guard::lacking(&[]), Some(Lacking::Table));
        let mut host = space.host();
        for enforcement in [Enforcement::Strict, Enforcement::Permissive] {
            host.guard(&Desired { enforcement, ..desired() }).expect("loads");
            assert_eq!(guard::lacking(&pods[..2]), None, "{enforcement:?}");
            assert_eq!(guard::lacking(&pods), Some(Lacking::Prefix(pods[2])), "{enforcement:?}");
        }
        // A CNI's own tunnel is guarded, and with it whatever Pods have for addresses.
        host.guard(&Desired { mode: Mode::Nodes, ..desired() }).expect("loads");
        assert_eq!(guard::lacking(&pods), None);
        host.guard(&Desired { underlay_devices: Default::default(), ..desired() }).expect("loads");
        assert_eq!(guard::lacking(&[]), Some(Lacking::Chain("prerouting")), "no device is watched");
        run("nft", &["flush", "ruleset"]);
        assert_eq!(guard::lacking(&pods), Some(Lacking::Table));
    });
}

#[test]
#[ignore = "needs root"]
fn a_cluster_network_that_holds_a_node_address_is_refused() {
    Space::enter(|space| async move {
        let mut wanted = desired();
        wanted.networks.insert("192.168.0.0/16".parse().expect("a prefix"));
        let error = space.host().apply(&wanted).await.expect_err("refused").to_string();
        assert!(error.contains("192.168.77.1") && error.contains("192.168.0.0/16"), "{error}");
    });
}
