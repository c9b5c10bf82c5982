//! States of the exchange compared, for tests that try every schedule: whoever has seen a state need not go on from it a
//! second time.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use super::{Exchange, SPACING, State};

impl Exchange {
    /// A number that is equal for two states which do the same from now on, whenever that is; secrets stand in it by the
    /// frames that were made of them.
    pub fn likeness(&self, now: Duration) -> u64 {
        let mut hasher = DefaultHasher::new();
        let (stands, reply): (u8, &[u8]) = match &self.state {
            State::Idle => (0, &[]),
            State::Offered(_) => (1, &[]),
            State::Installing { reply, .. } => (2, reply),
            State::Replied { reply, .. } => (3, reply),
        };
        (stands, reply, &self.offer, self.number, self.generation).hash(&mut hasher);
        (self.terms.boot, self.offer_boot, self.proven, self.peer_boot, self.failures).hash(&mut hasher);
        (self.requests, self.asked).hash(&mut hasher);
        if self.is_busy() {
            let left = |at: Duration| at.saturating_sub(now);
            (left(self.deadline), left(self.resend), self.pause).hash(&mut hasher);
        }
        self.not_before.saturating_sub(now).hash(&mut hasher);
        self.begun.map(|begun| (begun + SPACING).saturating_sub(now)).hash(&mut hasher);
        let completed = self.completed.as_ref();
        completed.map(|completed| (&completed.confirm, &completed.close, completed.generation)).hash(&mut hasher);
        hasher.finish()
    }
}
