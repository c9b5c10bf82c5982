//! The node's own prefixes: blocks that it makes for itself, as far as the API server lets it, and gives back.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::time::Instant;
use warren_overlay::mesh::Cluster;

use super::names::block_name;
use super::object::{Kind, Object};
use super::server::Server;
use super::store::Block;
use super::{Fault, Registry};
use crate::config::Cidrs;
use crate::counted::counted;
use crate::registry::etcd::{AllocateError, Given, Want, choose, missing};
use crate::registry::jitter;

/// Prefixes are looked at again after the first of these, or ever later up to the last while something was written each
/// time: whoever takes blocks away as fast as they are made is not to be outdone. Each with jitter.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// What was made or given back is left to the watch for this long, and nothing else is made meanwhile.
const ECHO: Duration = Duration::from_secs(3);
/// Nothing more is written after this: what happens is not heard meanwhile.
const ENOUGH: Duration = Duration::from_secs(5);

/// What was claimed last, and when to look again.
pub(super) struct Claims {
    /// What the node should have, and the UID of the Node that is to own it.
    of: Option<(Cidrs, Option<String>)>,
    next: Instant,
    pause: Duration,
    /// What could not be had.
    problems: Vec<String>,
    /// Blocks that were made (`true`) or given back, and until when the watch is waited for to tell of them.
    changed: Vec<(String, bool)>,
    echo: Option<Instant>,
}

impl Claims {
    pub(super) fn new() -> Self {
        let (next, pause) = (Instant::now(), AGAIN.0);
        Self { of: None, next, pause, problems: Vec::new(), changed: Vec::new(), echo: None }
    }

    /// When to look again although nothing was heard.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let is_due = !self.problems.is_empty() || !self.changed.is_empty();
        self.echo.filter(|at| *at > now).into_iter().chain(is_due.then_some(self.next)).min()
    }

    /// Something else is wanted than before: that does not wait.
    fn want(&mut self, of: (Cidrs, Option<String>)) {
        if self.of.as_ref() != Some(&of) {
            *self = Self { of: Some(of), changed: std::mem::take(&mut self.changed), echo: self.echo, ..Self::new() };
        }
    }

    /// Everything was looked at; `wrote` is whether that was more than looking.
    fn done(&mut self, Outcome { problems, changed, wrote }: Outcome, now: Instant) {
        self.next = now + self.pause + jitter(self.pause);
        self.pause = if wrote { (self.pause * 2).min(AGAIN.1) } else { AGAIN.0 };
        self.echo = (!changed.is_empty()).then(|| now + ECHO);
        (self.problems, self.changed) = (problems, changed);
    }
}

/// What became of one look.
#[derive(Default)]
struct Outcome {
    problems: Vec<String>,
    changed: Vec<(String, bool)>,
    wrote: bool,
}

/// One thing to do.
enum Write {
    Make(String, Value),
    GiveBack(String, String),
}

/// The Node as the owner of an object: it goes with the Node, and never keeps the Node from going.
pub(super) fn owned_by(node: Option<&Object>) -> Value {
    let reference = |node: &Object| {
        json!({"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid,
            "controller": false, "blockOwnerDeletion": false})
    };
    node.map(reference).into_iter().collect()
}

impl Registry {
    /// Makes sure that the prefixes that this node should have are its own, as far as it may; says what is missing.
    pub(super) async fn claim(&mut self, server: &Server, cluster: &Cluster) -> Vec<String> {
        let wanted = match self.wanted() {
            Ok(wanted) => wanted,
            Err(problem) => {
                // News of the Node wake whoever waits for it.
                self.claims = Claims::new();
                return vec![problem];
            }
        };
        self.claims.want((wanted.clone(), self.own_node().map(|node| node.uid.clone())));
        if Instant::now() < self.claims.next || self.awaits_echo() {
            return self.claims.problems.clone();
        }
        let mut outcome = Outcome::default();
        let writes = self.writes(&wanted, cluster, &mut outcome.problems);
        perform(server, writes, &mut outcome).await;
        self.claims.done(outcome, Instant::now());
        self.claims.problems.clone()
    }

