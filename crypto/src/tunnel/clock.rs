//! The age of a tunnel, by the system's clock or, in simulations, by the same virtual one that boringtun reads.

use std::time::Duration;

#[cfg(feature = "mock-instant")]
use mock_instant::Instant;
#[cfg(not(feature = "mock-instant"))]
use std::time::Instant;

/// Started with the tunnel.
#[derive(Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
