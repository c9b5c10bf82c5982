//! A running agent: the real binary in a node's namespace, with its log in a file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::Finished;
use crate::secret::write_secret;
use crate::{Node, Removal, Settings, Status, eventually, holds_for};

/// How long an agent may take until its host is as it should be.
const READY_SECONDS: u64 = 15;
/// How long an agent may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A process of `warren up`, killed when dropped. Dropping it also fails the test if the agent panicked or if its log
/// shows its private key.
#[derive(Debug)]
pub struct Agent {
    namespace: String,
    folder: PathBuf,
    /// Stands before the agent's own command line.
    launcher: Vec<String>,
    program: &'static str,
    child: Option<Child>,
}

impl Agent {
    /// Writes the config file and starts the agent; does not wait for anything.
    #[track_caller]
    pub fn start(node: &Node, settings: &Settings) -> Self {
        Self::start_by(&[], node, settings)
    }

    /// The same, run by another program that is given the agent's command line, now and for every other command.
    #[track_caller]
    pub fn start_by(launcher: &[&str], node: &Node, settings: &Settings) -> Self {
        let launcher = launcher.iter().map(|&word| word.to_owned()).collect();
        Self::started(launcher, program(), node, settings)
    }

    /// Starts an agent of another build.
    #[track_caller]
    pub fn start_of(program: &'static str, node: &Node, settings: &Settings) -> Self {
        Self::started(Vec::new(), program, node, settings)
    }

    #[track_caller]
    fn started(launcher: Vec<String>, program: &'static str, node: &Node, settings: &Settings) -> Self {
        let (namespace, folder) = (node.namespace().name().to_owned(), node.folder().to_owned());
        let mut agent = Self { namespace, folder, launcher, program, child: None };
        agent.configure(settings);
        agent.up();
        agent
    }

    /// Another build takes its place with the next start, and for every other command from now on.
    pub fn replace(&mut self, program: &'static str) {
        self.program = program;
    }

    /// Replaces the config file under the running agent.
    pub fn configure(&self, settings: &Settings) {
        let (new, file) = (self.folder.join("warren.toml.new"), config(&self.folder));
        write_secret(&new, &settings.to_string());
        std::fs::rename(&new, &file).expect("both are in one folder");
    }

