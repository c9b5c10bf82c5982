//! What the demo needs of the machine, said in one line when it is not there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Error, Registry, Result};

/// Tools, and the Debian packages that bring them.
const TOOLS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("iperf3", "iperf3"),
    ("wireguard-go", "wireguard-go"),
    ("wg", "wireguard-tools"),
    ("setpriv", "util-linux"),
];

/// Fails with the first thing that is missing and its remedy.
pub(super) fn check(registry: Registry) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new("needs root, for network namespaces: run `sudo warren demo`, or `make demo`"));
    }
    tun()?;
    let mut missing: Vec<&str> =
        TOOLS.iter().filter(|(tool, _)| find(tool).is_none()).map(|(_, package)| *package).collect();
    if registry == Registry::Etcd && find("etcd").is_none() {
        missing.push("etcd-server");
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("tools are missing: run `apt-get install {}`, or `make demo`", missing.join(" "))))
}

/// The TUN driver answers: present, and allowed by the container or the machine.
fn tun() -> Result<()> {
    let path = Path::new("/dev/net/tun");
    let Err(error) = std::fs::File::options().read(true).write(true).open(path) else { return Ok(()) };
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound => "run `modprobe tun`; in a container, pass --device /dev/net/tun",
        _ => "in a container, pass --device /dev/net/tun and --cap-add NET_ADMIN",
    };
    Err(Error::new(format!("cannot open {}: {error}: {remedy}", path.display())))
}

/// The search path, with the folders where Debian keeps root's tools.
pub(super) fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(path)
}

fn find(tool: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|folder| folder.join(tool)).find(|file| file.is_file())
}
