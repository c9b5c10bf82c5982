//! The segment size that TCP announces, as it arrives.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use crate::namespace::Namespace;

/// Longest that the capture waits, in seconds.
const LIMIT: &str = "20";

/// A capture that waits for the first packet that opens a connection.
#[derive(Debug)]
pub struct Opening {
    child: Child,
}

impl Opening {
    /// Listens in a namespace for what `from` sends; returns when it does.
    #[track_caller]
    pub fn listen(namespace: &Namespace, from: IpAddr) -> Self {
        // pcap's `tcp[…]` knows no IPv6: byte 13 of the header behind the fixed 40 bytes.
        let syn = if from.is_ipv4() { "tcp[13] & 2 != 0" } else { "ip6[6] = 6 and ip6[53] & 2 != 0" };
        let filter = format!("src host {from} and {syn}");
        let argv = namespace.argv(&["timeout", LIMIT, "tcpdump", "-lnn", "-i", "eth0", "-c", "1", &filter]);
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("`ip` is installed");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains("listening on"))), "tcpdump does not listen");
        // What it says at its end must not find the pipe closed.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child }
    }

    /// The segment size that the packet announced.
    #[track_caller]
    pub fn mss(self) -> u16 {
        let output = self.child.wait_with_output().expect("it is our child");
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = line.split_once("mss ").and_then(|(_, rest)| rest.split([',', ']']).next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no opening packet with a segment size: {line:?}"))
    }
}
