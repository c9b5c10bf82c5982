//! Why a verb failed, for the administrator: what was attempted, what etcd says to it and where, and what to do.

use etcd_client::Error;

use crate::registry::etcd::{AllocateError, explain};

/// Why a verb failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The store's doing; what was attempted, in words.
    Store(String, Error),
    /// Anything else, said already.
    Told(String),
}

impl Fault {
    /// For errors of the store, after what was attempted.
    pub(super) fn of(attempt: impl Into<String>) -> impl FnOnce(Error) -> Self {
        let attempt = attempt.into();
        |error| Self::Store(attempt, error)
    }

    /// For errors of allocations, after what was attempted.
    pub(super) fn of_allocation(attempt: impl Into<String>) -> impl FnOnce(AllocateError) -> Self {
        let attempt = attempt.into();
        |error| match error {
            AllocateError::Store(error) => Self::Store(attempt, error),
            other => Self::Told(format!("{attempt}: {other}")),
        }
    }

    /// One sentence; `endpoints` are where the store was asked.
    pub(super) fn tell(self, endpoints: &[String]) -> String {
        match self {
            Self::Told(what) => what,
            Self::Store(attempt, error) => {
                let (why, endpoints) = (explain(&error), endpoints.join(", "));
                format!("{attempt}: etcd at {endpoints}: {why}{}", remedy(&why))
            }
        }
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Told(what)
    }
}

/// What an agent cannot do about it but an administrator can.
fn remedy(why: &str) -> &'static str {
    match why.contains("permission denied") {
        true => "; come as its administrator: --username root, or a client certificate with the common name root",
        false => "",
    }
}
