//! Echo requests without end, so that a leak of a moment is not missed.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use crate::namespace::Namespace;
use crate::sniffer::CANARY;

/// A hundred echo requests a second with the canary, until dropped.
#[derive(Debug)]
pub struct Flood {
    child: Child,
}

impl Flood {
    /// Starts it.
    #[track_caller]
    pub fn start(from: &Namespace, to: IpAddr) -> Self {
        let pattern: String = CANARY.iter().map(|byte| format!("{byte:02x}")).collect();
        let to = to.to_string();
        let argv = from.argv(&["ping", "-n", "-q", "-i", "0.01", "-p", &pattern, &to]);
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().expect("`ip` is installed") }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
