//! Every side effect of Warren: configuration, registry, netlink, guard, threads, admin socket, command line.

pub mod admin;
pub mod cidrs;
pub mod cli;
pub mod cluster;
pub mod cni;
pub mod config;
pub mod control;
mod counted;
pub mod dataplane;
pub mod demo;
pub mod gate;
pub mod health;
pub mod host;
pub mod import;
pub mod keyfile;
pub mod log;
pub mod preflight;
pub mod proven;
pub mod registry;
pub mod status;
