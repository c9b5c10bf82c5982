//! What is measured inside this process, without a kernel between: the data path's own work, and the control plane's.

pub mod agreement;
pub mod cluster;
pub mod pipeline;
pub mod reconcile;

use warren_crypto::association::Suite;

use crate::cases::{Case, Value};

/// The names of what a case is about.
pub(crate) fn peers(case: Case) -> &'static [&'static str] {
    match case {
        Case::Pipeline => &["warren-aes-256-gcm", "warren-chacha20-poly1305", "warren-off"],
        _ => &["warren"],
    }
}

/// The values of one of them.
pub(crate) fn measure(case: Case, of: &str, seconds: f64) -> Vec<Value> {
    match case {
        Case::Pipeline => pipeline::measure(suite(of), seconds),
        Case::Handshakes => vec![Value { metric: "per_s", value: agreement::handshakes_per_second(seconds) }],
        Case::Exchanges => vec![Value { metric: "per_s", value: agreement::exchanges_per_second(seconds) }],
        _ => reconcile::measure(),
    }
}

fn suite(of: &str) -> Option<Suite> {
    Suite::ALL.into_iter().find(|suite| of.ends_with(suite.name()))
}
