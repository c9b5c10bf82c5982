//! iperf3 in the background, and what it reports at its end.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::eventually;
use crate::namespace::Namespace;

/// A client and its server that run.
#[derive(Debug)]
pub struct Iperf {
    client: Option<Child>,
    server: Child,
}

/// What a client measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Gb/s, as the receiver saw it.
    pub gbps: f64,
    /// Bytes of every second.
    pub seconds: Vec<f64>,
}

impl Iperf {
    /// Starts a TCP stream for some seconds, at most at `rate` (as iperf3's `-b` takes it, "0" is unlimited).
    #[track_caller]
    pub fn start(from: &Namespace, to: &Namespace, address: IpAddr, seconds: u64, rate: &str) -> Self {
        let (address, seconds) = (address.to_string(), seconds.to_string());
        let server = spawn(to, &["iperf3", "-s", "-1", "-B", &address]);
        eventually(5, "the iperf3 server listens", || {
            to.run(&["ss", "-Hltn", "sport = :5201"]).contains("5201").then_some(())
        });
        let client = spawn(from, &["iperf3", "-c", &address, "-t", &seconds, "-b", rate, "-J"]);
        Self { client: Some(client), server }
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(mut self) -> Report {
        let client = self.client.take().expect("it is waited for once");
        let output = client.wait_with_output().expect("the client is our child");
        let json: Value = serde_json::from_slice(&output.stdout).expect("iperf3 -J prints JSON");
        assert!(json["error"].is_null(), "iperf3: {}", json["error"]);
        let intervals = json["intervals"].as_array().map_or(&[][..], Vec::as_slice);
        let seconds = intervals.iter().filter_map(|interval| interval["sum"]["bytes"].as_f64()).collect();
        let bits = json["end"]["sum_received"]["bits_per_second"].as_f64().expect("iperf3 reports a rate");
        Report { gbps: bits / 1e9, seconds }
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        for child in self.client.iter_mut().chain([&mut self.server]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(namespace: &Namespace, argv: &[&str]) -> Child {
    let argv = namespace.argv(argv);
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("`ip` is installed")
}
