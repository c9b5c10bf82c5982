//! What this node publishes: its WarrenNode, by server-side apply. Whoever changes or deletes it finds it put back.
//!
//! It stays when the agent stops: a peer without an agent is silent, not gone. It goes with the Node that owns it, with
//! `warren leave`, and is made anew for a Node that was made anew. Where there is no Node, a record under our name with
//! another key and from another address belongs to somebody else: this node then does not publish, and says so. Nor does
//! it write into an object that is deleted and not yet gone.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use warren_overlay::record::{NodeName, Record};

use super::Fault;
use super::claim::owned_by;
use super::object::{Kind, Object, as_spec};
use super::server::{Applied, Server};
use super::store::Store;
use super::written::{PAUSE, Written};
use crate::registry::etcd::is_another_host;
use crate::registry::jitter;
use crate::registry::sequence::Sequence;

/// Before the record is taken back again, where that failed: whoever leaves does not wait for long.
const LEAVING: Duration = Duration::from_secs(1);
/// A write that was given up is not done any more after this: with whoever asked, the server's request ends.
const LATE: Duration = Duration::from_secs(3);
/// What a policy did not let pass may pass later: somebody mended the policy, or the Node.
const REFUSED: Duration = Duration::from_secs(600);

/// Keeps the record in the API server.
pub(super) struct Publisher {
    node: NodeName,
    /// What was asked for last: the record that is to go when the node leaves.
    wanted: Option<Record>,
    /// What was written last, and for which Node.
    written: Option<Written<(Record, Option<String>)>>,
    /// The same record has the same number, however often it is written.
    stamped: Option<(Record, u64, Value)>,
    /// UID of what was written and not heard of yet.
    unheard: Option<String>,
    /// Until when a write of which nobody said what became of it may still be done.
    unanswered: Option<Instant>,
    /// UID of what was taken away last.
    removed: Option<Written<String>>,
    /// The condition that was written last.
    reported: Option<Written<(String, String)>>,
    /// What failed last, and how long nothing is written then.
    failed: Option<(String, Instant)>,
    /// The record that a policy did not let pass, and until when it is not tried again.
    refused: Option<(Record, Instant)>,
    /// Why the record could not be taken back, and how long that is not tried again.
    stuck: Option<(String, Instant)>,
    /// After a failure; doubled with each, with jitter.
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
            stamped: None,
            unheard: None,
            unanswered: None,
            removed: None,
            reported: None,
            failed: None,
            refused: None,
            stuck: None,
            pause: PAUSE.0,
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

    /// All is looked at now.
    pub(super) fn look(&mut self) {
        self.due = None;
    }

    /// When something is to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Publishes, if that is not done; a sentence when it cannot be. What fails is tried again after a pause of its own; where a
    /// policy does not let all pass, `least` goes instead: better than no record.
    pub(super) async fn publish(
        &mut self,
        server: &Server,
        store: &Store,
        all: &Record,
        least: &Record,
    ) -> Option<String> {
        let now = Instant::now();
        let is_refused = self.refused.as_ref().is_some_and(|(record, until)| record == all && now < *until);
        let record = if is_refused { least } else { all };
        if store.is_going(Kind::Record, self.node.as_str()) {
            return Some(self.is_going());
        }
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
        let what = (record.clone(), node.map(|node| node.uid.clone()));
        let reached = store.reached(Kind::Record);
        if let Some(until) = self.written.as_ref().and_then(|written| written.until(&what, reached, now)) {
            self.due = Some(until);
            return None;
        }
        if let Some(failed) = self.has_failed() {
            return Some(failed);
        }
        let object = self.object(record, node);
        match server.apply_record(&object).await {
            Ok(applied) => {
                self.wrote(what, applied);
                None
            }
            Err(fault) => {
                if fault.code() == Some(422) {
                    self.refused = Some((all.clone(), now + REFUSED));
                }
                Some(self.fails(&fault))
            }
        }
    }

    fn wrote(&mut self, what: (Record, Option<String>), Applied { uid, version }: Applied) {
        let now = Instant::now();
        let written = Written::new(what.clone(), version, self.written.as_ref(), now);
        self.due = written.until(&what, None, now);
        (self.written, self.unheard) = (Some(written), uid);
        (self.failed, self.pause) = (None, PAUSE.0);
    }

    /// A record that belonged to another Node of this name.
    async fn remove(&mut self, server: &Server, object: &Object) -> Option<String> {
        let now = Instant::now();
        if let Some(until) = self.removed.as_ref().and_then(|removed| removed.until(&object.uid, None, now)) {
            // Not again before the watch tells of it.
            self.due = Some(until);
            return None;
        }
        if let Some(failed) = self.has_failed() {
            return Some(failed);
        }
        match server.delete(Kind::Record, &object.name, &object.uid).await {
            Err(fault) if !is_gone(&fault) => Some(self.fails(&fault)),
            _ => {
                let removed = Written::new(object.uid.clone(), None, None, now);
                (self.failed, self.due) = (None, removed.until(&object.uid, None, now));
                self.removed = Some(removed);
                None
            }
        }
    }

