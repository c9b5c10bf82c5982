//! `warren cleanup --wait` beneath an agent that still runs, as the Pods of a removal do it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::eventually;

/// How long it may take to begin, and to clean up behind an agent that has ended.
const SECONDS: u64 = 20;

/// A cleanup that waits for its agent's end; killed when dropped.
#[derive(Debug)]
pub struct Removal {
    child: Child,
    said: PathBuf,
}

impl Removal {
    /// Runs this command line; gives it back once it says that it waits.
    #[track_caller]
    pub fn start(argv: &[&str], said: PathBuf) -> Self {
        let file = File::create(&said).expect("the node's folder exists");
        let (program, arguments) = argv.split_first().expect("a program");
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(file.try_clone().expect("a file can be shared"))
            .stdout(file)
            .spawn();
        let removal = Self { child: child.expect("`ip` is installed"), said };
        eventually(SECONDS, "the cleanup waits for the agent's end", || {
            removal.said().contains("waiting until it has ended").then_some(())
        });
        removal
    }

    /// Everything that it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Fails the test unless it still waits, and has removed nothing.
    #[track_caller]
    pub fn assert_waits(&mut self) {
        let ended = self.child.try_wait().expect("it is our child");
        assert!(ended.is_none() && !self.said().contains("removed"), "{ended:?}: {}", self.said());
    }

    /// Waits until it is done; what it said.
    #[track_caller]
    pub fn done(mut self) -> String {
        let status = eventually(SECONDS, "the cleanup ends", || self.child.try_wait().expect("it is our child"));
        assert!(status.success(), "`warren cleanup --wait` failed ({status}): {}", self.said());
        self.said()
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