    /// Starts it again.
    #[track_caller]
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "the agent of {} runs already", self.namespace);
        let log = File::options().create(true).append(true).open(self.log_file()).expect("the node's folder exists");
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace])
            .args(&self.launcher)
            .args([self.program, "up", "--config"])
            .arg(config(&self.folder))
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a file can be shared"))
            .stdout(log)
            .spawn();
        self.child = Some(child.expect("`ip` is installed"));
    }

    /// Ends it with SIGKILL, without a chance to tidy up.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it with SIGTERM; how it ended.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the agent runs");
        signal(&child, Signal::SIGTERM);
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("the agent is our child") {
                return status;
            }
            if began.elapsed() > END_LIMIT {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the agent of {} does not end on SIGTERM:\n{}", self.namespace, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for it to end by itself; how it ended.
    #[track_caller]
    pub fn ended(&mut self, seconds: u64) -> ExitStatus {
        let mut child = self.child.take().expect("the agent runs");
        eventually(seconds, "the agent ends by itself", || child.try_wait().expect("the agent is our child"))
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, number: Signal) {
        signal(self.child.as_ref().expect("the agent runs"), number);
    }

    /// Its process id.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the agent runs").id()
    }

    /// Its resident memory, in KiB.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(path).expect("the agent runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel reports it");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number of KiB")
    }

    /// What it says of itself; `None` while it does not answer.
    pub fn status(&self) -> Option<Status> {
        Status::parse(&self.cli(&["status", "-o", "json"]).stdout)
    }

    /// What it says of itself, waiting until it answers.
    #[track_caller]
    pub fn now(&self) -> Status {
        eventually(5, "the agent answers `warren status`", || self.status())
    }

    /// Waits until its host is as it should be.
    #[track_caller]
    pub fn ready(&self) -> &Self {
        self.until("ready", Status::ready)
    }

    /// Waits until its status satisfies `condition`.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl FnMut(&Status) -> bool) -> &Self {
        self.within(READY_SECONDS, what, condition)
    }

    /// Waits up to `seconds` until its status satisfies `condition`.
    #[track_caller]
    pub fn within(&self, seconds: u64, what: &str, mut condition: impl FnMut(&Status) -> bool) -> &Self {
        let mut last = None;
        let began = Instant::now();
        loop {
            let status = self.status();
            if status.as_ref().is_some_and(&mut condition) {
                return self;
            }
            last = status.or(last);
            if began.elapsed() > Duration::from_secs(seconds) {
                let last = last.map_or_else(|| "none".to_owned(), |status| format!("{:#}", status.value()));
                panic!("{}: not within {seconds} s: {what}; its last status: {last}", self.namespace);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Fails the test as soon as its status does not satisfy `condition` within `seconds`.
    #[track_caller]
    pub fn stays(&self, seconds: u64, what: &str, mut condition: impl FnMut(&Status) -> bool) {
        holds_for(seconds, what, || self.status().is_none_or(|status| condition(&status)));
    }

    /// Runs another command of the binary on the node, with the same config file.
    #[track_caller]
    pub fn cli(&self, words: &[&str]) -> Finished {
        let argv = self.argv(words);
        crate::command::attempt(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn argv(&self, words: &[&str]) -> Vec<String> {
        let config = config(&self.folder).display().to_string();
        let launcher: Vec<&str> = self.launcher.iter().map(String::as_str).collect();
        let argv: [&[&str]; 5] =
            [&["ip", "netns", "exec", &self.namespace], &launcher, &[self.program], words, &["--config", &config]];
        argv.concat().into_iter().map(str::to_owned).collect()
    }

    /// Removes every trace of the agent from its host.
    #[track_caller]
    pub fn cleanup(&self) {
        let finished = self.cli(&["cleanup"]);
        assert!(finished.success(), "`warren cleanup` failed ({}): {}", finished.status, finished.said());
    }

    /// Starts a cleanup beneath it, which waits for its end.
    #[track_caller]
    pub fn cleanup_behind(&self) -> Removal {
        let argv = self.argv(&["cleanup", "--wait"]);
        Removal::start(&argv.iter().map(String::as_str).collect::<Vec<_>>(), self.folder.join("cleanup.log"))
    }

    /// Loads the guard that it saved, as its unit does at boot.
    #[track_caller]
    pub fn guard(&self) {
        let finished = self.cli(&["guard"]);
        assert!(finished.success(), "`warren guard` failed ({}): {}", finished.status, finished.said());
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {}, its end ---\n{}", self.namespace, self.log_tail());
            return;
        }
        let log = self.log();
        assert!(!log.contains("panicked at"), "the agent of {} panicked:\n{}", self.namespace, self.log_tail());
        let key = std::fs::read_to_string(self.folder.join("private.key")).unwrap_or_default();
        assert!(key.trim().is_empty() || !log.contains(key.trim()), "the agent logged its private key");
    }
}

/// The binary: `WARREN_BIN`, or what cargo built beside these tests.
pub fn program() -> &'static str {
    static PROGRAM: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(find_program)
}

/// An older build of the binary: `WARREN_OLD_BIN`. Fails the test when there is none.
#[track_caller]
pub fn old_program() -> &'static str {
    static PROGRAM: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let path = PROGRAM.get_or_init(|| std::env::var("WARREN_OLD_BIN").ok());
    let path = path.as_deref().expect("WARREN_OLD_BIN names no older build: `make interop-old` makes one");
    assert!(Path::new(path).is_file(), "WARREN_OLD_BIN: there is no file {path}");
    path
}

fn find_program() -> String {
    if let Ok(path) = std::env::var("WARREN_BIN") {
        return path;
    }
    // target/debug/deps/suite-…: the binary is in target/debug, or in the sibling target/release.
    let own = std::env::current_exe().expect("this process has a path");
    let folders = own.ancestors().skip(1).take(3);
    let found = folders.flat_map(|folder| [folder.join("warren"), folder.join("release/warren")]).find(|p| p.is_file());
    let path = found.expect("no `warren` beside the tests: run `cargo build -p warren` first, or set WARREN_BIN");
    path.display().to_string()
}

fn config(folder: &Path) -> PathBuf {
    folder.join("warren.toml")
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("process ids are small");
    kill(Pid::from_raw(pid), signal).expect("the agent is our child");
}
