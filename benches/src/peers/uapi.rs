//! Userspace WireGuard that `wg` configures through a socket in /var/run/wireguard: wireguard-go, gotatun, boringtun.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Tunnel;
use super::strangers::strangers;
use crate::process::Process;
use crate::world::World;
use crate::{Error, Result, netns, process};

const PORT: &str = "51820";
/// Where `wg` looks for sockets.
pub(crate) const SOCKETS: &str = "/var/run/wireguard";
/// What the names of devices begin with.
const DEVICE: &str = "wb";
/// How long a program may take to open its socket.
const SOCKET_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn start(program: &Path, flags: &[&str], world: &World) -> Result<Tunnel> {
    let keys = world.numbers().map(|number| make_key(world, number)).collect::<Result<Vec<_>>>()?;
    let mut tunnel = Tunnel { processes: Vec::new(), files: world.numbers().map(socket).collect() };
    // One after the other: two that start at once race for the folder of their sockets.
    for number in world.numbers() {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = world.node(number).command(&program.to_string_lossy());
        command.args(flags).arg(device(number)).env("WG_PROCESS_FOREGROUND", "1").env("LOG_LEVEL", "error");
        let log = world.file(&format!("{name}{number}.log"));
        command.env("WG_LOG_FILE", &log);
        let mut process = Process::start(&name, &mut command, Some(&log))?;
        wait_socket(number, &mut process)?;
        tunnel.processes.push(process);
    }
    for number in world.numbers() {
        configure(world, number, &keys)?;
        world.attach(number, &device(number))?;
    }
    Ok(tunnel)
}

/// Sockets of all namespaces share one folder, so the name must be this process's own.
fn device(number: u8) -> String {
    format!("{DEVICE}{}n{number}", std::process::id())
}

/// True for a socket whose run is gone.
pub(crate) fn is_abandoned_socket(name: &str) -> bool {
    let pid = name.strip_prefix(DEVICE).and_then(|rest| rest.split('n').next());
    pid.is_some_and(netns::is_gone)
}

fn socket(number: u8) -> PathBuf {
    Path::new(SOCKETS).join(format!("{}.sock", device(number)))
}

struct Key {
    file: PathBuf,
    public: String,
}

fn make_key(world: &World, number: u8) -> Result<Key> {
    let file = world.file(&format!("node{number}.key"));
    let private = process::run(Command::new("wg").arg("genkey"))?;
    write_secret(&file, &private)?;
    Ok(Key { public: public_key(&file)?, file })
}

/// Writes a private key for its owner's eyes only.
pub(super) fn write_secret(file: &Path, secret: &str) -> Result<()> {
    let opened = File::options().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut opened| opened.write_all(secret.as_bytes()));
    written.map_err(|error| Error::new(format!("cannot write {}: {error}", file.display())))
}

/// The public half of the key in a file.
pub(super) fn public_key(file: &Path) -> Result<String> {
    let failed = |error: std::io::Error| Error::new(format!("{}: {error}", file.display()));
    let input = File::open(file).map_err(failed)?;
    let output = Command::new("wg").arg("pubkey").stdin(input).stderr(Stdio::null()).output().map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn wait_socket(number: u8, process: &mut Process) -> Result<()> {
    let socket = socket(number);
    let limit = Instant::now() + SOCKET_LIMIT;
    // A socket that exists but does not listen yet would be taken for a stale one by `wg`, and removed.
    while UnixStream::connect(&socket).is_err() {
        process.check()?;
        if Instant::now() > limit {
            return Err(Error::new(format!("{} does not appear", socket.display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn configure(world: &World, number: u8, keys: &[Key]) -> Result<()> {
    let device = device(number);
    let mut command = world.node(number).command("wg");
    command.args(["set", &device, "listen-port", PORT, "private-key"]).arg(&keys[usize::from(number) - 1].file);
    process::run(&mut command)?;
    let mut peers = String::new();
    for other in world.neighbours(number) {
        let public = &keys[usize::from(other) - 1].public;
        peers += &section(public, &format!("10.77.0.{other}"), &format!("10.88.0.{other}/32,10.89.{other}.0/24"));
    }
    if number == 1 {
        peers.extend(strangers(world.strangers).map(|one| section(&one.public_key, &one.host, &one.cidr)));
    }
    let file = world.file(&format!("node{number}.conf"));
    fs::write(&file, peers).map_err(|error| Error::new(format!("cannot write {}: {error}", file.display())))?;
    let mut command = world.node(number).command("wg");
    process::run(command.args(["addconf", &device]).arg(&file)).map(drop)
}

fn section(public: &str, host: &str, allowed: &str) -> String {
    format!("[Peer]\nPublicKey = {public}\nEndpoint = {host}:{PORT}\nAllowedIPs = {allowed}\n")
}