    /// What to do about its prefixes.
    fn writes(&self, wanted: &Cidrs, cluster: &Cluster, problems: &mut Vec<String>) -> Vec<Write> {
        let mut writes: Vec<_> = self.stale(wanted).into_iter().map(|(name, uid)| Write::GiveBack(name, uid)).collect();
        for cidr in self.lacking(wanted, cluster, problems) {
            let Some(name) = block_name(cidr) else { continue };
            if self.store.is_going(Kind::Block, &name) {
                problems.push(format!(
                    "WarrenBlock {name} is deleted and kept by finalizers alone: it is made anew when it is gone"
                ));
                continue;
            }
            let block = self.block(&name, cidr);
            writes.push(Write::Make(name, block));
        }
        writes
    }

    /// Whether the watch has still to tell of what was made or given back, and is waited for.
    pub(super) fn awaits_echo(&self) -> bool {
        let is_heard = |(name, there): &(String, bool)| self.store.get(Kind::Block, name).is_some() == *there;
        self.claims.echo.is_some_and(|until| Instant::now() < until) && !self.claims.changed.iter().all(is_heard)
    }

    /// Which prefixes the node should have; or why nobody knows.
    pub(super) fn wanted(&self) -> Result<Cidrs, String> {
        let node = self.publisher.node();
        if self.lacks_node() {
            return Err(format!("there is no Node {node:?}: node.name must be the Node's, see WARREN_NODE_NAME"));
        }
        Ok(self.channels.cidrs.borrow().clone())
    }

    /// Blocks of this node that it should no longer have, by name and UID.
    fn stale(&self, wanted: &Cidrs) -> Vec<(String, String)> {
        let Some(own_node) = self.own_node() else { return Vec::new() };
        let (blocks, _) = self.store.blocks();
        let own = blocks.iter().filter(|block| block.node == *self.publisher.node());
        // What an administrator made is not ours to take away.
        let by_us = own.filter_map(|block| Some((block, block.object.owner.as_deref()?)));
        let stale = by_us.filter(|(block, owner)| {
            *owner != own_node.uid || wanted.rule_out(&block.cidr) || is_beaten(block, &blocks)
        });
        stale.map(|(block, _)| (block.object.name.clone(), block.object.uid.clone())).collect()
    }

    /// The prefixes to claim now.
    fn lacking(&self, wanted: &Cidrs, cluster: &Cluster, problems: &mut Vec<String>) -> Vec<IpNet> {
        let node = self.publisher.node();
        let (blocks, _) = self.store.blocks();
        let own: Vec<_> = blocks.iter().filter(|block| block.node == *node).map(|block| block.cidr).collect();
        let mut taken: Vec<Given> = blocks.iter().map(|block| (block.cidr, Some(block.node.clone()))).collect();
        taken.extend(self.known.owners.iter().map(|(cidr, owner)| (*cidr, Some(owner.clone()))));
        let mut lacking = Vec::new();
        let is_given = matches!(wanted, Cidrs::Given(_));
        let wanted = wanted.remembering(|cidr| self.known.owners.get(cidr) == Some(node));
        for want in
            missing(&own, &wanted, &cluster.networks).into_iter().flat_map(|want| self.remembered(want, cluster))
        {
            match choose(&want, node, &taken, &cluster.networks) {
                // The objects of a CNI give no address outside: its block would be an administrator's grant once it lost its owner.
                Ok(cidr) if is_given && !cluster.networks.iter().any(|network| network.contains(&cidr)) => {
                    problems.push(AllocateError::Outside(cidr).to_string());
                }
                Ok(cidr) => lacking.push(cidr),
                Err(error) => problems.push(error.to_string()),
            }
        }
        lacking
    }

    /// Instead of any prefix those that were this node's before.
    fn remembered(&self, want: Want, cluster: &Cluster) -> Vec<Want> {
        let Want::Any { v6, .. } = want else { return vec![want] };
        let inside = |cidr: &IpNet| cluster.networks.iter().any(|network| network.contains(cidr));
        let own = self
            .known
            .owners
            .iter()
            .filter(|(cidr, owner)| *owner == self.publisher.node() && cidr.addr().is_ipv6() == v6 && inside(cidr));
        let own: Vec<_> = own.map(|(cidr, _)| Want::This(*cidr)).collect();
        if own.is_empty() { vec![want] } else { own }
    }

