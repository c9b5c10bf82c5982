//! Userspace WireGuard that `wg` configures through a socket in /var/run/wireguard: wireguard-go, gotatun, boringtun.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Tunnel;
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
    let keys = [make_key(world, 1)?, make_key(world, 2)?];
    let mut tunnel = Tunnel { processes: Vec::new(), files: vec![socket(1), socket(2)] };
    // One after the other: two that start at once race for the folder of their sockets.
    for number in [1, 2] {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = world.node(number).command(&program.to_string_lossy());
        command.args(flags).arg(device(number)).env("WG_PROCESS_FOREGROUND", "1").env("LOG_LEVEL", "error");
        let log = world.file(&format!("{name}{number}.log"));
        command.env("WG_LOG_FILE", &log);
        let mut process = Process::start(&name, &mut command, Some(&log))?;
        wait_socket(number, &mut process)?;
        tunnel.processes.push(process);
    }
    for (number, own, other) in [(1, &keys[0], &keys[1]), (2, &keys[1], &keys[0])] {
        configure(world, number, own, &other.public)?;
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

fn configure(world: &World, number: u8, own: &Key, public: &str) -> Result<()> {
    let other = 3 - number;
    let allowed = format!("10.88.0.{other}/32,10.89.{other}.0/24");
    let endpoint = format!("10.77.0.{other}:{PORT}");
    let mut command = world.node(number).command("wg");
    command.args(["set", &device(number), "listen-port", PORT, "private-key"]).arg(&own.file);
    command.args(["peer", public, "endpoint", &endpoint, "allowed-ips", &allowed]);
    process::run(&mut command).map(drop)
}
