//! Network namespaces with names of this process's own, gone with their guard.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Result, process};

/// What the names of all namespaces begin with; the process id follows.
const PREFIX: &str = "wbench";

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// Makes it, with the loopback device up.
    ///
    /// # Errors
    /// Without root.
    pub fn make(role: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        process::run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self(name);
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs lines of `ip` commands inside.
    ///
    /// # Errors
    /// With the first line that `ip` refuses.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let failed = |error: std::io::Error| Error::new(format!("cannot run ip -batch: {error}"));
        let mut child = Command::new("ip")
            .args(["-n", &self.0, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(lines.as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let refused = || Error::new(format!("ip -n {} refused: {}\nof:\n{lines}", self.0, said.trim()));
        if output.status.success() { Ok(()) } else { Err(refused()) }
    }

    /// A command that runs inside; its process id is the program's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

/// Removes what runs of this program left that were killed without warning.
///
/// # Errors
/// When `ip` cannot be run.
pub fn sweep() -> Result<()> {
    let list = process::run(Command::new("ip").args(["netns", "list"]))?;
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        if abandoned(name) {
            end_inhabitants(name);
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
    Ok(())
}

/// True when the name is one of this program's and its process is gone.
fn abandoned(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    pid.is_some_and(is_gone)
}

/// True for the number of a process that does not run.
pub(crate) fn is_gone(pid: &str) -> bool {
    pid.parse::<u32>().is_ok() && fs::metadata(format!("/proc/{pid}")).is_err()
}

fn end_inhabitants(name: &str) {
    let Ok(pids) = process::run(Command::new("ip").args(["netns", "pids", name])) else { return };
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}
