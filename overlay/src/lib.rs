//! Records, mesh, prefix routes, packet views, offload and the forwarder.
//!
//! Pure: no IO, no clock, no randomness, no threads, no async. `now`, random bytes and buffers come in as arguments,
//! facts go out as return values.

pub mod checksum;
pub mod delta;
pub mod drops;
pub mod forward;
pub mod frame;
pub mod hold;
pub mod icmp;
pub mod mesh;
pub mod offload;
pub mod packet;
pub mod record;
pub mod routes;
pub mod settle;
