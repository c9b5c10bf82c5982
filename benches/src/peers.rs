//! What is measured: each peer makes a tunnel between the two nodes of a world.

mod forwarder;
mod kernel;
mod strangers;
mod uapi;
mod warren;

pub(crate) use uapi::{SOCKETS, is_abandoned_socket};

use std::path::{Path, PathBuf};
use std::process::Command;

use self::warren::Flavour;
use crate::process::Process;
use crate::world::World;
use crate::{Error, Result, process};

/// Bytes that WireGuard adds (IPv6 underlay reckoned, as everybody's default MTU does).
const WIREGUARD_OVERHEAD: u16 = 80;
/// Bytes that VXLAN over IPv4 adds.
const VXLAN_OVERHEAD: u16 = 50;

/// Between a name and its number of workers.
const WORKERS: &str = "-w";

/// A running tunnel; it ends when this is dropped.
#[derive(Debug, Default)]
pub struct Tunnel {
    /// The programs at both ends; none for what the kernel does alone.
    pub processes: Vec<Process>,
    /// What the programs may leave behind.
    files: Vec<PathBuf>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // All at once: dozens that end one after the other would take their time.
        self.processes.iter().for_each(Process::ask_to_end);
        self.processes.clear();
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// How a peer is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Warren(Flavour),
    Veth,
    Vxlan,
    Forwarder,
    /// Configured through its socket by `wg`.
    Uapi(&'static [&'static str]),
}

/// One of the things to measure.
#[derive(Clone, Debug)]
pub struct Peer {
    /// As in the output.
    pub name: &'static str,
    /// The binary, where it needs one.
    pub program: Option<PathBuf>,
    kind: Kind,
}

const fn suite(overlay: &'static str) -> Kind {
    Kind::Warren(Flavour { overlay, workers: None, beneath_vxlan: false })
}

/// Beneath the VXLAN of a CNI, which it knows nothing of.
const BENEATH_VXLAN: Kind =
    Kind::Warren(Flavour { overlay: "suite = \"aes-256-gcm\"\nmode = \"nodes\"", workers: None, beneath_vxlan: true });

/// Every peer: name, binary (empty: the kernel), kind.
const ALL: [(&str, &str, Kind); 11] = [
    ("warren", "warren", suite("")),
    ("warren-aes-256-gcm", "warren", suite("suite = \"aes-256-gcm\"")),
    ("warren-chacha20-poly1305", "warren", suite("suite = \"chacha20-poly1305\"")),
    ("warren-off", "warren", suite("associations = \"off\"")),
    ("warren-beneath-vxlan", "warren", BENEATH_VXLAN),
    ("veth", "", Kind::Veth),
    ("vxlan", "", Kind::Vxlan),
    ("forwarder", "forwarder", Kind::Forwarder),
    ("wireguard-go", "wireguard-go", Kind::Uapi(&["-f"])),
    ("gotatun", "gotatun", Kind::Uapi(&["-f", "--disable-drop-privileges"])),
    ("boringtun", "boringtun-cli", Kind::Uapi(&["-f", "--disable-drop-privileges"])),
];

/// The names of all peers.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, ..)| *name).collect()
}

/// Where a name stands among all: as listed, then by workers.
pub fn order(name: &str) -> (usize, u8) {
    let (base, workers) = match name.rsplit_once(WORKERS) {
        Some((base, count)) => (base, count.parse().unwrap_or(0)),
        None => (name, 0),
    };
    (names().iter().position(|known| *known == base).unwrap_or(usize::MAX), workers)
}

/// True for WireGuard implementations other than Warren.
pub fn is_stock(name: &str) -> bool {
    ALL.iter().any(|(known, _, kind)| *known == name && matches!(kind, Kind::Uapi(_)))
}

