//! `warren cleanup`: every trace of the agent off this host, at once or as soon as its agent has ended.
//!
//! It never ends an agent itself: whoever started that one would start it again, and it would put everything back.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use super::{OK, runtime, say};
use crate::admin::{self, Presence, presence};
use crate::cni;
use crate::config::Config;
use crate::host::Host;

/// Between two looks at an agent that still runs.
const LOOK: Duration = Duration::from_millis(100);
/// Who was killed may be started again by systemd or the kubelet, at once or after a first pause of theirs.
const RETURN: Duration = Duration::from_secs(20);

/// What stands behind `warren cleanup`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Command {
    /// While the agent runs, wait until it has ended, for as long as it takes or for SECONDS, instead of failing at once.
    #[arg(long, value_name = "SECONDS", require_equals = true)]
    wait: Option<Option<u64>>,
}

pub(super) fn run(command: Command, config: &Config) -> Result<u8, String> {
    match command.wait {
        None => refuse_beneath_an_agent(config)?,
        Some(seconds) => wait_for_its_end(config, seconds.map(Duration::from_secs))?,
    }
    // Of one that was killed. Later the path may be a successor's.
    let _ = std::fs::remove_file(config.node.run_dir.join(admin::SOCKET));
    // A gate without its guard would let no Pod start.
    let withdrawn = cni::remove(&config.node.cni_dir, &config.node.state_dir)?;
    tell(&withdrawn);
    let removed = runtime()?.block_on(async {
        let mut host = Host::open(&config.node.state_dir)?;
        host.cleanup(&config.overlay.device, config.overlay.table).await
    });
    let removed = removed.map_err(|error| error.to_string())?;
    tell(&removed);
    if withdrawn.is_empty() && removed.is_empty() {
        say("there was nothing to remove");
    }
    match look(config)? {
        Presence::Ended => Ok(OK),
        Presence::Runs | Presence::Killed => Err(
            "an agent was started meanwhile, and has put back what was removed or misses some of it: stop it for good, and \
             try again"
                .to_owned(),
        ),
    }
}

fn tell(removed: &[String]) {
    removed.iter().for_each(|what| say(format_args!("removed {what}")));
}

fn look(config: &Config) -> Result<Presence, String> {
    let unknown = |error| format!("{}: cannot tell whether an agent runs: {error}", config.node.run_dir.display());
    presence(&config.node.run_dir).map_err(unknown)
}

fn refuse_beneath_an_agent(config: &Config) -> Result<(), String> {
    match look(config)? {
        Presence::Runs => Err(
            "the agent is running: stop it first, or it would put everything back; with --wait this waits for its end"
                .to_owned(),
        ),
        Presence::Killed | Presence::Ended => Ok(()),
    }
}

fn wait_for_its_end(config: &Config, limit: Option<Duration>) -> Result<(), String> {
    let mut vigil = Vigil { deadline: limit.and_then(|limit| Instant::now().checked_add(limit)), killed: None };
    let mut said = None;
    loop {
        let presence = look(config)?;
        match vigil.judge(presence, Instant::now()) {
            Verdict::Over => return Ok(()),
            Verdict::TooLong => return Err(too_long(limit.unwrap_or_default())),
            Verdict::Wait if said != Some(presence) => say(waits_for(presence)),
            Verdict::Wait => {}
        }
        said = Some(presence);
        sleep(LOOK);
    }
}

fn waits_for(presence: Presence) -> String {
    match presence {
        Presence::Killed => format!("the agent was killed; waiting {} s, it may be started again", RETURN.as_secs()),
        Presence::Runs | Presence::Ended => "the agent is running; waiting until it has ended".to_owned(),
    }
}

fn too_long(limit: Duration) -> String {
    format!("the agent has not ended within {} s, and nothing was removed: stop it, and try again", limit.as_secs())
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Over,
    TooLong,
}

/// A wait for the agent's end.
struct Vigil {
    deadline: Option<Instant>,
    /// Since when there is only the socket of one that was killed.
    killed: Option<Instant>,
}

impl Vigil {
    fn judge(&mut self, presence: Presence, now: Instant) -> Verdict {
        let over = match presence {
            Presence::Ended => true,
            Presence::Killed => now.duration_since(*self.killed.get_or_insert(now)) >= RETURN,
            Presence::Runs => {
                self.killed = None;
                false
            }
        };
        match over {
            true => Verdict::Over,
            false if self.deadline.is_some_and(|deadline| now >= deadline) => Verdict::TooLong,
            false => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it says of these looks, each so many seconds after the first.
    fn verdicts(seconds: Option<u64>, looks: &[(u64, Presence)]) -> Vec<Verdict> {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut vigil = Vigil { deadline: seconds.map(after), killed: None };
        looks.iter().map(|&(seconds, presence)| vigil.judge(presence, after(seconds))).collect()
    }

    #[test]
    fn an_agent_that_ended_by_itself_is_cleaned_up_behind_at_once() {
        use Presence::{Ended, Runs};
        assert_eq!(verdicts(None, &[(0, Ended)]), [Verdict::Over]);
        assert_eq!(
            verdicts(None, &[(0, Runs), (9_000, Runs), (9_000, Ended)]),
            [Verdict::Wait, Verdict::Wait, Verdict::Over]
        );
        assert_eq!(verdicts(Some(5), &[(6, Ended)]), [Verdict::Over], "late, and over nevertheless");
    }

    #[test]
    fn one_that_was_killed_may_come_back_for_a_while() {
        use Presence::{Killed, Runs};
        let looks = [(0, Killed), (19, Killed), (19, Runs), (20, Killed), (39, Killed), (40, Killed)];
        let said = verdicts(None, &looks);
        assert!(said[..5].iter().all(|verdict| *verdict == Verdict::Wait), "{said:?}");
        assert_eq!(said[5], Verdict::Over);
    }

    #[test]
    fn a_limit_ends_the_wait() {
        use Presence::{Killed, Runs};
        assert_eq!(verdicts(Some(5), &[(4, Runs), (5, Runs)]), [Verdict::Wait, Verdict::TooLong]);
        assert_eq!(verdicts(Some(5), &[(4, Killed), (5, Killed)]), [Verdict::Wait, Verdict::TooLong]);
        assert_eq!(verdicts(Some(0), &[(0, Runs)]), [Verdict::TooLong]);
    }
}
