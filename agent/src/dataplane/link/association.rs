//! What people see of the associations with one peer: what there is, or what is in the way. It decides nothing.

use std::time::Duration;

use warren_crypto::association::Suite;
use warren_crypto::exchange::{Failure, Standing};

use super::{Link, Ways};

/// What carries data to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Association {
    /// The AEAD.
    pub suite: Suite,
    /// Lanes on which this node sends, of all generations.
    pub lanes: usize,
    /// Of these, by source ports of their own.
    pub own_ports: usize,
    /// The age of the newest keys in use.
    pub age: Duration,
}

/// What keeps data from travelling in associations, where both ends want them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Obstacle {
    /// Nobody asked for any since the last ones ended.
    #[default]
    Unwanted,
    /// They are being agreed on.
    Agreeing,
    /// They are agreed on, and their lanes are tried.
    Trying,
    /// They were agreed on, and their lanes did not arrive.
    Silent,
    /// The peer does not answer, or not to the end.
    Unanswered,
    /// The two ends speak no suite in common.
    NoSuite,
}

impl Link {
    /// What bulk data goes on.
    pub(in crate::dataplane) fn association(&self, now: Duration) -> Option<Association> {
        let newest = self.in_use()?;
        Some(Association {
            suite: newest.suite,
            lanes: self.sending.iter().map(Ways::carrying).sum(),
            own_ports: self.sending.iter().map(Ways::own_ports).sum(),
            age: now.saturating_sub(newest.since),
        })
    }

    /// Why there is nothing to send on, while there is nothing.
    pub(in crate::dataplane) fn obstacle(&self) -> Obstacle {
        match self.exchange.standing() {
            _ if self.silent => Obstacle::Silent,
            _ if self.sends() => Obstacle::Trying,
            Standing::Rest => Obstacle::Unwanted,
            Standing::UnderWay => Obstacle::Agreeing,
            Standing::Failed(Failure::Unanswered) => Obstacle::Unanswered,
            Standing::Failed(Failure::NoSuite) => Obstacle::NoSuite,
        }
    }
}
