//! Programs that run beside the measurement: started, watched through /proc, ended with their guard.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::{Error, Result, interrupt};

/// Every program that was started and not yet reaped.
static LIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
/// How long a program may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Asks every running program to end.
pub fn end_all() {
    if let Ok(live) = LIVE.lock() {
        live.iter().for_each(|pid| terminate(*pid));
    }
}

fn terminate(pid: u32) {
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
}

fn note(pid: u32, alive: bool) {
    if let Ok(mut live) = LIVE.lock() {
        if alive {
            live.insert(pid)
        } else {
            live.remove(&pid)
        };
    }
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts it with its output in `log`, or thrown away.
    ///
    /// # Errors
    /// When the program or the log cannot be opened.
    pub fn start(name: &str, command: &mut Command, log: Option<&Path>) -> Result<Self> {
        interrupt::check()?;
        let failed = |error: std::io::Error| Error::new(format!("cannot start {name}: {error}"));
        let (out, err) = match log {
            Some(path) => {
                let file = File::options().create(true).append(true).open(path).map_err(failed)?;
                (Stdio::from(file.try_clone().map_err(failed)?), Stdio::from(file))
            }
            None => (Stdio::null(), Stdio::null()),
        };
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(failed)?;
        note(child.id(), true);
        Ok(Self { name: name.to_owned(), child })
    }

    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::new(format!("{} ended: {status}", self.name))),
            Err(error) => Err(Error::new(format!("{}: {error}", self.name))),
        }
    }

    /// Processor seconds of all its threads so far (utime + stime of /proc/PID/stat).
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let text = self.proc_file("stat")?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        // Fields 14 and 15 of proc(5); the split begins at field 3.
        Ok((field(11) + field(12)) / ticks_per_second())
    }

    /// Asks it to end, and does not wait.
    pub fn ask_to_end(&self) {
        terminate(self.child.id());
    }

    /// Peak resident memory, MiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn peak_mib(&self) -> Result<f64> {
        self.status_mib("VmHWM:")
    }

    /// Resident memory now, MiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_mib(&self) -> Result<f64> {
        self.status_mib("VmRSS:")
    }

    fn status_mib(&self, key: &str) -> Result<f64> {
        let text = self.proc_file("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let kib: f64 = line.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0.0);
        Ok(kib / 1024.0)
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).map_err(|error| Error::new(format!("{}: {path}: {error}", self.name)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end with success, or a signal came.
    pub fn finish(mut self) -> Result<()> {
        let status = self.child.wait();
        interrupt::check()?;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Error::new(format!("{}: {status}", self.name))),
            Err(error) => Err(Error::new(format!("{}: {error}", self.name))),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            terminate(self.child.id());
            let limit = Instant::now() + END_LIMIT;
            while matches!(self.child.try_wait(), Ok(None)) {
                if Instant::now() > limit {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        note(self.child.id(), false);
    }
}

/// Ticks in a second of /proc's processor times.
pub(crate) fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |ticks| ticks as f64)
}

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// When it cannot be started, fails, or a signal comes.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{}: {}: {}", describe(command), output.status, said.trim())))
}

/// Runs a command to its end, successful or not.
///
/// # Errors
/// When it cannot be started, or a signal comes.
pub fn output(command: &mut Command) -> Result<Output> {
    interrupt::check()?;
    let words = describe(command);
    let failed = |error: std::io::Error| Error::new(format!("cannot run {words}: {error}"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(failed)?;
    let pid = child.id();
    note(pid, true);
    let output = child.wait_with_output();
    note(pid, false);
    interrupt::check()?;
    output.map_err(failed)
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
