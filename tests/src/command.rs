//! Tools of the system, run to their end within a limit.

use std::io::Write as _;
use std::process::{Command, ExitStatus, Stdio};

/// Longest that any one tool may take, in seconds.
const LIMIT: &str = "120";

/// A tool that ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Both outputs.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a tool to its end, whatever that is; `input` goes to its standard input.
#[track_caller]
pub fn feed(argv: &[&str], input: &str) -> Finished {
    let mut child = Command::new("timeout")
        .args(["-k", "1", LIMIT])
        .args(argv)
        .env("ETCDCTL_API", "3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run `{}`: {error}", argv.join(" ")));
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends before it read everything says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().expect("the tool was started by us");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Finished { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Runs a tool to its end, whatever that is.
#[track_caller]
pub fn attempt(argv: &[&str]) -> Finished {
    feed(argv, "")
}

/// Runs a tool that must succeed; its standard output.
#[track_caller]
pub fn run(argv: &[&str]) -> String {
    checked(argv, attempt(argv))
}

/// Fails the test with what the tool complained about, unless it succeeded; its standard output.
#[track_caller]
pub fn checked(argv: &[&str], finished: Finished) -> String {
    assert!(finished.success(), "`{}` failed ({}): {}", argv.join(" "), finished.status, finished.said().trim());
    finished.stdout
}
