//! What must not stay behind: namespaces, their processes and their files, of this process and of those that were killed.
//!
//! Every name carries the process id of its maker, and a file tells when that process started, so that a stranger who
//! got the number later does not keep them alive. Only processes inside such namespaces are ever ended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command;

/// What the names of all namespaces begin with.
pub const PREFIX: &str = "wlab";
/// Where labs keep their files.
const FOLDER: &str = "/run/wlab";
/// How long processes in a namespace get after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(3);

/// Labs of this process that live, and whether signals are already caught.
static LIVE: Mutex<(u32, bool)> = Mutex::new((0, false));

/// Held by every lab. The first of a process removes what killed processes left and notes that this one lives; the last
/// takes that note away. A signal in between cleans up too.
#[derive(Debug)]
pub struct Guard(());

impl Guard {
    /// Takes one more.
    pub fn take() -> Self {
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        if live.0 == 0 {
            sweep();
            note_that_this_process_lives();
        }
        if !live.1 {
            std::thread::spawn(clean_up_on_signal);
        }
        *live = (live.0 + 1, true);
        Self(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.0 -= 1;
        if live.0 == 0 {
            let _ = std::fs::remove_dir_all(folder_of(std::process::id()));
        }
    }
}

/// The files of a process' labs.
pub fn folder_of(id: u32) -> PathBuf {
    Path::new(FOLDER).join(id.to_string())
}

/// Removes everything that processes left which no longer run.
pub fn sweep() {
    for id in ids().into_iter().filter(|id| !is_running(*id)) {
        remove(id);
    }
}

/// Ends every process in these namespaces, then removes them.
pub fn remove_namespaces(names: &[String]) {
    let began = Instant::now();
    let mut signal = Some(Signal::SIGTERM);
    while signal_all(names, signal) && began.elapsed() < PATIENCE * 2 {
        signal = (began.elapsed() > PATIENCE).then_some(Signal::SIGKILL);
        std::thread::sleep(Duration::from_millis(10));
    }
    for name in names {
        command::attempt(&["ip", "netns", "delete", name]);
    }
}

/// Whether any process was still there; each gets `signal`.
fn signal_all(names: &[String], signal: Option<Signal>) -> bool {
    let pids: Vec<i32> = names.iter().flat_map(|name| pids(name)).collect();
    if let Some(signal) = signal {
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    }
    !pids.is_empty()
}

/// The processes of a namespace. A thread of ours that visits one does not count: its process is elsewhere.
fn pids(namespace: &str) -> Vec<i32> {
    let listed = command::attempt(&["ip", "netns", "pids", namespace]).stdout;
    listed.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn remove(id: u32) {
    let begin = format!("{PREFIX}{id}-");
    let names: Vec<String> = names("/run/netns").into_iter().filter(|name| name.starts_with(&begin)).collect();
    remove_namespaces(&names);
    let _ = std::fs::remove_dir_all(folder_of(id));
}

/// The folder gets its name when the note is in it: another process that sweeps meanwhile would take it for a dead one's.
fn note_that_this_process_lives() {
    let id = std::process::id();
    let unnamed = Path::new(FOLDER).join(format!("new-{id}"));
    std::fs::create_dir_all(&unnamed).expect("labs need root, to write below /run");
    let started = started(id).expect("this process runs");
    std::fs::write(unnamed.join("started"), started).expect("the folder was just made");
    std::fs::rename(&unnamed, folder_of(id)).expect("a lab of this process is gone before the next");
}

/// Every process id that a namespace or folder is named by.
fn ids() -> BTreeSet<u32> {
    let namespaces = names("/run/netns");
    let named = namespaces.iter().filter_map(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
    let folders = names(FOLDER);
    named.chain(folders.iter().filter_map(|name| name.parse().ok())).collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_running(id: u32) -> bool {
    let noted = std::fs::read_to_string(folder_of(id).join("started")).ok();
    noted.is_some() && noted == started(id)
}

/// When a process started, in clock ticks since boot: field 22 of proc_pid_stat(5), counted behind the name.
fn started(id: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split_whitespace().nth(19).map(str::to_owned)
}

fn clean_up_on_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for signals");
    runtime.block_on(async {
        let [mut interrupt, mut terminate, mut hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
                .map(|kind| signal(kind).expect("a handler for a signal"));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    eprintln!("interrupted: removing this process' namespaces");
    remove(std::process::id());
    std::process::exit(130);
}
