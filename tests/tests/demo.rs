//! `warren demo` as scripts use it: its line of JSON, its exit code, and that nothing of it stays.

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use warren_tests::agent::program;

/// A demo that runs.
struct Demo {
    child: Child,
    progress: Lines<BufReader<ChildStderr>>,
}

impl Demo {
    fn start(more: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.args(["demo", "-o", "json", "--measure", "1"]).args(more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program was built");
        let stderr = child.stderr.take().expect("it is piped");
        Self { child, progress: BufReader::new(stderr).lines() }
    }

    /// Reads its progress up to a line with these words.
    #[track_caller]
    fn until(&mut self, words: &str) {
        assert!(self.progress.any(|line| line.is_ok_and(|line| line.contains(words))), "it never said {words:?}");
    }

    /// Waits for its end: exit code, standard output, and the rest of its progress.
    fn end(mut self) -> (Option<i32>, String, String) {
        let progress: Vec<String> = self.progress.map_while(Result::ok).collect();
        let mut out = String::new();
        self.child.stdout.take().expect("it is piped").read_to_string(&mut out).expect("text");
        let code = self.child.wait().expect("it is our child").code();
        (code, out, progress.join("\n"))
    }
}

#[track_caller]
fn assert_nothing_is_left(id: u32) {
    let list = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = list.filter_map(|entry| entry.file_name().into_string().ok());
    let left: Vec<String> = names.filter(|name| name.starts_with(&format!("wdemo{id}-"))).collect();
    assert!(left.is_empty(), "these namespaces stay: {left:?}");
    assert!(!Path::new("/run/wdemo").join(id.to_string()).exists(), "its files stay");
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_demo_prints_one_line_of_facts_exits_with_0_and_leaves_nothing() {
    for registry in ["static", "etcd"] {
        let demo = Demo::start(&["--registry", registry]);
        let id = demo.child.id();
        let (code, out, progress) = demo.end();
        assert_eq!(code, Some(0), "{registry}: {out}{progress}");
        assert_eq!(out.lines().count(), 1, "{out}");
        let facts: Value = serde_json::from_str(&out).expect("a line of JSON");
        let mut known = ["nodes", "pods", "pings", "plaintext_packets", "control_plaintext_packets", "gbps", "seconds"];
        known.sort_unstable();
        assert_eq!(keys(&facts), known);
        assert_eq!((facts["nodes"].as_u64(), facts["pods"].as_u64()), (Some(3), Some(6)));
        assert_eq!(keys(&facts["pings"]), ["received", "sent"]);
        assert!(facts["pings"]["sent"].as_u64() > Some(0), "{out}");
        assert_eq!(facts["pings"]["sent"], facts["pings"]["received"]);
        assert_eq!(facts["plaintext_packets"].as_u64(), Some(0));
        assert!(facts["control_plaintext_packets"].as_u64() > Some(0), "{out}");
        assert_eq!(keys(&facts["gbps"]), ["vxlan", "warren", "wireguard_go"]);
        let rates = ["vxlan", "warren", "wireguard_go"].map(|name| facts["gbps"][name].as_f64());
        assert!(rates.iter().all(|rate| rate.is_some_and(|rate| rate > 0.0)), "{out}");
        assert!(facts["seconds"].as_f64() > Some(0.0), "{out}");
        assert_nothing_is_left(id);
    }
}

#[test]
fn a_demo_that_is_interrupted_at_any_step_leaves_nothing() {
    for (words, signal) in [
        ("one encrypted network", Signal::SIGINT),
        ("Pods in network namespaces", Signal::SIGINT),
        ("agents: guard", Signal::SIGTERM),
        ("pings answered", Signal::SIGINT),
        ("control: Warren removed", Signal::SIGHUP),
        ("iperf3 through wireguard-go", Signal::SIGINT),
    ] {
        let mut demo = Demo::start(&[]);
        let id = demo.child.id();
        demo.until(words);
        kill(Pid::from_raw(id.cast_signed()), signal).expect("it is our child");
        let (code, out, progress) = demo.end();
        assert_eq!(code, Some(2), "after {words:?}: {progress}");
        assert_eq!(out, "", "after {words:?}");
        assert!(progress.contains("interrupted"), "after {words:?}: {progress}");
        assert_nothing_is_left(id);
    }
}
