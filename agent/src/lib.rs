//! Every side effect of Warren: configuration, registry, netlink, guard, threads, admin socket, command line.

pub mod cluster;
pub mod config;
pub mod demo;
pub mod dataplane;
pub mod host;
pub mod registry;
pub mod status;
pub mod admin;
pub mod cli;
pub mod control;
pub mod keyfile;
pub mod log;
pub mod preflight;
