//! What an operator must know although nobody asks. The registry of Kubernetes writes it down as Events; where there is none,
//! nobody looks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use warren_overlay::mesh::Refusal;

use super::Control;
use crate::health::Check;
use crate::registry::{Concern, Concerns};

/// So many packets refused between two looks, half a minute apart, are no accident.
const MANY: u64 = 100;
/// That they were is said for this long.
const LATELY: Duration = Duration::from_secs(600);

/// Tells the registry's task.
pub(super) struct Teller {
    told: watch::Sender<Concerns>,
    refused: Refused,
}

impl Teller {
    pub(super) fn new() -> Self {
        Self { told: watch::Sender::default(), refused: Refused::default() }
    }

    /// For a registry that has somewhere to write.
    #[cfg(feature = "kubernetes")]
    pub(super) fn listen(&self) -> watch::Receiver<Concerns> {
        self.told.subscribe()
    }
}

/// The guard's count of what it refused. What it had refused before this agent began is not news.
#[derive(Default)]
struct Refused {
    count: Option<u64>,
    until: Option<Instant>,
}

impl Refused {
    /// Whether it were many, lately.
    fn look(&mut self, count: u64, now: Instant) -> bool {
        let before = self.count.replace(count).unwrap_or(count);
        if count.saturating_sub(before) >= MANY {
            self.until = Some(now + LATELY);
        }
        self.until.is_some_and(|until| now < until)
    }
}

impl Control {
    /// Looks, if anybody wants to know.
    pub(super) async fn tell_concerns(&mut self) {
        if self.concerns.told.is_closed() {
            return;
        }
        let guard = self.host.guard_counters().await;
        let in_clear = self.concerns.refused.look(guard.refused, Instant::now()).then(|| {
            "the guard refuses packets of the overlay in clear, and not just a few: somebody on this host or beside it sends past \
             the tunnel; see `guard` in `warren status`, and `nft list table inet warren`"
                .to_owned()
        });
        let (own, others): (Vec<_>, Vec<_>) =
            self.mesh.refusals.iter().partition(|refusal| refusal.subject == self.config.node.name.as_str());
        let checks = self.checks(&guard);
        let found = [
            (Concern::NotReady, unready(&checks)),
            (Concern::NotAllocated, own.first().map(|refusal| of_ours(refusal)).or_else(|| self.lacks_cidrs())),
            (Concern::HostInterference, checks.iter().find(|check| check.name == "routes").and_then(problem)),
            (Concern::ClearTextRefused, in_clear),
            (Concern::PeersRefused, of_others(&others)),
        ];
        let concerns: Concerns = found.into_iter().filter_map(|(concern, said)| Some((concern, said?))).collect();
        self.concerns.told.send_if_modified(|told| {
            let differs = *told != concerns;
            *told = concerns;
            differs
        });
    }
}

fn problem(check: &Check) -> Option<String> {
    check.problem.clone()
}

/// Why the node is not ready. Routes are a matter of their own; peers that do not answer say nothing of this node.
fn unready(checks: &[Check]) -> Option<String> {
    let ours = checks.iter().filter(|check| !["routes", "peers"].contains(&check.name));
    let said: Vec<_> = ours.filter_map(|check| Some(format!("{}: {}", check.name, problem(check)?))).collect();
    (!said.is_empty()).then(|| format!("this node is not ready: {}", said.join("; ")))
}

fn of_ours(refusal: &Refusal) -> String {
    let what =
        refusal.cidr.map_or_else(|| "this node's record".to_owned(), |cidr| format!("this node's prefix {cidr}"));
    format!("{what} is refused ({}): {}", refusal.reason, refusal.detail)
}

/// One sentence, however many they are.
fn of_others(refusals: &[&Refusal]) -> Option<String> {
    let first = refusals.first()?;
    let nodes: BTreeSet<_> = refusals.iter().map(|refusal| &refusal.subject).collect();
    let (count, Refusal { subject, reason, detail, .. }) = (nodes.len(), first);
    Some(format!(
        "records or prefixes of {count} other(s) are refused here, the first of {subject:?} ({reason}): {detail}; `warren \
         status` lists all"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_refused_packets_are_no_concern_and_many_are_one_for_ten_minutes() {
        let (mut refused, start) = (Refused::default(), Instant::now());
        let mut look = |seconds, count| refused.look(count, start + Duration::from_secs(seconds));
        assert!(!look(0, 1_000_000), "from before this agent began");
        assert!(!look(30, 1_000_000 + MANY - 1));
        assert!(look(60, 1_000_000 + 2 * MANY) && look(90, 1_000_000 + 2 * MANY) && look(659, 1_000_000 + 2 * MANY));
        assert!(!look(660, 1_000_000 + 2 * MANY));
        assert!(!look(690, 7), "the guard was loaded anew");
    }

    #[test]
    fn the_checks_that_fail_are_named_but_those_that_say_nothing_of_this_node_are_not() {
        let checks = [
            Check::new("device", Some("somebody deleted warren0".to_owned())),
            Check::new("guard", None),
            Check::new("routes", Some("not ours".to_owned())),
            Check::new("peers", Some("no handshake yet".to_owned())),
        ];
        assert_eq!(unready(&checks).as_deref(), Some("this node is not ready: device: somebody deleted warren0"));
        assert_eq!(unready(&checks[1..]), None);
    }

    #[test]
    fn however_many_others_are_refused_it_is_said_in_one_sentence() {
        let refusal = |subject: usize| Refusal {
            subject: format!("n{subject}\u{1b}"),
            cidr: None,
            reason: "malformed".to_owned(),
            detail: "no JSON".to_owned(),
        };
        let refusals: Vec<_> = (0..3000).map(refusal).collect();
        let said = of_others(&refusals.iter().collect::<Vec<_>>()).unwrap();
        assert!(
            said.starts_with("records or prefixes of 3000 other(s)") && said.contains(r#""n0\u{1b}" (malformed): no"#),
            "{said}"
        );
        assert!(said.len() < 200 && of_others(&[]).is_none());
    }
}