/// Each Warren once for every number of workers; the others as they are.
pub fn with_workers(peers: Vec<Peer>, workers: &[u8]) -> Vec<Peer> {
    let each = |peer: Peer| match peer.kind {
        Kind::Warren(flavour) if !workers.is_empty() => {
            let with = |count: &u8| {
                // Names live as long as the program: there are a dozen.
                let name: &'static str = format!("{}{WORKERS}{count}", peer.name).leak();
                Peer {
                    name,
                    program: peer.program.clone(),
                    kind: Kind::Warren(Flavour { workers: Some(*count), ..flavour }),
                }
            };
            workers.iter().map(with).collect()
        }
        _ => vec![peer],
    };
    peers.into_iter().flat_map(each).collect()
}

/// Finds the wanted peers; gives those that are here, and the names and binaries of those that are not.
///
/// # Errors
/// For an unknown name.
pub fn find(wanted: &[String], folders: &[PathBuf]) -> Result<(Vec<Peer>, Vec<String>)> {
    if let Some(unknown) = wanted.iter().find(|name| !names().contains(&name.as_str())) {
        return Err(Error::new(format!("no peer `{unknown}`: {}", names().join(", "))));
    }
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for (name, binary, kind) in ALL.into_iter().filter(|(name, ..)| wanted.iter().any(|want| want == name)) {
        match (binary, look_up(binary, folders)) {
            ("", _) => present.push(Peer { name, program: None, kind }),
            (_, Some(program)) => present.push(Peer { name, program: Some(program), kind }),
            (_, None) => absent.push(format!("{name} (no `{binary}`)")),
        }
    }
    Ok((present, absent))
}

fn look_up(binary: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_path_buf));
    let homes = ["HOME", "CARGO_HOME"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    let caller = std::env::var_os("SUDO_USER").map(|user| Path::new("/home").join(user));
    let cargo = homes.chain(caller).flat_map(|home| [home.join(".cargo/bin"), home.join("bin")]);
    let all = folders.iter().cloned().chain(beside).chain(cargo).chain(std::env::split_paths(&path));
    all.map(|folder| folder.join(binary)).find(|candidate| candidate.is_file())
}

impl Peer {
    /// MTU inside the tunnel on this underlay.
    pub fn mtu(&self, underlay: u16) -> u16 {
        match self.kind {
            Kind::Veth => underlay,
            Kind::Vxlan => underlay.saturating_sub(VXLAN_OVERHEAD),
            Kind::Warren(Flavour { beneath_vxlan: true, .. }) => {
                underlay.saturating_sub(WIREGUARD_OVERHEAD + VXLAN_OVERHEAD)
            }
            _ => underlay.saturating_sub(WIREGUARD_OVERHEAD),
        }
    }

    /// True when it can be a hub: what joins exactly two ends cannot.
    pub fn has_many_peers(&self) -> bool {
        !matches!(self.kind, Kind::Vxlan | Kind::Forwarder | Kind::Warren(Flavour { beneath_vxlan: true, .. }))
    }

    /// True when its peers are its own business, and not the kernel's.
    pub fn keeps_peers(&self) -> bool {
        matches!(self.kind, Kind::Uapi(_) | Kind::Warren(_))
    }

    /// Makes the tunnel and waits until it carries a ping.
    ///
    /// # Errors
    /// When a program ends, or nothing comes through in time.
    pub fn start(&self, world: &World) -> Result<Tunnel> {
        let mut tunnel = match self.kind {
            Kind::Veth => kernel::veth(world)?,
            Kind::Vxlan => kernel::vxlan(world, Some("eth0"))?,
            Kind::Forwarder => forwarder::start(self.program()?, world)?,
            Kind::Uapi(flags) => uapi::start(self.program()?, flags, world)?,
            Kind::Warren(flavour) => warren::start(self.program()?, flavour, world)?,
        };
        let ready = world.wait_ready();
        for process in &mut tunnel.processes {
            process.check()?;
        }
        ready.map(|()| tunnel)
    }

    fn program(&self) -> Result<&Path> {
        self.program.as_deref().ok_or_else(|| Error::new(format!("{}: no program", self.name)))
    }

    /// What the program says of its version.
    pub fn version(&self) -> String {
        let Some(program) = &self.program else { return "kernel".into() };
        let said = process::run(Command::new(program).arg("--version")).unwrap_or_default();
        said.lines().next().unwrap_or_default().trim().to_owned()
    }
}
