//! What must hold before this node takes part: the store shows its cluster, and its CIDRs are allocated to it.
//!
//! A store that was wiped gets back what this node knows to be so, as far as the store lets it. Nothing here takes what
//! another node is remembered to own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::Client;
use ipnet::IpNet;
use tokio::time::Instant;
use warren_overlay::mesh::Cluster;
use warren_overlay::record::NodeName;

use super::allocate::{self, AllocateError, Want, allocate, missing};
use super::explain::explain;
use super::jitter;
use super::{Ended, Registry};
use crate::config::Cidrs;

/// What could not be claimed or given back is tried again after the first of these, then ever later up to the last, each time
/// with jitter; and at once when anybody gives a prefix back.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// What could not be claimed or given back, and when to try again.
pub(super) struct Unclaimed {
    again: Instant,
    pause: Duration,
    problems: Vec<String>,
}

impl Unclaimed {
    pub(super) fn new() -> Self {
        Self { again: Instant::now(), pause: AGAIN.0, problems: Vec::new() }
    }

    /// When to try again; `None` while all is had.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.problems.is_empty()).then_some(self.again)
    }

    /// It may go better now.
    pub(super) fn hasten(&mut self) {
        *self = Self { problems: std::mem::take(&mut self.problems), ..Self::new() };
    }

    /// What came of it at last.
    fn note(&mut self, problems: Vec<String>, now: Instant) {
        let pause = if problems.is_empty() { AGAIN.0 } else { self.pause };
        *self = Self { again: now + pause + jitter(pause), pause: (pause * 2).min(AGAIN.1), problems };
    }
}

impl Registry {
    /// A store without our cluster was never set up, was wiped, or is another one; says what to do.
    pub(super) async fn check_cluster(&mut self, client: &mut Client) -> Result<Result<(), String>, Ended> {
        let seen = match self.store.cluster(&self.keys) {
            Ok(seen) => seen,
            Err(problem) => return Ok(Err(problem)),
        };
        Ok(match (seen, self.known.cluster.clone()) {
            (Some(seen), Some(known)) if seen.id != known.id => Err(format!(
                "the store belongs to another cluster ({} instead of {}): check etcd.endpoints and etcd.cluster; if it \
                 was lost and set up anew, run `warren cluster init --change --id {}` with the same networks",
                seen.id, known.id, known.id
            )),
            (Some(seen), _) => {
                self.known.cluster = Some(seen);
                Ok(())
            }
            (None, Some(known)) => Err(self.restore_cluster(client, &known).await),
            (None, None) => {
                Err(format!("cluster {:?} is not set up in this store: run `warren cluster init`", self.config.cluster))
            }
        })
    }

    /// The store was wiped: puts back what this node knows of the cluster, if it may; the watch will show it.
    async fn restore_cluster(&mut self, client: &mut Client, known: &Cluster) -> String {
        match allocate::put_cluster(client, &self.keys, known, 0).await {
            Ok(_) => "the store was wiped; the cluster was put back, nodes publish themselves again".to_owned(),
            Err(error) => format!(
                "the store was wiped and this node may not put the cluster back ({}): \
                 run `warren cluster init --id {}` and `warren cluster add-node` again; the mesh stays as it was",
                explain(&error),
                known.id
            ),
        }
    }

    /// Makes sure that the CIDRs that this node should have are allocated to it, as far as it may; says what is missing.
    /// `None` when something was allocated right now, which the store has still to tell.
    pub(super) async fn claim(&mut self, client: &mut Client) -> Result<Option<Vec<String>>, Ended> {
        let networks = self.known.cluster.as_ref().map(|cluster| cluster.networks.clone()).unwrap_or_default();
        let node = self.publisher.node().clone();
        let (own, released) = self.store.given(&self.keys, &node);
        let is_own = |cidr: &IpNet| self.known.owners.get(cidr) == Some(&node) && !released.contains(cidr);
        let cidrs = self.channels.cidrs.borrow().clone();
        let missing = missing(&own, &cidrs.remembering(is_own), &networks);
        let stale = stale(own, &cidrs, &networks);
        let due = !missing.is_empty() || !stale.is_empty();
        if due && self.unclaimed.deadline().is_some_and(|again| Instant::now() < again) {
            return Ok(Some(self.unclaimed.problems.clone()));
        }
        let mut problems = Vec::new();
        let mut allocated = self.give_back(client, &node, &stale, &mut problems).await?;
        let owners = self.owners();
        for want in missing.into_iter().flat_map(|want| self.remembered(want)) {
            if let Some(cidr) = outside(&want, &cidrs, &networks) {
                problems.push(AllocateError::Outside(cidr).to_string());
                continue;
            }
            match allocate(client, &self.keys, &node, &want, &networks, &owners).await {
                Ok(cidr) => {
                    allocated = true;
                    tracing::info!(%cidr, "allocated to this node");
                }
                Err(AllocateError::Store(error)) if is_denied(&error) => problems.push(self.denied(&want, &cidrs)),
                Err(AllocateError::Store(error)) => return Err(error.into()),
                Err(error) => problems.push(error.to_string()),
            }
        }
        self.unclaimed.note(problems.clone(), Instant::now());
        Ok((!allocated).then_some(problems))
    }

