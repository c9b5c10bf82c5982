//! The lab of Warren: nodes and Pods as network namespaces of this machine, a real etcd, real agents, and a sniffer that
//! listens on the underlay from before the first agent starts.
//!
//! Everything here needs root and fails a test by panicking. Nothing here fakes a component of Warren: agents are the
//! binary that operators run, told apart from production only by the paths in their config files. Nothing outlives a
//! test: owners clean up when dropped, a signal cleans up the whole process, and every new lab first removes what
//! processes left that were killed.
//!
//! ```text
//!                     hub: bridge br0, forwards like a routed fabric, runs etcd, carries the sniffer
//!        10.77.0.254 ────┬──────────────────────────┬──────────────────────────┬─────
//!        fd77::fe        │ 10.77.0.1  fd77::1       │ 10.77.0.2  fd77::2       │ …
//!                     ┌──┴───┐                   ┌──┴───┐                   ┌──┴───┐
//!                     │node1 │ default via hub   │node2 │                   │node3 │
//!                     └┬────┬┘                   └┬────┬┘                   └┬────┬┘
//!             10.42.1.10    10.42.1.11    10.42.2.10    …                     …          Pods, dual stack
//! ```
//!
//! The hub knows a route to every node's Pods. Without an agent Pods of different nodes therefore reach each other in
//! clear: that is the control which shows that the sniffer would see a leak.

pub mod agent;
pub mod api_server;
pub mod certificates;
pub mod cni;
pub mod command;
pub mod container;
pub mod control;
pub mod datagram;
pub mod dump;
pub mod etcd;
pub mod etcd_mesh;
pub mod eventually;
pub mod flood;
pub mod flows;
pub mod fuzz;
pub mod http;
pub mod iperf;
pub mod lab;
pub mod leftovers;
pub mod load;
pub mod long;
pub mod manifests;
pub mod mesh;
pub mod mss;
pub mod namespace;
pub mod node;
pub mod openmetrics;
pub mod ping;
pub mod pod;
pub mod raw;
pub mod redirect;
pub mod relay;
pub mod removal;
pub mod runtime;
pub mod secret;
pub mod settings;
pub mod sniffer;
pub mod status;
pub mod stock;
pub mod stream;
pub mod tcp;
pub mod volume;
pub mod wire;
pub mod witness;

pub use agent::Agent;
pub use api_server::ApiServer;
pub use container::Container;
pub use control::{assert_seen_without_warren, between};
pub use etcd::Etcd;
pub use etcd_mesh::EtcdMesh;
pub use eventually::{eventually, holds_for};
pub use flood::Flood;
pub use lab::{Family, Lab, Plan, Wiring};
pub use mesh::{static_mesh, static_mesh_with, static_settings};
pub use node::Node;
pub use ping::ping;
pub use pod::Pod;
pub use removal::Removal;
pub use runtime::Runtime;
pub use settings::Settings;
pub use sniffer::{CANARY, Sniffer};
pub use status::Status;
pub use volume::Volume;
