//! The agents: their config files, their processes, and what they say of themselves.

use std::time::Duration;

use warren_crypto::PrivateKey;

use super::command::{Service, run};
use super::interrupt::Interrupt;
use super::rivals::secret_file;
use super::world::{Node, OVERLAY, World};
use super::{Error, Result};
use crate::status::Status;

/// How long the agents may take to know their peers and hold their hosts.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How many last lines of an agent's log an error quotes.
const LOG_LINES: usize = 8;

/// The running agents, ended when this is dropped.
pub(super) struct Agents {
    services: Vec<Service>,
    program: String,
}

impl Agents {
    /// Starts `warren up` on every node, out of the config files there.
    pub(super) fn start(world: &World, lasting: bool) -> Result<Self> {
        let program = program()?;
        let services = world.nodes.iter().map(|node| {
            let argv = [program.as_str(), "up", "--config", &node.config()];
            Service::start(&format!("the agent of {}", node.name), &node.namespace, &argv, &log(node), lasting)
        });
        let services = services.collect::<Result<_>>()?;
        Ok(Self { services, program })
    }

    /// Waits until every agent knows all others and its host is as it should be; what each says of itself.
    pub(super) fn ready(&mut self, world: &World, stop: &Interrupt) -> Result<Vec<Status>> {
        let mut problems = String::new();
        let ready = stop.until(READY_LIMIT, "the agents do not become ready", || {
            self.services.iter_mut().try_for_each(Service::check)?;
            let all: Vec<Status> = world.nodes.iter().filter_map(|node| self.status(node, stop)).collect();
            problems = all.iter().flat_map(|status| &status.problems).map(|problem| format!("\n  {problem}")).collect();
            let good = all.len() == world.nodes.len() && all.iter().all(|status| is_ready(status, world));
            Ok(good.then_some(all))
        });
        ready.map_err(|error| match error {
            Error::Failed(text) => Error::new(format!("{text}{problems}\n{}", logs(world))),
            Error::Interrupted => error,
        })
    }

    /// What `warren status -o json` says on a node; nothing while its agent does not answer.
    fn status(&self, node: &Node, stop: &Interrupt) -> Option<Status> {
        let said = super::command::Running::start(
            Some(&node.namespace),
            &[&self.program, "status", "--config", &node.config(), "-o", "json"],
            "",
        );
        serde_json::from_str(&said.ok()?.finish(stop).ok()?.stdout).ok()
    }

    /// Ends all of them at once, without a chance to tidy up: what then holds is the guard alone.
    pub(super) fn kill(mut self) {
        for service in self.services.drain(..) {
            service.kill();
        }
    }

    /// Lets them run on after the demo.
    pub(super) fn release(mut self) {
        for service in self.services.drain(..) {
            service.release();
        }
    }
}

fn is_ready(status: &Status, world: &World) -> bool {
    status.ready && status.peers.len() == world.nodes.len() - 1
}

/// Removes every trace of the agents from their nodes.
pub(super) fn cleanup(world: &World, stop: &Interrupt) -> Result<()> {
    let program = program()?;
    for node in &world.nodes {
        run(stop, Some(&node.namespace), &[&program, "cleanup", "--config", &node.config()])?;
    }
    Ok(())
}

/// Writes each node's key and a config file that names the others.
pub(super) fn write_static(world: &World) -> Result<()> {
    let keys: Vec<PrivateKey> = world.nodes.iter().map(|_| PrivateKey::generate()).collect();
    for (node, key) in world.nodes.iter().zip(&keys) {
        secret_file(&node.folder.join("private.key"), key)?;
        let others = world.nodes.iter().zip(&keys).filter(|(other, _)| other.number != node.number);
        let peers: String = others.map(|(other, key)| peer(other, key)).collect();
        write_config(node, &format!("{}{peers}", own(node)))?;
    }
    Ok(())
}

/// Writes one node's config file.
pub(super) fn write_config(node: &Node, text: &str) -> Result<()> {
    let file = node.config();
    std::fs::write(&file, text).map_err(|error| Error::new(format!("cannot write {file}: {error}")))
}

/// The part of a config file that every registry needs.
pub(super) fn own(node: &Node) -> String {
    let Node { name, address, cidr, folder, .. } = node;
    let folder = folder.display();
    format!(
        "[node]\nname = \"{name}\"\naddresses = [\"{address}\"]\ncidrs = [\"{cidr}\"]\n\
         state_dir = \"{folder}\"\nrun_dir = \"{folder}/run\"\ncni_dir = \"{folder}/cni\"\n\n[overlay]\nnetworks = [\"{OVERLAY}\"]\n"
    )
}

fn peer(node: &Node, key: &PrivateKey) -> String {
    let Node { name, address, cidr, .. } = node;
    let key = key.public_key();
    format!(
        "\n[[peer]]\nname = \"{name}\"\npublic_key = \"{key}\"\nendpoint = \"{address}:51840\"\n\
         addresses = [\"{address}\"]\ncidrs = [\"{cidr}\"]\nassociations = true\n"
    )
}

/// This very binary.
pub(super) fn program() -> Result<String> {
    let path = std::env::current_exe().map_err(|error| Error::new(format!("cannot find this program: {error}")))?;
    path.into_os_string().into_string().map_err(|_| Error::new("the path of this program is not UTF-8: move it"))
}

fn log(node: &Node) -> std::path::PathBuf {
    node.folder.join("agent.log")
}

fn logs(world: &World) -> String {
    world.nodes.iter().map(tail).collect()
}

fn tail(node: &Node) -> String {
    let text = std::fs::read_to_string(log(node)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
    last.iter().map(|line| format!("  {}: {line}\n", node.name)).collect()
}