    /// Whether anything was given back, which the store has still to tell.
    async fn give_back(
        &self,
        client: &mut Client,
        node: &NodeName,
        stale: &[IpNet],
        problems: &mut Vec<String>,
    ) -> Result<bool, Ended> {
        if stale.is_empty() {
            return Ok(false);
        }
        match allocate::give_back(client, &self.keys, node, stale).await {
            Ok(()) => {
                tracing::info!(?stale, "given back");
                return Ok(true);
            }
            Err(AllocateError::Store(error)) if is_denied(&error) => problems.push(format!(
                "{} is no longer this node's, and the store does not let {node} give it back: another node that gets it is \
                 refused until `warren cluster release {node}`",
                stale.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            )),
            Err(AllocateError::Store(error)) => return Err(error.into()),
            Err(error) => problems.push(error.to_string()),
        }
        Ok(false)
    }

    /// Instead of any prefix those that were this node's before.
    fn remembered(&self, want: Want) -> Vec<Want> {
        let Want::Any { v6, .. } = want else { return vec![want] };
        let networks = self.known.cluster.iter().flat_map(|cluster| &cluster.networks);
        let inside = |cidr: &IpNet| networks.clone().any(|network| network.contains(cidr));
        let own = self
            .known
            .owners
            .iter()
            .filter(|(cidr, owner)| *owner == self.publisher.node() && cidr.addr().is_ipv6() == v6 && inside(cidr));
        let own: Vec<_> = own.map(|(cidr, _)| Want::This(*cidr)).collect();
        if own.is_empty() { vec![want] } else { own }
    }

    /// Who is remembered to own what. Who gave it back just now, of which nobody was told yet, owns it no longer; unless the
    /// store went back in time, and what it says of that may be old.
    fn owners(&self) -> BTreeMap<IpNet, NodeName> {
        let settled = Instant::now() >= self.settled_at;
        let owns = |(cidr, node): &(&IpNet, &NodeName)| !(settled && self.store.is_released(&self.keys, **cidr, node));
        self.known.owners.iter().filter(owns).map(|(cidr, node)| (*cidr, node.clone())).collect()
    }

    fn denied(&self, want: &Want, cidrs: &Cidrs) -> String {
        let node = self.publisher.node();
        match (want, cidrs) {
            (Want::This(cidr), Cidrs::Listed(_) | Cidrs::Given(_)) => {
                format!("{cidr} is not allocated to {node}: run `warren cluster add-node {node} --cidr {cidr}`")
            }
            _ => format!(
                "node.cidrs = \"auto\", but the store does not let {node} allocate: run `warren cluster add-node {node}` \
                 and use the configuration that it prints"
            ),
        }
    }
}

/// A single address outside of the cluster network would be the grant of a node address: an administrator's, and nothing
/// that the API server's objects of a CNI may say.
fn outside(want: &Want, cidrs: &Cidrs, networks: &BTreeSet<IpNet>) -> Option<IpNet> {
    let Want::This(cidr) = *want else { return None };
    let outside = !networks.iter().any(|network| network.contains(&cidr));
    (outside && matches!(cidrs, Cidrs::Given(_))).then_some(cidr)
}

/// What is allocated to this node and, as the API server says, no longer its own. What is granted outside of the cluster
/// network is an administrator's.
fn stale(own: Vec<IpNet>, cidrs: &Cidrs, networks: &BTreeSet<IpNet>) -> Vec<IpNet> {
    let inside = |cidr: &IpNet| networks.iter().any(|network| network.contains(cidr));
    own.into_iter().filter(|cidr| cidrs.rule_out(cidr) && inside(cidr)).collect()
}

fn is_denied(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("permission denied"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_tried_ever_later_and_at_once_when_it_may_be_free() {
        let (mut unclaimed, now) = (Unclaimed::new(), Instant::now());
        assert_eq!(unclaimed.deadline(), None);
        for seconds in [5, 10, 20, 40, 60, 60] {
            unclaimed.note(vec!["taken".to_owned()], now);
            let (least, waits) = (Duration::from_secs(seconds), unclaimed.deadline().unwrap() - now);
            assert!(waits >= least && waits <= least * 3 / 2, "{waits:?}");
        }
        unclaimed.hasten();
        assert!(unclaimed.deadline().unwrap() <= Instant::now() && unclaimed.problems == ["taken"]);
        unclaimed.note(Vec::new(), now);
        assert_eq!(unclaimed.deadline(), None, "all is had");
    }
}
