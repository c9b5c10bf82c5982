//! The registry of Kubernetes: over real HTTP against the lab's own API server and against one that others wrote, and its
//! manifests against the agent.
#![cfg(feature = "kubernetes")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by it")]

mod admission;
mod enforce;
mod events;
mod kmock;
mod manifests;
mod outage;
mod patience;
mod policy;
mod prefixes;
mod registry;
mod rules;
mod space;
mod stranger;
