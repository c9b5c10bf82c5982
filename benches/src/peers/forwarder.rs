//! The no-crypto forwarder.

use std::path::Path;

use super::Tunnel;
use crate::process::Process;
use crate::world::World;
use crate::{Error, Result, process};

const DEVICE: &str = "fw0";
const PORT: u16 = 5000;

pub(super) fn start(program: &Path, world: &World) -> Result<Tunnel> {
    let mut tunnel = Tunnel::default();
    for number in [1u8, 2] {
        let other = 3 - number;
        let mut command = world.node(number).command(&program.to_string_lossy());
        command.args(["--device", DEVICE, "--mtu", &world.mtu.to_string()]);
        command.args(["--listen", &format!("10.77.0.{number}:{PORT}"), "--peer", &format!("10.77.0.{other}:{PORT}")]);
        let log = world.file("forwarder.log");
        let mut process = Process::start("forwarder", &mut command, Some(&log))?;
        wait_device(world, number, &mut process)?;
        world.attach(number, DEVICE)?;
        tunnel.processes.push(process);
    }
    Ok(tunnel)
}

fn wait_device(world: &World, number: u8, process: &mut Process) -> Result<()> {
    for _ in 0..200 {
        process.check()?;
        let mut look = world.node(number).command("ip");
        if process::output(look.args(["link", "show", "dev", DEVICE]))?.status.success() {
            return Ok(());
        }
    }
    Err(Error::new("the forwarder does not make its device"))
}
