//! Tools of the system: run to their end, or kept running in the background and ended with their owner.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::interrupt::Interrupt;
use super::{Error, Result};

/// Longest that any one tool may take.
const TOOL_LIMIT: Duration = Duration::from_secs(90);
/// How long a background process gets after SIGTERM before SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command line, optionally inside a network namespace.
pub(super) fn command(namespace: Option<&str>, argv: &[&str]) -> Command {
    let mut words = Vec::new();
    if let Some(namespace) = namespace {
        words.extend(["ip", "netns", "exec", namespace]);
    }
    words.extend(argv);
    let mut command = Command::new(words.first().copied().unwrap_or_default());
    // A group of its own: Ctrl-C reaches us alone, and we end the others in order.
    command.args(words.iter().skip(1)).env("PATH", super::requirements::path()).process_group(0).stdin(Stdio::null());
    command
}

/// A child that is ended and reaped, whatever happens to its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        end(&mut self.0, Signal::SIGKILL);
    }
}

/// A tool that is running, with what it says so far; killed when this is dropped.
pub(super) struct Running {
    child: Owned,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    line: String,
}

impl Running {
    /// Starts it; `input` goes to its standard input.
    pub(super) fn start(namespace: Option<&str>, argv: &[&str], input: &str) -> Result<Self> {
        let line = argv.join(" ");
        let mut child = command(namespace, argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::new(format!("cannot run `{line}`: {error}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A tool that ends before it read everything says why itself.
            let _ = stdin.write_all(input.as_bytes());
        }
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        Ok(Self { child: Owned(child), stdout, stderr, line })
    }

    /// Waits for its end; its status and both outputs.
    pub(super) fn finish(mut self, stop: &Interrupt) -> Result<Finished> {
        let what = format!("`{}` does not end", self.line);
        let ended = stop.until(TOOL_LIMIT, &what, || {
            self.child.0.try_wait().map_err(|error| Error::new(format!("`{}`: {error}", self.line)))
        });
        if ended.is_err() {
            end(&mut self.child.0, Signal::SIGKILL);
        }
        let stdout = self.stdout.join().unwrap_or_default();
        let stderr = self.stderr.join().unwrap_or_default();
        Ok(Finished { status: ended?, stdout, stderr, line: self.line })
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A tool that ended.
pub(super) struct Finished {
    /// How.
    pub(super) status: ExitStatus,
    /// Its standard output.
    pub(super) stdout: String,
    /// Its standard error.
    pub(super) stderr: String,
    line: String,
}

impl Finished {
    /// Its standard output, or an error that quotes what it complained about.
    pub(super) fn ok(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let said = if self.stderr.trim().is_empty() { self.stdout } else { self.stderr };
        Err(Error::new(format!("`{}` failed ({}): {}", self.line, self.status, said.trim())))
    }
}

/// Runs a tool to its end.
pub(super) fn run(stop: &Interrupt, namespace: Option<&str>, argv: &[&str]) -> Result<String> {
    Running::start(namespace, argv, "")?.finish(stop)?.ok()
}

/// Runs lines of `ip` inside a namespace.
pub(super) fn ip_batch(stop: &Interrupt, namespace: &str, lines: &str) -> Result<()> {
    Running::start(None, &["ip", "-n", namespace, "-batch", "-"], lines)?.finish(stop)?.ok().map(drop)
}

/// A process in the background, ended when this is dropped.
pub(super) struct Service {
    child: Child,
    name: String,
    release: bool,
}

impl Service {
    /// Starts it with both outputs in `log`. It dies with us even when we are killed, unless `lasting`.
    pub(super) fn start(name: &str, namespace: &str, argv: &[&str], log: &Path, lasting: bool) -> Result<Self> {
        let broken = |error: std::io::Error| Error::new(format!("cannot start {name}: {error}"));
        let out = File::options().create(true).append(true).open(log).map_err(broken)?;
        let err = out.try_clone().map_err(broken)?;
        let mut words = if lasting { vec![] } else { vec!["setpriv", "--pdeathsig", "TERM"] };
        words.extend(["ip", "netns", "exec", namespace]);
        words.extend(argv);
        let child = command(None, &words).stdout(out).stderr(err).spawn().map_err(broken)?;
        Ok(Self { child, name: name.to_owned(), release: false })
    }

    /// Fails when it ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::new(format!("{} ended by itself ({status})", self.name))),
            Err(error) => Err(Error::new(format!("{}: {error}", self.name))),
        }
    }

    /// Ends it at once, without a chance to tidy up.
    pub(super) fn kill(mut self) {
        end(&mut self.child, Signal::SIGKILL);
        self.release = true;
    }

    /// Lets it run on after we are gone.
    pub(super) fn release(mut self) {
        self.release = true;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.release {
            end(&mut self.child, Signal::SIGTERM);
        }
    }
}

/// Ends a child of ours and reaps it.
fn end(child: &mut Child, signal: Signal) {
    let Ok(pid) = i32::try_from(child.id()) else { return };
    let began = Instant::now();
    let _ = kill(Pid::from_raw(pid), signal);
    while matches!(child.try_wait(), Ok(None)) {
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
