//! Stock WireGuard peers: other people's implementations on a node of the lab, in the place of an agent.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;

use crate::lab::nodad;
use crate::node::PORT;
use crate::{Node, Settings, command, eventually};

/// Devices of this process so far: their sockets share one folder of the machine, so that names must differ.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Where WireGuard's userspace implementations put their sockets.
const SOCKETS: &str = "/var/run/wireguard";
/// How often one is started that ends before it answers.
const STARTS: u32 = 4;

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `wireguard-go`
    Go,
    /// `boringtun-cli`
    Boringtun,
}

impl Kind {
    /// Its command line for a device; runs in the foreground.
    fn argv(self, device: &str) -> Vec<&str> {
        match self {
            Self::Go => vec!["wireguard-go", "-f", device],
            Self::Boringtun => vec!["boringtun-cli", "-f", "--disable-drop-privileges", device],
        }
    }

    /// Whether it is installed; says so when it is not.
    pub fn installed(self) -> bool {
        let program = self.argv("")[0];
        let found = command::attempt(&["sh", "-c", &format!("command -v {program}")]).success();
        if !found {
            eprintln!("skipped: {program} is not installed");
        }
        found
    }
}

/// A stock peer that runs; its key is the node's.
#[derive(Debug)]
pub struct Stock {
    /// Its device on the node.
    pub device: String,
    child: Child,
    log_file: PathBuf,
}

impl Stock {
    /// Starts it on a node, listening on the agents' port, with the first address of each Pod CIDR on its device.
    #[track_caller]
    pub fn start(kind: Kind, node: &Node) -> Self {
        let device = format!("wg{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let log_file = node.folder().join("stock.log");
        let log = File::create(&log_file).expect("the node's folder exists");
        let run = || spawn(&node.namespace().argv(&kind.argv(&device)), &log);
        let mut stock = Self { device: device.clone(), child: run(), log_file };
        await_answer(&mut stock.child, run, || show(node, &device, "listen-port").map(drop));
        let (key, port) = (node.key_file().display().to_string(), PORT.to_string());
        stock.set(node, &["private-key", &key, "listen-port", &port]);
        node.namespace().ip(&format!("link set {} mtu 1420 up", stock.device));
        stock
    }

    /// `wg set DEVICE …`
    #[track_caller]
    pub fn set(&self, node: &Node, words: &[&str]) {
        node.namespace().run(&[&["wg", "set", &self.device], words].concat());
    }

    /// Makes a warren node its peer, and routes that node's CIDRs to it.
    #[track_caller]
    pub fn peer(&self, node: &Node, other: &Node, endpoint: Option<IpAddr>, more: &[&str]) {
        let key = other.public_key().to_string();
        let allowed: Vec<String> = allowed(other).iter().map(ToString::to_string).collect();
        let allowed = allowed.join(",");
        let endpoint = endpoint.map(|address| SocketAddr::new(address, PORT).to_string());
        let mut words = vec!["peer", &key, "allowed-ips", &allowed];
        words.extend(endpoint.iter().flat_map(|endpoint| ["endpoint", endpoint.as_str()]));
        words.extend(more);
        self.set(node, &words);
        for cidr in other.cidrs() {
            node.namespace().ip(&format!("route replace {cidr} dev {}", self.device));
        }
    }

    /// Gives the device an address of its own, as the host's source for what it sends itself.
    #[track_caller]
    pub fn address(&self, node: &Node, address: IpAddr) {
        let length = if address.is_ipv4() { 32 } else { 128 };
        node.namespace().ip(&format!("addr add {address}/{length} dev {}{}", self.device, nodad(address)));
    }

    /// `wg show DEVICE WHAT`, while it answers.
    pub fn show(&self, node: &Node, what: &str) -> Option<String> {
        show(node, &self.device, what)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(format!("{SOCKETS}/{}.sock", self.device));
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log_file).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- log of {}, its end ---\n{}",
                self.device,
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

fn show(node: &Node, device: &str, what: &str) -> Option<String> {
    let finished = node.namespace().attempt(&["wg", "show", device, what]);
    finished.success().then_some(finished.stdout)
}

fn spawn(argv: &[impl AsRef<OsStr>], log: &File) -> Child {
    let share = || log.try_clone().expect("a file can be shared");
    Command::new(&argv[0])
        .args(&argv[1..])
        .env("WG_SUDO", "1")
        .env("LOG_LEVEL", "verbose")
        .stdin(Stdio::null())
        .stdout(share())
        .stderr(share())
        .spawn()
        .expect("`ip` is installed")
}

/// Waits for a process to answer. One that ended before it did is started again: several that start at once get in
/// each other's way where they put their sockets.
#[track_caller]
fn await_answer(child: &mut Child, start: impl Fn() -> Child, mut answer: impl FnMut() -> Option<()>) {
    let mut starts = 1;
    eventually(10, "the stock peer answers `wg show`", || {
        if let Some(status) = child.try_wait().expect("it is our child") {
            assert!(starts < STARTS, "the stock peer ended {starts} times before it answered, at last with {status}");
            *child = start();
            starts += 1;
        }
        answer()
    });
}

/// What a stock peer lets a warren node use: its CIDRs, and its addresses as the source of what the node sends itself.
fn allowed(node: &Node) -> Vec<IpNet> {
    node.cidrs().into_iter().chain(node.addresses().into_iter().map(IpNet::from)).collect()
}

/// The section of a stock peer in the config of an agent.
pub fn section(node: &Node, endpoint: Option<IpAddr>) -> Settings {
    let mut peer = Settings::default();
    peer.text("", "name", &node.name).text("", "public_key", node.public_key()).list("", "cidrs", node.cidrs());
    if let Some(endpoint) = endpoint {
        peer.text("", "endpoint", SocketAddr::new(endpoint, PORT));
    }
    peer
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Starts processes that end at once until this many were started, then one that stays; says how many there were.
    fn started(ends: u32) -> u32 {
        let log = tempfile::tempfile().expect("a file");
        let count = Cell::new(0);
        let start = || {
            count.set(count.get() + 1);
            spawn(&[if count.get() > ends { "sleep" } else { "false" }, "60"], &log)
        };
        let mut child = start();
        await_answer(&mut child, start, || (count.get() > ends).then_some(()));
        let _ = child.kill();
        let _ = child.wait();
        count.get()
    }

    #[test]
    fn one_that_ends_before_it_answers_is_started_again() {
        assert_eq!(started(0), 1);
        assert_eq!(started(STARTS - 1), STARTS);
    }

    #[test]
    #[should_panic(expected = "ended 4 times before it answered")]
    fn one_that_always_ends_fails_the_test() {
        started(STARTS);
    }
}
