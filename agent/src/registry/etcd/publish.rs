//! What this node publishes: its record under a lease.
//!
//! A record under our name with another key and from another address belongs to somebody else as long as its lease
//! lives: this node then does not publish, says so, and tries again. A host that was installed anew has its old address
//! and takes its record over at once.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, PutOptions, Txn, TxnOp};
use tokio::time::{Instant, timeout};
use warren_overlay::record::{NodeName, Record};

use super::keys::Keys;
use crate::registry::sequence::Sequence;

/// How long the store may take to answer a keepalive.
const ANSWER: Duration = Duration::from_secs(5);
/// When somebody else holds our name, how long until the next try.
const RETRY: Duration = Duration::from_secs(3);

/// The record is of a host that is not this one. A host that has our addresses is ours, whatever key it had: two hosts
/// cannot share an address.
pub(in crate::registry) fn is_another_host(theirs: &Record, ours: &Record) -> bool {
    theirs.public_key != ours.public_key && theirs.addresses.is_disjoint(&ours.addresses)
}

/// Keeps the record in the store.
pub(super) struct Publisher {
    keys: Keys,
    node: NodeName,
    ttl: Duration,
    /// The lease that the record was written with.
    lease: Option<i64>,
    /// The record as it stands in the store.
    published: Option<Record>,
    /// What was asked for last: the record that is to go when the node leaves.
    wanted: Option<Record>,
    next: Instant,
    sequence: Sequence,
}

impl Publisher {
    pub(super) fn new(keys: Keys, node: NodeName, ttl: Duration) -> Self {
        let next = Instant::now() + RETRY;
        Self { keys, node, ttl, lease: None, published: None, wanted: None, next, sequence: Sequence::default() }
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

    /// Another store, or one without our lease: nothing that was agreed on counts any more.
    pub(super) fn forget(&mut self) {
        self.lease = None;
        self.published = None;
    }

    pub(super) fn has_lease(&self) -> bool {
        self.lease.is_some()
    }

    /// Nothing is published yet: try again soon.
    pub(super) fn postpone(&mut self) {
        self.next = Instant::now() + RETRY;
    }

    /// When [`Publisher::keep_alive`] is due, or another try to publish.
    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    /// Publishes, if that is not done; a sentence when somebody else holds the name.
    pub(super) async fn publish(&mut self, client: &mut Client, record: &Record) -> Result<Option<String>, Error> {
        if self.lease.is_some() && self.published.as_ref() == Some(record) {
            return Ok(None);
        }
        let key = self.keys.node(&self.node);
        let existing = client.get(key.clone(), None).await?;
        let (revision, theirs) = match existing.kvs().first() {
            Some(value) => {
                self.sequence.outdo(value.value());
                (value.mod_revision(), Record::parse(value.value()).ok())
            }
            None => (0, None),
        };
        if theirs.is_some_and(|theirs| is_another_host(&theirs, record)) {
            self.next = Instant::now() + RETRY;
            return Ok(Some(format!(
                "the name {} is published with another key from another address: another host uses it, or this one moved \
                 and lost its key and the old record lives until its lease ends; give the other host another name, or wait",
                self.node
            )));
        }
        let lease = self.lease(client).await?;
        let put = TxnOp::put(key.clone(), self.sequence.stamp(record), Some(PutOptions::new().with_lease(lease)));
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
        if !client.txn(Txn::new().when([unchanged]).and_then([put])).await?.succeeded() {
            self.next = Instant::now() + RETRY;
            return Ok(Some("the record changed while it was written; trying again".to_owned()));
        }
        self.published = Some(record.clone());
        Ok(None)
    }

    async fn lease(&mut self, client: &mut Client) -> Result<i64, Error> {
        if let Some(lease) = self.lease {
            return Ok(lease);
        }
        let ttl = i64::try_from(self.ttl.as_secs()).unwrap_or(60);
        let lease = client.lease_grant(ttl, None).await?.id();
        self.lease = Some(lease);
        self.schedule();
        Ok(lease)
    }

    /// A third of the lease, with jitter.
    fn schedule(&mut self) {
        let third = self.ttl / 3;
        self.next = Instant::now() + third / 2 + super::jitter(third);
    }

    /// Keeps the lease alive; false when it is lost, or the record is no longer under it.
    pub(super) async fn keep_alive(&mut self, client: &mut Client) -> Result<bool, Error> {
        self.schedule();
        let Some(lease) = self.lease else { return Ok(false) };
        // A stream of its own each time: one that outlives a connection or a token only fails later.
        match timeout(ANSWER, client.lease_keep_alive(lease)).await {
            Ok(Ok(_)) if self.is_there(client, lease).await? => return Ok(true),
            Ok(Err(error)) if !matches!(error, Error::LeaseKeepAliveError(_)) => return Err(error),
            _ => {}
        }
        self.forget();
        Ok(false)
    }

    /// Somebody may have deleted or replaced the record while the lease lives.
    async fn is_there(&self, client: &mut Client, lease: i64) -> Result<bool, Error> {
        Ok(client.get(self.keys.node(&self.node), None).await?.kvs().iter().any(|value| value.lease() == lease))
    }

    /// Takes the record back, if it is ours.
    pub(super) async fn withdraw(&mut self, client: &mut Client) -> Result<(), Error> {
        // If whoever asked gives up, it is published again.
        self.published = None;
        let key = self.keys.node(&self.node);
        let found = client.get(key.clone(), None).await?;
        let ours = |value: &&etcd_client::KeyValue| {
            Record::parse(value.value())
                .is_ok_and(|theirs| self.wanted.as_ref().is_some_and(|wanted| wanted.public_key == theirs.public_key))
        };
        if let Some(value) = found.kvs().first().filter(ours) {
            let unchanged = Compare::mod_revision(key.clone(), CompareOp::Equal, value.mod_revision());
            client.txn(Txn::new().when([unchanged]).and_then([TxnOp::delete(key, None)])).await?;
        }
        if let Some(lease) = self.lease.take() {
            // The record is gone; a lease without keys ends by itself.
            let _ = client.lease_revoke(lease).await;
        }
        Ok(())
    }
}
