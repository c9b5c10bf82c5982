//! A network namespace with a name, gone when dropped.

use std::fs::File;
use std::path::PathBuf;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

use crate::command::{self, Finished};
use crate::leftovers;

/// A network namespace that this process made.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with its loopback up.
    pub fn create(name: &str) -> Self {
        let namespace = Self { name: name.to_owned() };
        namespace.make();
        namespace
    }

    /// Ends every process in it and makes it anew, empty.
    pub fn renew(&self) {
        leftovers::remove_namespaces(std::slice::from_ref(&self.name));
        self.make();
    }

    fn make(&self) {
        command::run(&["ip", "netns", "add", &self.name]);
        self.ip("link set lo up");
        self.sysctl("net/ipv6/conf/default/accept_dad", "0");
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip netns exec NAME` and a command.
    pub fn argv<'a>(&'a self, argv: &[&'a str]) -> Vec<&'a str> {
        ["ip", "netns", "exec", &self.name].into_iter().chain(argv.iter().copied()).collect()
    }

    /// Runs a tool inside, which must succeed; its standard output.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> String {
        command::run(&self.argv(argv))
    }

    /// Runs a tool inside, however it ends.
    #[track_caller]
    pub fn attempt(&self, argv: &[&str]) -> Finished {
        command::attempt(&self.argv(argv))
    }

    /// One line of `ip`, which must succeed; its output.
    #[track_caller]
    pub fn ip(&self, line: &str) -> String {
        let argv: Vec<&str> = ["ip", "-n", &self.name].into_iter().chain(line.split_whitespace()).collect();
        command::run(&argv)
    }

    /// Many lines of `ip`, which must all succeed.
    #[track_caller]
    pub fn ip_batch(&self, lines: &str) {
        let argv = ["ip", "-n", &self.name, "-batch", "-"];
        command::checked(&argv, command::feed(&argv, lines));
    }

    /// Loads nftables rules, which must succeed.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        let argv = self.argv(&["nft", "-f", "-"]);
        command::checked(&argv, command::feed(&argv, rules));
    }

    /// Sets a kernel parameter, named by its path below `/proc/sys`.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = PathBuf::from("/proc/sys").join(key);
        let written = self.enter(|| std::fs::write(&path, value));
        written.unwrap_or_else(|error| panic!("cannot write {value} to {}: {error}", path.display()));
    }

    /// From now on every link that is there hands each flow to one CPU (RPS). Without that a veth queues what is sent on
    /// the sender's CPU, and a sender that the scheduler moves overtakes itself.
    #[track_caller]
    pub fn steer(&self) {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(32));
        let all = format!("{:x}", u32::MAX >> (32 - cpus));
        let files = "/sys/class/net/*/queues/rx-*/rps_cpus";
        self.run(&["sh", "-ec", &format!("for file in {files}; do echo {all} > $file; done")]);
    }

    /// Runs `work` on a thread that lives in the namespace: every socket it opens is there.
    #[track_caller]
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let joined = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_to(&self.name);
                    work()
                })
                .join()
        });
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The same in the background.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let name = self.name.clone();
        std::thread::spawn(move || {
            move_to(&name);
            work()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        leftovers::remove_namespaces(std::slice::from_ref(&self.name));
    }
}

/// Moves the calling thread, and nothing else of this process.
fn move_to(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).expect("the namespace exists while its owner does");
    setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
}
