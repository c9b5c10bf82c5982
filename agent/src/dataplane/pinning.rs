//! Keeps a worker on one core (`workers.pin`). It takes cores from nobody: others may still run there.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// This thread. sched_setaffinity(2).
const SELF: Pid = Pid::from_raw(0);

/// Binds the calling thread to the core of this worker: of those that the process may use, the one in its place. What
/// cannot be bound runs where the kernel puts it.
pub(super) fn pin(worker: usize) {
    if let Err(error) = try_pin(worker) {
        tracing::warn!(worker, %error, "cannot keep this worker on one core (workers.pin); it runs where the kernel puts it");
    }
}

fn try_pin(worker: usize) -> nix::Result<()> {
    let allowed = sched_getaffinity(SELF)?;
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect();
    let Some(core) = worker.checked_rem(cores.len()).and_then(|place| cores.get(place)) else { return Ok(()) };
    let mut one = CpuSet::new();
    one.set(*core)?;
    sched_setaffinity(SELF, &one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_one_core_of_those_it_had_and_workers_share_when_there_are_more() {
        let cores =
            |set: &CpuSet| (0..CpuSet::count()).filter(|core| set.is_set(*core) == Ok(true)).collect::<Vec<_>>();
        let before = cores(&sched_getaffinity(SELF).unwrap());
        for worker in [0, before.len() - 1, before.len()] {
            let after = std::thread::spawn(move || {
                pin(worker);
                sched_getaffinity(SELF).unwrap()
            });
            assert_eq!(cores(&after.join().unwrap()), [before[worker % before.len()]]);
        }
        assert_eq!(cores(&sched_getaffinity(SELF).unwrap()), before, "others keep theirs");
    }
}
