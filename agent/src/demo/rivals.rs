//! What Warren is measured beside, between the same two nodes, after the agents are gone: plain routes (the control of
//! the capture), wireguard-go, and VXLAN without encryption.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use warren_crypto::PrivateKey;

use super::command::{Service, ip_batch, run};
use super::interrupt::Interrupt;
use super::throughput;
use super::world::{Node, World};
use super::{Error, Result};

/// Where wireguard-go listens on the underlay.
const PORT: &str = "51820";
/// How long wireguard-go may take to open its socket.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Routes between all nodes without any tunnel.
pub(super) fn plain_routes(world: &World, stop: &Interrupt) -> Result<()> {
    change_plain_routes(world, "add", stop)
}

/// Removes them again.
pub(super) fn no_plain_routes(world: &World, stop: &Interrupt) -> Result<()> {
    change_plain_routes(world, "del", stop)
}

fn change_plain_routes(world: &World, verb: &str, stop: &Interrupt) -> Result<()> {
    for node in &world.nodes {
        let others = world.nodes.iter().filter(|other| other.number != node.number);
        let lines: String =
            others.map(|other| format!("route {verb} {} via {}\n", other.cidr, other.address)).collect();
        ip_batch(stop, &node.namespace, &lines)?;
    }
    Ok(())
}

/// Gb/s through VXLAN.
pub(super) fn vxlan(world: &World, seconds: u16, stop: &Interrupt) -> Result<f64> {
    let (one, two) = pair(world)?;
    for (node, other) in [(one, two), (two, one)] {
        let (local, remote) = (node.address, other.address);
        let lines = format!(
            "link add vxlan0 type vxlan id 42 local {local} remote {remote} dstport 4789 dev eth0\n\
             link set vxlan0 up\nroute add {remote_cidr} dev vxlan0 via {remote} onlink\n",
            remote_cidr = other.cidr,
        );
        ip_batch(stop, &node.namespace, &lines)?;
    }
    let rate = throughput::measure(world, seconds, stop);
    for node in [one, two] {
        ip_batch(stop, &node.namespace, "link del vxlan0\n")?;
    }
    rate
}

/// Gb/s through wireguard-go.
pub(super) fn wireguard_go(world: &World, seconds: u16, stop: &Interrupt) -> Result<f64> {
    let (one, two) = pair(world)?;
    let ends = [End::make(world, one)?, End::make(world, two)?];
    // One after the other: two that start at once race for the folder of their sockets.
    let services = [ends[0].start(world, stop)?, ends[1].start(world, stop)?];
    for (node, own, other, far) in [(one, &ends[0], &ends[1], two), (two, &ends[1], &ends[0], one)] {
        own.configure(node, other, far, stop)?;
    }
    let rate = throughput::measure(world, seconds, stop);
    drop(services);
    rate
}

fn pair(world: &World) -> Result<(&Node, &Node)> {
    match world.nodes.as_slice() {
        [one, two, ..] => Ok((one, two)),
        _ => Err(Error::new("the demo has no two nodes")),
    }
}

/// One end of wireguard-go.
struct End {
    device: String,
    namespace: String,
    key: PrivateKey,
    key_file: PathBuf,
}

impl End {
    fn make(world: &World, node: &Node) -> Result<Self> {
        let key = PrivateKey::generate();
        let key_file = node.folder.join("wireguard-go.key");
        secret_file(&key_file, &key)?;
        // The sockets of all namespaces share one folder, so the name must be this demo's own (at most 15 bytes).
        let device = format!("wd{}n{}", world.id, node.number);
        Ok(Self { device, namespace: node.namespace.clone(), key, key_file })
    }

    fn start(&self, world: &World, stop: &Interrupt) -> Result<Service> {
        let log = world.folder.join("wireguard-go.log");
        let mut service =
            Service::start("wireguard-go", &self.namespace, &["wireguard-go", "-f", &self.device], &log, false)?;
        let socket = format!("/var/run/wireguard/{}.sock", self.device);
        stop.until(START_LIMIT, "wireguard-go does not open its socket", || {
            service.check()?;
            Ok(Path::new(&socket).exists().then_some(()))
        })?;
        Ok(service)
    }

    fn configure(&self, node: &Node, other: &Self, far: &Node, stop: &Interrupt) -> Result<()> {
        let (key_file, public) = (self.key_file.display().to_string(), other.key.public_key().to_string());
        let (endpoint, cidr) = (format!("{}:{PORT}", far.address), far.cidr.to_string());
        let argv = [
            "wg",
            "set",
            &self.device,
            "listen-port",
            PORT,
            "private-key",
            &key_file,
            "peer",
            &public,
            "endpoint",
            &endpoint,
            "allowed-ips",
            &cidr,
        ];
        run(stop, Some(&node.namespace), &argv)?;
        let device = &self.device;
        ip_batch(stop, &node.namespace, &format!("link set {device} mtu 1420 up\nroute add {cidr} dev {device}\n"))
    }
}

/// Writes a private key for its owner's eyes only.
pub(super) fn secret_file(path: &Path, key: &PrivateKey) -> Result<()> {
    let broken = |error: std::io::Error| Error::new(format!("cannot write {}: {error}", path.display()));
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path).map_err(broken)?;
    file.write_all(key.to_base64().as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(broken)
}
