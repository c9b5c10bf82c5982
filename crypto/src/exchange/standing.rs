//! Where the exchanges with a peer stand, for people. It decides nothing.

use super::Exchange;

/// A peer that lives begins before it is asked once more than this: six seconds at least.
const REQUESTS: u32 = 2;

/// Where the exchanges with a peer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// None is under way, and the last one did not fail.
    Rest,
    /// One is under way, or the peer was asked to begin.
    UnderWay,
    /// None was complete since one failed, whatever is tried now.
    Failed(Failure),
}

/// How an exchange fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer did not answer, or not to the end.
    Unanswered,
    /// The two ends speak no suite in common.
    NoSuite,
}

impl Exchange {
    /// Where the exchanges stand.
    pub fn standing(&self) -> Standing {
        match self.failure {
            Some(failure) => Standing::Failed(failure),
            None if self.is_busy() => Standing::UnderWay,
            None if self.requests > REQUESTS => Standing::Failed(Failure::Unanswered),
            None if self.requests > 0 => Standing::UnderWay,
            None => Standing::Rest,
        }
    }
}
