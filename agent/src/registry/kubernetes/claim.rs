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
use crate::registry::etcd::{Given, Want, choose, missing};
use crate::registry::jitter;

/// What could not be claimed is tried again after this.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
/// What was made or given back is left to the watch for this long, and nothing else is made meanwhile.
const ECHO: Duration = Duration::from_secs(3);

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
    /// `None` when blocks were made or given back right now, which the watch has still to tell.
    pub(super) async fn claim(&mut self, server: &Server, cluster: &Cluster) -> Option<Vec<String>> {
        let wanted = match self.wanted() {
            Ok(wanted) => wanted,
            Err(problem) => {
                // News of the Node wake whoever waits for it.
                self.unclaimed = (Instant::now(), Vec::new());
                return Some(vec![problem]);
            }
        };
        let now = Instant::now();
        if self.echo.is_some_and(|until| now < until) && !self.is_heard() {
            return None;
        }
        self.echo = None;
        let (again, problems) = &self.unclaimed;
        if !problems.is_empty() && now < *again {
            return Some(problems.clone());
        }
        let (mut problems, mut changed) = (Vec::new(), Vec::new());
        for (name, uid) in self.stale(&wanted) {
            note(server.delete(Kind::Block, &name, &uid).await, (name, false), &mut problems, &mut changed);
        }
        for cidr in self.lacking(&wanted, cluster, &mut problems) {
            let Some(name) = block_name(cidr) else { continue };
            let made = server.create_block(&self.block(&name, cidr)).await;
            note(made, (name, true), &mut problems, &mut changed);
        }
        self.unclaimed = (Instant::now() + AGAIN + jitter(AGAIN), problems.clone());
        self.echo = (!changed.is_empty()).then(|| Instant::now() + ECHO);
        self.changed = changed;
        self.changed.is_empty().then_some(problems)
    }

    /// Whether the watch has told of everything that was made or given back.
    fn is_heard(&self) -> bool {
        self.changed.iter().all(|(name, there)| self.store.get(Kind::Block, name).is_some() == *there)
    }

    /// Which prefixes the node should have; or why nobody knows.
    fn wanted(&self) -> Result<Cidrs, String> {
        let node = self.publisher.node();
        if self.lacks_node() {
            return Err(format!("there is no Node {node:?}: node.name must be the Node's, see WARREN_NODE_NAME"));
        }
        if self.cidrs != Cidrs::Kubernetes {
            return Ok(self.cidrs.clone());
        }
        match self.store.pod_cidrs(node) {
            Some(given) if !given.is_empty() => Ok(Cidrs::Listed(given.into_iter().collect())),
            _ => Err(format!(
                "node.cidrs = \"kubernetes\", but the Node {node:?} has no spec.podCIDRs: this cluster gives none, or not yet; \
                 list them in node.cidrs, or use overlay.mode = \"nodes\""
            )),
        }
    }

    /// Blocks of this node that it should no longer have, by name and UID.
    fn stale(&self, wanted: &Cidrs) -> Vec<(String, String)> {
        let Some(own_node) = self.own_node() else { return Vec::new() };
        let (blocks, _) = self.store.blocks();
        let own = blocks.iter().filter(|block| block.node == *self.publisher.node());
        // What an administrator made is not ours to take away.
        let by_us = own.filter_map(|block| Some((block, block.object.owner.as_deref()?)));
        let stale = by_us.filter(|(block, owner)| {
            let elsewhere = self.cidrs == Cidrs::Kubernetes
                && matches!(wanted, Cidrs::Listed(given) if !given.contains(&block.cidr));
            *owner != own_node.uid || elsewhere || is_beaten(block, &blocks)
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
        for want in missing(&own, wanted, &cluster.networks).into_iter().flat_map(|want| self.remembered(want, cluster))
        {
            match choose(&want, node, &taken, &cluster.networks) {
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

/// What failed is a problem, what is gone already is none. Whether the way to the server still is one, the watches find
/// out: a write that fails must not keep this node from hearing.
fn note(
    done: Result<(), Fault>,
    (name, there): (String, bool),
    problems: &mut Vec<String>,
    changed: &mut Vec<(String, bool)>,
) {
    match done {
        Ok(()) => {
            tracing::info!(block = name, "{}", if there { "made" } else { "given back" });
            changed.push((name, there));
        }
        Err(fault) if fault.code() == Some(404) && !there => changed.push((name, there)),
        Err(fault) => problems.push(format!("WarrenBlock {name}: {fault}")),
    }
}
