//! The measuring side of Warren: a no-crypto TUN↔UDP forwarder (the ceiling to come close to) and the harness that runs
//! Warren beside its peers in network namespaces.
//!
//! What it never does: take part in the product, touch the host's own network, or leave anything behind.

pub mod forwarder;
