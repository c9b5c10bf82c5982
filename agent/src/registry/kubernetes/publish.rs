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
use crate::registry::jitter;
use crate::registry::sequence::Sequence;

/// The same is not written again sooner than this: the watch tells in the meantime what became of it. After a failure
/// doubled up to the last, each with jitter.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));

/// Keeps the record in the API server.
pub(super) struct Publisher {
    node: NodeName,
    /// What was asked for last: the record that is to go when the node leaves.
    wanted: Option<Record>,
    /// What was written last, and until when it is left to the watch.
    written: Option<(Record, Instant)>,
    /// UID of what was written and not heard of yet.
    unheard: Option<String>,
    /// The same of the condition.
    reported: Option<((String, String), Instant)>,
    /// What failed last, and how long nothing is written then.
    failed: Option<(String, Instant)>,
    pause: Duration,
    /// When to look again.
    due: Option<Instant>,
    sequence: Sequence,
}

impl Publisher {
    pub(super) fn new(node: NodeName) -> Self {
        Self {
            node,
            wanted: None,
            written: None,
            unheard: None,
            reported: None,
            failed: None,
            pause: PATIENCE.0,
            due: None,
            sequence: Sequence::default(),
        }
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

    /// Publishes, if that is not done; a sentence when it cannot be. What fails is tried again after a pause of its own.
    pub(super) async fn publish(&mut self, server: &Server, store: &Store, record: &Record) -> Option<String> {
        self.due = None;
        let node = store.get(Kind::Node, self.node.as_str());
        if let Some(object) = store.get(Kind::Record, self.node.as_str()) {
            self.unheard = None;
            self.sequence.outdo(&object.spec);
            if is_of_an_earlier_node(object, node) {
                return self.remove(server, object).await;
            }
            let found = Record::parse(&object.spec);
            if found.as_ref() == Ok(record) && object.owner.as_deref() == node.map(|node| node.uid.as_str()) {
                return None;
            }
            if node.is_none() && found.is_ok_and(|theirs| is_another_host(&theirs, record)) {
                return Some(self.is_anothers());
            }
        }
        if self.was_written(record) {
            return None;
        }
        if let Some(failed) = self.has_failed() {
            return Some(failed);
        }
        let object = self.object(record, node);
        match server.apply_record(&object).await {
            Ok(uid) => {
                self.written = Some((record.clone(), Instant::now() + PATIENCE.0));
                self.unheard = uid;
                self.wrote();
                None
            }
            Err(fault) => Some(self.fails(&fault)),
        }
    }

    /// A record that belonged to another Node of this name.
    async fn remove(&mut self, server: &Server, object: &Object) -> Option<String> {
        if let Some(failed) = self.has_failed() {
            return Some(failed);
        }
        match server.delete(Kind::Record, &object.name, &object.uid).await {
            Err(fault) if !is_gone(&fault) => Some(self.fails(&fault)),
            _ => {
                // Not again before the watch tells of it.
                self.failed = None;
                self.due = Some(Instant::now() + PATIENCE.0);
                None
            }
        }
    }

    fn is_anothers(&self) -> String {
        format!(
            "the name {0} is published with another key from another address: another host uses it, or this one \
             moved and lost its key; give one of them another name, or `kubectl delete warrennode {0}`",
            self.node
        )
    }

    /// What failed just now, and is not to be tried yet.
    fn has_failed(&mut self) -> Option<String> {
        let (said, until) = self.failed.clone().filter(|(_, until)| Instant::now() < *until)?;
        self.due = Some(until);
        Some(said)
    }

    fn wrote(&mut self) {
        (self.failed, self.pause) = (None, PATIENCE.0);
        self.due = self.written.as_ref().map(|(_, until)| *until);
    }

    fn fails(&mut self, fault: &Fault) -> String {
        let until = Instant::now() + self.pause + jitter(self.pause);
        self.pause = (self.pause * 2).min(PATIENCE.1);
        self.due = Some(until);
        let said = format!("this node's WarrenNode cannot be written: {fault}");
        self.failed = Some((said.clone(), until));
        said
    }

    /// This very record, just now; then there is something to look at again.
    fn was_written(&mut self, record: &Record) -> bool {
        let now = Instant::now();
        let until = self.written.as_ref().filter(|(written, until)| written == record && now < *until);
        self.due = until.map(|(_, until)| *until);
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

    /// Writes the condition `Allocated` when its state or reason changes; never for what else there is to say. That it
    /// cannot be written harms nobody.
    pub(super) async fn report(&mut self, server: &Server, store: &Store, problems: &[String]) {
        let Some(object) = store.get(Kind::Record, self.node.as_str()) else { return };
        let (status, reason) = if problems.is_empty() { ("True", "AllAllocated") } else { ("False", "NotAllocated") };
        let wanted = (status.to_owned(), reason.to_owned());
        let just_now = self.reported.as_ref().is_some_and(|(it, until)| *it == wanted && Instant::now() < *until);
        if object.allocated.as_ref() == Some(&wanted) || just_now {
            return;
        }
        let message: String = problems.join("; ").chars().take(1000).collect();
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({"type": "Allocated", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now});
        let done = server.apply_status(&json!({"conditions": [condition]})).await;
        let pause = if done.is_ok() { PATIENCE.0 } else { PATIENCE.1 };
        let until = Instant::now() + pause;
        self.reported = Some((wanted, until));
        if let Err(fault) = done {
            tracing::warn!(%fault, "the condition of this node's WarrenNode cannot be written");
            self.due = Some(self.due.map_or(until, |due| due.min(until)));
        }
    }

    /// Takes the record back, if it is ours; also one that was written and not heard of yet.
    pub(super) async fn withdraw(&mut self, server: &Server, store: &Store) -> Result<(), Fault> {
        let name = self.node.as_str();
        let uid = match store.get(Kind::Record, name) {
            Some(object) if self.is_ours(object) => Some(object.uid.clone()),
            Some(_) => None,
            None => self.unheard.clone(),
        };
        let Some(uid) = uid else { return Ok(()) };
        match server.delete(Kind::Record, name, &uid).await {
            Err(fault) if is_gone(&fault) => Ok(()),
            done => done,
        }
    }

    fn is_ours(&self, object: &Object) -> bool {
        let key = self.wanted.as_ref().map(|wanted| wanted.public_key);
        Record::parse(&object.spec).is_ok_and(|theirs| Some(theirs.public_key) == key)
    }
}

/// Owned by a Node of this name that is no more.
fn is_of_an_earlier_node(object: &Object, node: Option<&Object>) -> bool {
    object.owner.as_ref().zip(node).is_some_and(|(owner, node)| *owner != node.uid)
}

/// The object to delete is not there any more; 409: there is another of its name.
fn is_gone(fault: &Fault) -> bool {
    matches!(fault.code(), Some(404 | 409))
}