    fn is_going(&self) -> String {
        format!(
            "this node's WarrenNode is deleted and kept by finalizers alone: its peers take it for gone, and it is published \
             again when it is really gone; see `kubectl get warrennode {} -o yaml`",
            self.node
        )
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

    fn fails(&mut self, fault: &Fault) -> String {
        if !matches!(fault.code(), Some(400..=499)) {
            self.unanswered = Some(Instant::now() + LATE);
        }
        let until = Instant::now() + self.pause + jitter(self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.due = Some(until);
        let said = format!("this node's WarrenNode cannot be written: {fault}");
        self.failed = Some((said.clone(), until));
        said
    }

    fn object(&mut self, record: &Record, node: Option<&Object>) -> Value {
        let spec = self.spec(record);
        json!({
            "apiVersion": "warren.dev/v1alpha1",
            "kind": "WarrenNode",
            "metadata": {"name": self.node, "ownerReferences": owned_by(node)},
            "spec": spec,
        })
    }

    fn spec(&mut self, record: &Record) -> Value {
        let number = self.sequence.last();
        if let Some((_, _, spec)) = self.stamped.as_ref().filter(|(of, at, _)| of == record && *at == number) {
            return spec.clone();
        }
        let spec = as_spec(serde_json::from_slice(&self.sequence.stamp(record)).unwrap_or_default());
        self.stamped = Some((record.clone(), self.sequence.last(), spec.clone()));
        spec
    }

    /// Writes the condition `Allocated` when its state or reason changes; never for what else there is to say. That it
    /// cannot be written harms nobody.
    pub(super) async fn report(&mut self, server: &Server, store: &Store, problems: &[String]) {
        let Some(object) = store.get(Kind::Record, self.node.as_str()) else { return };
        let (status, reason) = if problems.is_empty() { ("True", "AllAllocated") } else { ("False", "NotAllocated") };
        let wanted = (status.to_owned(), reason.to_owned());
        if object.allocated.as_ref() == Some(&wanted) {
            return;
        }
        let (reported, reached) = (self.reported.as_ref(), store.reached(Kind::Record));
        if let Some(until) = reported.and_then(|reported| reported.until(&wanted, reached, Instant::now())) {
            return self.look_at(until);
        }
        let message: String = problems.join("; ").chars().take(1000).collect();
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({"type": "Allocated", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now});
        let done = server.apply_status(&json!({"conditions": [condition]})).await;
        if let Err(fault) = &done {
            tracing::warn!(%fault, "the condition of this node's WarrenNode cannot be written");
        }
        let (version, now) = (done.ok().and_then(|applied| applied.version), Instant::now());
        let reported = Written::new(wanted.clone(), version, self.reported.as_ref(), now);
        reported.until(&wanted, None, now).into_iter().for_each(|until| self.look_at(until));
        self.reported = Some(reported);
    }

    fn look_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Takes the record back, if it is ours, also one that was written and not heard of yet; a sentence when that failed.
    pub(super) async fn withdraw(&mut self, server: &Server, store: &Store) -> Option<String> {
        if let Some((said, until)) = self.stuck.clone().filter(|(_, until)| Instant::now() < *until) {
            self.look_at(until);
            return Some(said);
        }
        // If whoever asked gives up, it is published again at once.
        self.written = None;
        let Err(why) = self.take_back(server, store).await else {
            (self.unheard, self.unanswered) = (None, None);
            return None;
        };
        let until = Instant::now() + LEAVING;
        self.look_at(until);
        let said = format!("this node's WarrenNode cannot be withdrawn: {why}; trying again");
        self.stuck = Some((said.clone(), until));
        Some(said)
    }

    /// Deletes it, if it is there; why it may be there all the same, or be again.
    async fn take_back(&self, server: &Server, store: &Store) -> Result<(), String> {
        let found = self.found(server, store).await.map_err(|fault| fault.to_string())?;
        if let Some(uid) = found
            && let Err(fault) = server.delete(Kind::Record, self.node.as_str(), &uid).await
            && !is_gone(&fault)
        {
            return Err(fault.to_string());
        }
        match self.unanswered.filter(|until| Instant::now() < *until) {
            Some(_) => Err("the API server did not answer when it was written, and may still do that".to_owned()),
            None => Ok(()),
        }
    }

    /// UID of the record, if it is ours. What the watch told is of no use where it is not known what was written.
    async fn found(&self, server: &Server, store: &Store) -> Result<Option<String>, Fault> {
        let ours = |object: &Object| self.is_ours(object).then(|| object.uid.clone());
        if self.unanswered.is_some() {
            return Ok(server.own_record().await?.as_ref().and_then(ours));
        }
        Ok(store.get(Kind::Record, self.node.as_str()).map_or_else(|| self.unheard.clone(), ours))
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
