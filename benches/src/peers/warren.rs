//! Warren itself: agents with each other as static peers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::strangers::{Stranger, strangers};
use super::uapi::{public_key, write_secret};
use super::{Tunnel, WIREGUARD_OVERHEAD, kernel};
use crate::process::Process;
use crate::world::World;
use crate::{Error, Result, interrupt, process};

const PORT: u16 = 51840;
/// How long a tunnel may take until it carries.
const CARRYING_LIMIT: Duration = Duration::from_secs(10);

/// What differs between one Warren and another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flavour {
    /// A line for `[overlay]`.
    pub(super) overlay: &'static str,
    /// Threads; the default without.
    pub(super) workers: Option<u8>,
    /// It carries what nodes say to each other, and the kernel's VXLAN between them carries the Pods.
    pub(super) beneath_vxlan: bool,
}

pub(super) fn start(program: &Path, flavour: Flavour, world: &World) -> Result<Tunnel> {
    let mut keys = Vec::new();
    for number in world.numbers() {
        let private = process::run(Command::new("wg").arg("genkey"))?;
        let file = world.file(&format!("node{number}.key"));
        write_secret(&file, &private)?;
        keys.push(public_key(&file)?);
    }
    let mut tunnel = Tunnel::default();
    for number in world.numbers() {
        let file = world.file(&format!("node{number}.toml"));
        let written = fs::write(&file, config(world, flavour, number, &keys));
        written.map_err(|error| Error::new(format!("cannot write {}: {error}", file.display())))?;
        let mut command = world.node(number).command(&program.to_string_lossy());
        command.arg("up").arg("--config").arg(&file);
        let log = world.file(&format!("warren{number}.log"));
        tunnel.processes.push(Process::start("warren", &mut command, Some(&log))?);
    }
    if flavour.beneath_vxlan {
        wait_carrying(world)?;
        kernel::vxlan(world, None)?;
    }
    Ok(tunnel)
}

/// Before an agent stands, what it will carry goes in clear, and would be measured so.
fn wait_carrying(world: &World) -> Result<()> {
    let limit = Instant::now() + CARRYING_LIMIT;
    while Instant::now() < limit {
        interrupt::check()?;
        let ping = ["-n", "-q", "-c", "1", "-W", "0.2", "10.77.0.2"];
        let answered = process::output(world.node(1).command("ping").args(ping))?.status.success();
        let device = process::output(world.node(1).command("ip").args(["-s", "-j", "link", "show", "dev", "warren0"]))?;
        let counters: serde_json::Value = serde_json::from_slice(&device.stdout).unwrap_or_default();
        if answered && counters[0]["stats64"]["rx"]["packets"].as_u64() > Some(0) {
            return Ok(());
        }
    }
    Err(Error::new("nothing comes through the tunnel beneath the VXLAN"))
}

fn config(world: &World, flavour: Flavour, number: u8, keys: &[String]) -> String {
    let mut text = node(world, flavour, number);
    for other in world.neighbours(number) {
        text += &peer(flavour, other, &keys[usize::from(other) - 1]);
    }
    if number == 1 {
        text.extend(strangers(world.strangers).map(|one| stranger(&one)));
    }
    text
}

fn node(world: &World, flavour: Flavour, number: u8) -> String {
    let (folder, overlay) = (world.folder.display(), flavour.overlay);
    let workers = flavour.workers.unwrap_or(0);
    let mtu = if flavour.beneath_vxlan { world.underlay_mtu - WIREGUARD_OVERHEAD } else { world.mtu };
    let carries = if flavour.beneath_vxlan {
        String::new()
    } else {
        format!("address = [\"10.88.0.{number}\"]\nnetworks = [\"10.88.0.0/24\", \"10.89.0.0/16\", \"10.128.0.0/9\"]\n")
    };
    let cidrs = if flavour.beneath_vxlan { String::new() } else { format!("\"10.89.{number}.0/24\"") };
    format!(
        r#"[node]
name = "node{number}"
addresses = ["10.77.0.{number}"]
endpoints = ["10.77.0.{number}:{PORT}"]
cidrs = [{cidrs}]
state_dir = "{folder}/state{number}"
key_file = "{folder}/node{number}.key"
run_dir = "{folder}/run{number}"
cni_dir = "{folder}/cni{number}"

[overlay]
{carries}mtu = {mtu}
{overlay}

# Beneath a VXLAN Warren knows of no Pods' network, and would guard their device, too: a veth with a prefix, where CNIs
# have bridges or single addresses.
[underlay]
port = {PORT}
devices = ["eth0"]

[workers]
count = {workers}
"#
    )
}

fn peer(flavour: Flavour, number: u8, public: &str) -> String {
    let cidrs = format!("cidrs = [\"10.88.0.{number}/32\", \"10.89.{number}.0/24\"]");
    let cidrs = if flavour.beneath_vxlan { "" } else { &cidrs };
    format!(
        r#"
[[peer]]
name = "node{number}"
public_key = "{public}"
endpoint = "10.77.0.{number}:{PORT}"
{cidrs}
addresses = ["10.77.0.{number}"]
associations = true
"#
    )
}

fn stranger(one: &Stranger) -> String {
    let Stranger { number, public_key, host, cidr } = one;
    format!(
        r#"
[[peer]]
name = "stranger{number}"
public_key = "{public_key}"
endpoint = "{host}:{PORT}"
cidrs = ["{cidr}"]
associations = true
"#
    )
}
