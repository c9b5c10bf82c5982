//! Warren itself: two agents with each other as static peers.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Tunnel;
use super::uapi::{public_key, write_secret};
use crate::process::Process;
use crate::world::World;
use crate::{Error, Result, process};

const PORT: u16 = 51840;

pub(super) fn start(program: &Path, overlay: &str, world: &World) -> Result<Tunnel> {
    for number in [1, 2] {
        let private = process::run(Command::new("wg").arg("genkey"))?;
        write_secret(&world.file(&format!("node{number}.key")), &private)?;
    }
    let mut tunnel = Tunnel::default();
    for number in [1u8, 2] {
        let file = world.file(&format!("node{number}.toml"));
        let written = fs::write(&file, config(world, overlay, number)?);
        written.map_err(|error| Error::new(format!("cannot write {}: {error}", file.display())))?;
        let mut command = world.node(number).command(&program.to_string_lossy());
        command.arg("up").arg("--config").arg(&file);
        let log = world.file(&format!("warren{number}.log"));
        tunnel.processes.push(Process::start("warren", &mut command, Some(&log))?);
    }
    Ok(tunnel)
}

fn config(world: &World, overlay: &str, number: u8) -> Result<String> {
    let (other, mtu) = (3 - number, world.mtu);
    let folder = world.folder.display();
    let public = public_key(&world.file(&format!("node{other}.key")))?;
    Ok(format!(
        r#"[node]
name = "node{number}"
addresses = ["10.77.0.{number}"]
endpoints = ["10.77.0.{number}:{PORT}"]
cidrs = ["10.89.{number}.0/24"]
state_dir = "{folder}/state{number}"
key_file = "{folder}/node{number}.key"
run_dir = "{folder}/run{number}"

[overlay]
address = ["10.88.0.{number}"]
networks = ["10.88.0.0/24", "10.89.0.0/16"]
mtu = {mtu}
{overlay}

[underlay]
port = {PORT}

[[peer]]
name = "node{other}"
public_key = "{public}"
endpoint = "10.77.0.{other}:{PORT}"
cidrs = ["10.88.0.{other}/32", "10.89.{other}.0/24"]
addresses = ["10.77.0.{other}"]
associations = true
"#
    ))
}
