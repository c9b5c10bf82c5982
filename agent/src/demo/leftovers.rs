//! Taking down: what this demo made, and what an earlier one left behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::command;
use super::screen::Screen;
use super::world::{PREFIX, RUN_DIR};
use super::{Error, Result};

/// A file in a demo's folder that says: left up on purpose.
const KEPT: &str = "kept";
/// How long processes in a namespace get after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

/// Notes that this demo stays.
pub(super) fn mark_kept(folder: &Path) -> Result<()> {
    let file = folder.join(KEPT);
    std::fs::write(&file, "").map_err(|error| Error::new(format!("cannot write {}: {error}", file.display())))
}

/// Removes what demos left that were killed; those kept on purpose and those still running stay.
pub(super) fn sweep(screen: &Screen) {
    for id in ids().into_iter().filter(|id| !is_running(*id) && !is_kept(*id)) {
        remove(id);
        screen.line(&format!("  removed what demo {id} left behind"));
    }
}

/// `warren demo --clean`: removes everything that no running demo owns.
pub(super) fn remove_all(screen: &Screen) -> Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new("needs root, to remove network namespaces: run `sudo warren demo --clean`"));
    }
    let mut all = true;
    for id in ids() {
        if is_running(id) {
            screen.fail(&format!("demo {id} is still running: end it with `kill {id}`, it cleans up itself"));
            all = false;
            continue;
        }
        remove(id);
        screen.line(&format!("removed demo {id}"));
    }
    Ok(all)
}

/// Ends every process in the namespaces of one demo, then removes those and its files.
pub(super) fn remove(id: u32) {
    let namespaces = namespaces_of(id);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let began = Instant::now();
        while signal_all(&namespaces, (began.elapsed() < Duration::from_millis(50)).then_some(signal)) {
            if began.elapsed() > PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    for namespace in &namespaces {
        quietly(&["ip", "netns", "delete", namespace]);
    }
    // Absent when the demo failed before it made one.
    let _ = std::fs::remove_dir_all(Path::new(RUN_DIR).join(id.to_string()));
    let _ = std::fs::remove_dir(RUN_DIR);
}

/// Whether any process was still there; each gets `signal`.
fn signal_all(namespaces: &[String], signal: Option<Signal>) -> bool {
    let mut found = false;
    for namespace in namespaces {
        let listed = quietly(&["ip", "netns", "pids", namespace]);
        for pid in listed.lines().filter_map(|line| line.trim().parse().ok()) {
            found = true;
            if let Some(signal) = signal {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }
    found
}

/// Runs a tool whose failure only means that there was nothing to do.
fn quietly(argv: &[&str]) -> String {
    let output = command(None, argv).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn namespaces_of(id: u32) -> Vec<String> {
    let begin = format!("{PREFIX}{id}-");
    names("/run/netns").into_iter().filter(|name| name.starts_with(&begin)).collect()
}

/// Every demo that has a namespace or a folder here.
fn ids() -> BTreeSet<u32> {
    let namespaces = names("/run/netns");
    let named = namespaces.iter().filter_map(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
    let folders = names(RUN_DIR);
    named.chain(folders.iter().filter_map(|name| name.parse().ok())).collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_kept(id: u32) -> bool {
    Path::new(RUN_DIR).join(id.to_string()).join(KEPT).exists()
}

/// A process of that number exists and is a demo, not a stranger that got the number later.
fn is_running(id: u32) -> bool {
    let words = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == b"demo")
}
