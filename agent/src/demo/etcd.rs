//! `--registry etcd`: a real etcd on the underlay, and the nodes set up in it as an administrator would.

use std::time::Duration;

use super::Result;
use super::agents::{own, program, write_config};
use super::command::{Running, Service, run};
use super::interrupt::Interrupt;
use super::world::{HUB, OVERLAY, World};

/// How long etcd may take to answer.
const START_LIMIT: Duration = Duration::from_secs(15);

/// Starts etcd, initialises the cluster in it and writes each node's config file.
pub(super) fn start(world: &World, lasting: bool, stop: &Interrupt) -> Result<Service> {
    let (client, peer) = (format!("http://{HUB}:2379"), format!("http://{HUB}:2380"));
    let data = world.folder.join("etcd").display().to_string();
    let cluster = format!("demo={peer}");
    let argv = [
        "etcd",
        "--name",
        "demo",
        "--data-dir",
        &data,
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &cluster,
    ];
    let mut etcd = Service::start("etcd", &world.underlay, &argv, &world.folder.join("etcd.log"), lasting)?;
    let (program, overlay) = (program()?, OVERLAY.to_string());
    let init = [program.as_str(), "cluster", "init", "--endpoints", &client, "--network", &overlay];
    stop.until(START_LIMIT, "etcd does not answer", || {
        etcd.check()?;
        let ended =
            Running::start(Some(&world.underlay), &["etcdctl", "--endpoints", &client, "endpoint", "health"], "")?
                .finish(stop)?;
        Ok(ended.status.success().then_some(()))
    })?;
    run(stop, Some(&world.underlay), &init)?;
    for node in &world.nodes {
        write_config(node, &format!("{}\n[etcd]\nendpoints = [\"{client}\"]\n", own(node)))?;
    }
    Ok(etcd)
}
