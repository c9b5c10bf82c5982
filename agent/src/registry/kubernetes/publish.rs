//! What this node publishes: its WarrenNode, by server-side apply. Whoever changes or deletes it finds it put back.
//!
//! It stays when the agent stops: a peer without an agent is silent, not gone. It goes with the Node that owns it, with
//! `warren leave`, and is made anew for a Node that was made anew. Where there is no Node, a record under our name with
//! another key and from another address belongs to somebody else: this node then does not publish, and says so.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use warren_overlay::record::{NodeName, Record};

use super::Fault;
use super::claim::owned_by;
use super::object::{Kind, Object, as_spec};
use super::server::Server;
use super::store::Store;
use crate::registry::etcd::is_another_host;
use crate::registry::sequence::Sequence;

/// The same is not written again sooner than this: the watch tells in the meantime what became of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Keeps the record in the API server.
pub(super) struct Publisher {
    node: NodeName,
    /// What was asked for last: the record that is to go when the node leaves.
    wanted: Option<Record>,
    /// What was written last, and when.
    written: Option<(Record, Instant)>,
    /// The same of the condition.
    reported: Option<((String, String), Instant)>,
    /// When to look again.
    due: Option<Instant>,
    sequence: Sequence,
}

impl Publisher {
    pub(super) fn new(node: NodeName) -> Self {
        Self { node, wanted: None, written: None, reported: None, due: None, sequence: Sequence::default() }
    }

    pub(super) fn node(&self) -> &NodeName {
        &self.node
    }

    /// Whether there ever was something to publish: nothing now means that the node leaves.
    pub(super) fn has_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Remembers what is to be in the store, whether that succeeds or not.
    pub(super) fn want(&mut self, record: &Record) {
        if self.wanted.as_ref() != Some(record) {
            self.wanted = Some(record.clone());
        }
    }

    /// When something is to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Publishes, if that is not done; a sentence when it cannot be.
    pub(super) async fn publish(
        &mut self,
        server: &Server,
        store: &Store,
        record: &Record,
    ) -> Result<Option<String>, Fault> {
        self.due = None;
        let node = store.get(Kind::Node, self.node.as_str());
        if let Some(object) = store.get(Kind::Record, self.node.as_str()) {
            self.sequence.outdo(&object.spec);
            if is_of_an_earlier_node(object, node) {
                let deleted = server.delete(Kind::Record, &object.name, &object.uid).await;
                return told(deleted);
            }
            let found = Record::parse(&object.spec);
            if found.as_ref() == Ok(record) && object.owner.as_deref() == node.map(|node| node.uid.as_str()) {
                return Ok(None);
            }
            if node.is_none() && found.is_ok_and(|theirs| is_another_host(&theirs, record)) {
                return Ok(Some(format!(
                    "the name {0} is published with another key from another address: another host uses it, or this one \
                     moved and lost its key; give one of them another name, or `kubectl delete warrennode {0}`",
                    self.node
                )));
            }
        }
        if self.was_written(record) {
            return Ok(None);
        }
        let object = self.object(record, node);
        self.written = Some((record.clone(), Instant::now()));
        told(server.apply_record(&object).await)
    }

    /// This very record, just now; then there is something to look at again.
    fn was_written(&mut self, record: &Record) -> bool {
        let Some((_, at)) = self.written.as_ref().filter(|(written, _)| written == record) else { return false };
        let until = *at + PATIENCE;
        self.due = (Instant::now() < until).then_some(until);
        self.due.is_some()
    }

    fn object(&mut self, record: &Record, node: Option<&Object>) -> Value {
        let stamped = serde_json::from_slice(&self.sequence.stamp(record)).unwrap_or_default();
        json!({
            "apiVersion": "warren.dev/v1alpha1",
            "kind": "WarrenNode",
            "metadata": {"name": self.node, "ownerReferences": owned_by(node)},
            "spec": as_spec(stamped),
        })
    }

    /// Writes the condition `Allocated` when its state or reason changes; never for what else there is to say.
    pub(super) async fn report(&mut self, server: &Server, store: &Store, problems: &[String]) -> Result<(), Fault> {
        let Some(object) = store.get(Kind::Record, self.node.as_str()) else { return Ok(()) };
        let (status, reason) = if problems.is_empty() { ("True", "AllAllocated") } else { ("False", "NotAllocated") };
        let wanted = (status.to_owned(), reason.to_owned());
        let just_now = self.reported.as_ref().is_some_and(|(it, at)| *it == wanted && at.elapsed() < PATIENCE);
        if object.allocated.as_ref() == Some(&wanted) || just_now {
            return Ok(());
        }
        self.reported = Some((wanted, Instant::now()));
        let message: String = problems.join("; ").chars().take(1000).collect();
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({"type": "Allocated", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now});
        match server.apply_status(&json!({"conditions": [condition]})).await {
            Err(fault) if fault.is_refusal() => {
                tracing::warn!(%fault, "the condition of this node's WarrenNode cannot be written");
                Ok(())
            }
            done => done,
        }
    }

    /// Takes the record back, if it is ours.
    pub(super) async fn withdraw(&mut self, server: &Server, store: &Store) -> Result<(), Fault> {
        let Some(object) = store.get(Kind::Record, self.node.as_str()) else { return Ok(()) };
        let ours = Record::parse(&object.spec)
            .is_ok_and(|theirs| self.wanted.as_ref().is_some_and(|wanted| wanted.public_key == theirs.public_key));
        if !ours {
            return Ok(());
        }
        match server.delete(Kind::Record, &object.name, &object.uid).await {
            Err(fault) if matches!(fault.code(), Some(404 | 409)) => Ok(()),
            done => done,
        }
    }
}

/// Owned by a Node of this name that is no more.
fn is_of_an_earlier_node(object: &Object, node: Option<&Object>) -> bool {
    object.owner.as_ref().zip(node).is_some_and(|(owner, node)| *owner != node.uid)
}

/// A refusal as a sentence.
fn told(done: Result<(), Fault>) -> Result<Option<String>, Fault> {
    match done {
        Ok(()) => Ok(None),
        // The watch is about to say so.
        Err(fault) if matches!(fault.code(), Some(404 | 409)) => Ok(None),
        Err(fault) if fault.is_refusal() => Ok(Some(format!("this node's WarrenNode cannot be written: {fault}"))),
        Err(fault) => Err(fault),
    }
}
