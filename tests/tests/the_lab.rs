//! The lab itself, without any agent: Pods of different nodes reach each other in clear, and the sniffer sees it.
//!
//! ```text
//! pod ── node1 ──┐          ┌── node2 ── pod
//!                └── hub ───┘
//!                   sniffer
//! ```

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use warren_tests::datagram::{Echo, LARGEST, echoed};
use warren_tests::iperf::Iperf;
use warren_tests::leftovers;
use warren_tests::stock::{Kind, Stock};
use warren_tests::stream::transfer;
use warren_tests::{Etcd, Family, Flood, Lab, Plan, Wiring, between, eventually, ping};

#[test]
fn without_an_agent_the_sniffer_sees_pods_talk_in_clear() {
    for (underlay, overlay) in [
        (Family::V4, Family::V4),
        (Family::V6, Family::V6),
        (Family::Dual, Family::Dual),
        (Family::V4, Family::Dual),
        (Family::V6, Family::Dual),
    ] {
        for (wiring, mtu) in [(Wiring::Bridge, 1500), (Wiring::HostRoutes, 9000)] {
            let lab = Lab::with(Plan { underlay, overlay, mtu, wiring });
            let sniffer = lab.sniff();
            let [one, two] = lab.nodes();
            let (from, to) = (one.pod(), two.pod());
            sniffer.assert_nothing_in_clear();
            for address in to.addresses() {
                assert!(ping(from.namespace(), *address), "{underlay:?} {wiring:?} {address}");
            }
            let frames = sniffer.clear();
            assert!(frames >= 6 && sniffer.canaries() >= 6, "the sniffer saw only {frames} frames");
            assert_eq!(sniffer.tunnel(), 0);
        }
    }
}

#[test]
fn the_sniffer_tells_at_once_what_it_saw_though_traffic_never_pauses() {
    let lab = Lab::with(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() });
    let sniffer = lab.sniff();
    let [one, two] = lab.nodes();
    let pods = [one.pod(), two.pod()];
    let _floods: Vec<Flood> = between(&pods).into_iter().map(|(from, to)| Flood::start(from, to)).collect();
    eventually(10, "all floods flow", || (sniffer.clear() > 1000).then_some(()));
    let began = Instant::now();
    sniffer.clear();
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
}

#[test]
fn pods_of_one_node_talk_without_the_underlay() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let node = lab.node();
    let (from, to) = (node.pod(), node.pod());
    assert!(ping(from.namespace(), to.address()));
    sniffer.assert_nothing_in_clear();
}

#[test]
fn traffic_of_every_kind_arrives_whole() {
    let lab = Lab::with(Plan { overlay: Family::Dual, underlay: Family::Dual, ..Plan::default() });
    let [one, two] = lab.nodes();
    let (from, to) = (one.pod(), two.pod());
    for address in to.addresses() {
        transfer(from.namespace(), to.namespace(), *address, 100);
        let echo = Echo::start(to.namespace(), *address);
        for size in [0, 1, 1400, 1500, LARGEST - 20] {
            assert!(echoed(from.namespace(), echo.address(), size), "{size} bytes to {address}");
        }
        let report = Iperf::start(from.namespace(), to.namespace(), *address, 1, "200M").finish();
        assert!(report.gbps > 0.1, "{report:?}");
    }
}

#[test]
fn etcd_can_be_stopped_wiped_and_restored() {
    let lab = Lab::new();
    let mut etcd = Etcd::start(&lab);
    etcd.put("/a", "1");
    let snapshot = etcd.snapshot();
    etcd.put("/a", "2");
    etcd.compact();
    etcd.restore(&snapshot);
    assert_eq!(etcd.get("/a").as_deref(), Some("1"));
    etcd.wipe();
    assert_eq!(etcd.get("/a"), None);
}

#[test]
fn etcd_with_tls_asks_for_client_certificates() {
    let lab = Lab::new();
    let etcd = Etcd::start_with(&lab, true, &[]);
    etcd.put("/a", "1");
    let bare =
        ["etcdctl", "--insecure-skip-tls-verify", "--command-timeout=2s", "--endpoints", &etcd.url(), "get", "/a"];
    assert!(!lab.hub().attempt(&bare).success(), "etcd takes clients without a certificate");
}

/// Not a test: what the two below run in a process of its own, to end it by a signal.
#[test]
#[ignore = "waits to be killed"]
fn a_lab_that_waits() {
    let lab = Lab::new();
    let node = lab.node();
    let _pod = node.pod();
    let _etcd = Etcd::start(&lab);
    println!("up");
    std::thread::park();
}

#[test]
fn a_lab_that_is_interrupted_leaves_nothing() {
    let mut process = waiting_lab();
    let id = process.id();
    kill(Pid::from_raw(id.cast_signed()), Signal::SIGINT).expect("it is our child");
    process.wait().expect("it is our child");
    assert_eq!(namespaces_of(id), 0);
}

#[test]
fn what_a_killed_lab_left_is_removed_by_the_next() {
    let mut process = waiting_lab();
    let id = process.id();
    process.kill().expect("it is our child");
    process.wait().expect("it is our child");
    assert_eq!(namespaces_of(id), 3);
    leftovers::sweep();
    assert_eq!(namespaces_of(id), 0);
    assert!(!leftovers::folder_of(id).exists());
}

fn waiting_lab() -> Child {
    let own = std::env::current_exe().expect("this process has a path");
    let mut command = Command::new(own);
    command.args(["--exact", "a_lab_that_waits", "--ignored", "--nocapture"]).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().expect("this program can run twice");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.ends_with("up"))), "the other lab did not come up");
    child
}

fn namespaces_of(id: u32) -> usize {
    let list = std::fs::read_dir("/run/netns").expect("namespaces were made before");
    let names = list.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("{}{id}-", leftovers::PREFIX))).count()
}

#[test]
fn stock_peers_reach_each_other_through_their_tunnel() {
    for kinds in [[Kind::Go, Kind::Go], [Kind::Go, Kind::Boringtun]] {
        if !kinds.iter().all(|kind| kind.installed()) {
            continue;
        }
        let lab = Lab::new();
        let sniffer = lab.sniff();
        let [one, two] = lab.nodes();
        let (from, to) = (one.pod(), two.pod());
        let stock = [Stock::start(kinds[0], &one), Stock::start(kinds[1], &two)];
        stock[0].peer(&one, &two, Some(two.address()), &[]);
        stock[1].peer(&two, &one, None, &[]);
        assert!(ping(from.namespace(), to.address()), "{kinds:?}");
        sniffer.assert_encrypted();
    }
}

#[test]
fn etcd_takes_thousands_of_keys_as_they_are() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab);
    let value = r#"{"a":["b\\c","d e"],"f":"ü$(x)"}"#;
    let quoted = serde_json::Value::String(value.to_owned());
    etcd.transact(&(0..1000).map(|number| format!("put /many/{number} {quoted}")).collect::<Vec<_>>());
    assert_eq!(etcd.keys("/many/").len(), 1000);
    assert_eq!(etcd.get("/many/999").as_deref(), Some(value));
    etcd.put("/one", "-- $(reboot)\n");
    assert_eq!(etcd.get("/one").as_deref(), Some("-- $(reboot)"));
}

#[test]
fn etcd_with_authentication_asks_for_passwords() {
    let lab = Lab::new();
    let mut etcd = Etcd::start_with(&lab, false, &["--auth-token-ttl=2"]);
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["auth", "enable"]);
    assert!(!etcd.attempt(&["get", "/a"]).success());
    etcd.log_in("root", "secret");
    etcd.put("/a", "1");
}