    fn block(&self, name: &str, cidr: IpNet) -> Value {
        json!({
            "apiVersion": "warren.dev/v1alpha1",
            "kind": "WarrenBlock",
            "metadata": {"name": name, "ownerReferences": owned_by(self.own_node())},
            "spec": {"cidr": cidr, "node": self.publisher.node()},
        })
    }

    /// A Pod has a Node, which is to own what the node writes; there is none of this name.
    pub(super) fn lacks_node(&self) -> bool {
        self.config.kubeconfig.is_none() && self.own_node().is_none()
    }

    pub(super) fn own_node(&self) -> Option<&Object> {
        self.store.get(Kind::Node, self.publisher.node().as_str())
    }
}

/// Two nodes that took prefixes at the same time, one inside the other: the younger one gives way.
fn is_beaten(block: &Block<'_>, blocks: &[Block<'_>]) -> bool {
    let order = |one: &Block<'_>| (one.created(), one.cidr, one.node.clone());
    let overlaps = |other: &Block<'_>| other.cidr.contains(&block.cidr) || block.cidr.contains(&other.cidr);
    blocks.iter().any(|other| other.node != block.node && overlaps(other) && order(other) < order(block))
}

/// One after the other, and what is left when that takes too long the next time.
async fn perform(server: &Server, writes: Vec<Write>, outcome: &mut Outcome) {
    let (enough, count) = (Instant::now() + ENOUGH, writes.len());
    for (at, write) in writes.into_iter().enumerate() {
        if Instant::now() >= enough {
            outcome
                .problems
                .push(format!("the API server is slow: {} still to be written", counted(count - at, "WarrenBlock")));
            return;
        }
        match write {
            Write::Make(name, block) => outcome.note(server.create_block(&block).await, (name, true)),
            Write::GiveBack(name, uid) => {
                outcome.note(server.delete(Kind::Block, &name, &uid).await, (name, false));
            }
        }
    }
}

impl Outcome {
    /// What failed is a problem, what is gone already is none. Whether the way to the server still is one, the watches
    /// find out: a write that fails must not keep this node from hearing.
    fn note(&mut self, done: Result<(), Fault>, (name, there): (String, bool)) {
        // Who came second has only to look what is left.
        self.wrote |= done.as_ref().err().and_then(Fault::code) != Some(409);
        match done {
            Ok(()) => {
                tracing::info!(block = name, "{}", if there { "made" } else { "given back" });
                self.changed.push((name, there));
            }
            Err(fault) if fault.code() == Some(404) && !there => self.changed.push((name, there)),
            Err(fault) => self.problems.push(format!("WarrenBlock {name}: {fault}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_taken_away_each_time_are_made_ever_later_and_what_is_new_at_once() {
        let (mut claims, now) = (Claims::new(), Instant::now());
        let of = |cidr: &str| (Cidrs::Listed([cidr.parse().unwrap()].into()), None);
        claims.want(of("10.1.0.0/24"));
        for seconds in [5, 10, 20, 40, 60, 60] {
            let made = Outcome { changed: vec![("10-1-0-0-24".to_owned(), true)], wrote: true, ..Outcome::default() };
            claims.done(made, now);
            claims.want(of("10.1.0.0/24"));
            let (least, waits) = (Duration::from_secs(seconds), claims.next - now);
            assert!(waits >= least && waits <= least * 3 / 2, "{waits:?}");
            assert_eq!(claims.deadline(now), Some(now + ECHO));
            assert_eq!(claims.deadline(now + ECHO), Some(claims.next), "it is looked at again");
        }
        claims.want(of("10.2.0.0/24"));
        assert!(claims.next <= Instant::now());
        claims.done(Outcome::default(), now);
        assert_eq!(claims.deadline(now), None, "all is well, and nothing is due");
    }
}
