//! The machine while it measures: kept awake, and asked how much of it the hypervisor took.

use std::fs;
use std::process::Command;

use crate::process::{Process, ticks_per_second};
use crate::{Error, Result};

/// Sums of /proc/stat since boot, ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ticks {
    /// User, system and interrupts; without `nice`, where the idle loops are.
    pub busy: f64,
    /// Taken by the hypervisor.
    pub steal: f64,
    /// Everything.
    pub total: f64,
}

impl Ticks {
    /// Now.
    ///
    /// # Errors
    /// Without /proc.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").map_err(|error| Error::new(format!("/proc/stat: {error}")))?;
        Self::parse(&text).ok_or_else(|| Error::new("/proc/stat: no cpu line"))
    }

    /// proc(5): cpu user nice system idle iowait irq softirq steal …
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<f64> = text
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = fields.as_slice() else { return None };
        let busy = user + system + irq + softirq;
        Some(Self { busy, steal: *steal, total: busy + nice + idle + iowait + steal })
    }

    /// From `earlier` to `self`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { busy: self.busy - earlier.busy, steal: self.steal - earlier.steal, total: self.total - earlier.total }
    }

    /// Share of the time that the hypervisor took, percent.
    pub fn steal_percent(self) -> f64 {
        if self.total > 0.0 { 100.0 * self.steal / self.total } else { 0.0 }
    }

    /// Busy processor seconds.
    pub fn busy_seconds(self) -> f64 {
        self.busy / ticks_per_second()
    }
}

/// One loop per processor at the priority that any other task preempts at once: a virtual processor that never halts is
/// not taken away. Runs as long as it is held.
#[derive(Debug)]
pub struct Awake(#[expect(dead_code, reason = "held for its drop")] Vec<Process>);

impl Awake {
    /// Starts the loops.
    ///
    /// # Errors
    /// When chrt or taskset (util-linux) are missing.
    pub fn start() -> Result<Self> {
        let own = std::env::current_exe().map_err(|error| Error::new(format!("cannot find this program: {error}")))?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let start = |cpu: usize| {
            let mut command = Command::new("nice");
            command.args(["-n", "19", "chrt", "-i", "0", "taskset", "-c", &cpu.to_string()]).arg(&own).arg("--spin");
            Process::start("idle loop", &mut command, None)
        };
        (0..cpus).map(start).collect::<Result<_>>().map(Self)
    }
}

/// What an idle loop does: nothing, until its parent is gone.
pub fn spin() {
    let parent = nix::unistd::getppid();
    while nix::unistd::getppid() == parent {
        (0..1_000_000).for_each(|_| std::hint::spin_loop());
    }
}

/// One line about the machine for the report.
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cpus} × {}, Linux {}", model.trim_start_matches(['\t', ' ', ':']), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_loops_do_not_count_as_busy() {
        let before = Ticks::parse("cpu  10 100 10 1000 0 1 1 5 0 0\ncpu0 ...").unwrap();
        let after = Ticks::parse("cpu  20 190 15 1000 0 2 3 15 0 0\n").unwrap();
        let between = after.since(before);
        assert_eq!(between, Ticks { busy: 18.0, steal: 10.0, total: 118.0 });
        assert!((between.steal_percent() - 8.47).abs() < 0.01);
    }
}
