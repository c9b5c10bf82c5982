//! The measuring side of Warren: a no-crypto TUN↔UDP forwarder (the ceiling to come close to) and the harness that runs
//! Warren beside its peers in network namespaces.
//!
//! Beside it: a sender and a sink of datagrams, and what can be measured without a kernel.
//!
//! What it never does: take part in the product, touch the host's own network, or leave anything behind.

#![forbid(unsafe_code)]

pub mod cases;
pub mod error;
pub mod flood;
pub mod forwarder;
pub mod interrupt;
pub mod iperf;
pub mod machine;
pub mod memory;
pub mod netns;
pub mod peers;
pub mod ping;
pub mod plan;
pub mod plot;
pub mod process;
pub mod report;
pub mod results;
pub mod rows;
pub mod world;

pub use error::{Error, Result};
