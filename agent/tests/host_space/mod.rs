//! A network namespace for one test: a thread of its own that leaves the machine's network, with an underlay, a Pod
//! bridge and a TUN. Everything goes when the thread ends.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::process::Command;

use warren_agent::config::Mode;
use warren_agent::host::{Desired, Host};
use warren_overlay::mesh::Enforcement;

/// ```text
///   veth peer ── eth0 192.168.77.1/24 fd77::1/64   warren0   cni0 10.42.1.1/24 fd42:1::1/64
/// ```
pub(crate) struct Space {
    /// Where the host remembers things.
    pub(crate) state: tempfile::TempDir,
}

impl Space {
    /// Runs the test in a fresh namespace with the usual devices.
    pub(crate) fn enter<F, T>(test: F)
    where
        F: FnOnce(Space) -> T + Send + 'static,
        T: Future<Output = ()>,
    {
        Self::bare(|space| {
            furnish();
            test(space)
        });
    }

    /// Runs the test in a fresh namespace with nothing but the loopback.
    pub(crate) fn bare<F, T>(test: F)
    where
        F: FnOnce(Space) -> T + Send + 'static,
        T: Future<Output = ()>,
    {
        let body = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
            ip("link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let space = Space { state: tempfile::tempdir().expect("a folder") };
            tokio::task::LocalSet::new().block_on(&runtime, async move { test(space).await });
        };
        let thread = std::thread::Builder::new().name("space".into()).spawn(body).expect("a thread");
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    /// A host as the agent opens it.
    pub(crate) fn host(&self) -> Host {
        Host::open(self.state.path()).expect("the host opens")
    }
}

fn furnish() {
    for command in [
        "link add eth0 type veth peer name outside",
        "link set outside up",
        "address add 192.168.77.1/24 dev eth0",
        "address add fd77::1/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 192.168.77.254",
        "-6 route add default via fd77::fe",
        "link add cni0 type bridge",
        "link add pod0 type veth peer name pod1",
        "link set pod0 master cni0",
        "link set pod0 up",
        "link set pod1 up",
        "address add 10.42.1.1/24 dev cni0",
        "address add fd42:1::1/64 dev cni0 nodad",
        "link set cni0 up",
        "tuntap add warren0 mode tun",
    ] {
        ip(command);
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding can be switched on");
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forwarding can be switched on");
}

/// One `ip` command in this thread's namespace; panics when it fails.
pub(crate) fn ip(command: &str) -> String {
    run("ip", &command.split(' ').collect::<Vec<_>>())
}

/// One command in this thread's namespace; panics when it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {error}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A node with Pods, one peer with Pods.
pub(crate) fn desired() -> Desired {
    let net = |text: &str| text.parse().expect("a prefix");
    let address = |text: &str| text.parse().expect("an address");
    Desired {
        device: "warren0".into(),
        mtu: 1420,
        node_addresses: BTreeSet::from([address("192.168.77.1"), address("fd77::1")]),
        overlay_addresses: BTreeSet::new(),
        local_cidrs: BTreeSet::from([net("10.42.1.0/24"), net("fd42:1::/64")]),
        remote_cidrs: BTreeMap::from([(net("10.42.2.0/24"), 1420), (net("fd42:2::/64"), 1420)]),
        peer_addresses: BTreeMap::from([(address("192.168.77.2"), 1420), (address("fd77::2"), 1420)]),
        networks: BTreeSet::from([net("10.42.0.0/16"), net("fd42::/16")]),
        proven_cidrs: BTreeSet::new(),
        proven_nodes: BTreeSet::new(),
        enforcement: Enforcement::Strict,
        mode: Mode::Pods,
        port: 51840,
        underlay_devices: BTreeSet::from(["eth0".into()]),
        rule_priority: 90,
        table: 51840,
        mark: 0x10,
        exempt_ports: vec![22..=22, 6443..=6443, 2379..=2380, 10250..=10250],
    }
}
