//! The demo's machines: an underlay, three nodes, two Pods on each, all of them network namespaces.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use super::command::{ip_batch, run};
use super::interrupt::Interrupt;
use super::leftovers;
use super::{Error, Result};

/// How many nodes.
pub(super) const NODES: u8 = 3;
/// How many Pods on each.
pub(super) const PODS: u8 = 2;
/// Where the demos of this machine keep their files.
pub(super) const RUN_DIR: &str = "/run/wdemo";
/// What the names of all namespaces begin with.
pub(super) const PREFIX: &str = "wdemo";
/// The overlay: every Pod of the demo is in it, nothing else is.
pub(super) const OVERLAY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16);
/// The underlay's own address: etcd listens there.
pub(super) const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// A Pod.
pub(super) struct Pod {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// The number of its node.
    pub(super) node: u8,
}

/// A node.
pub(super) struct Node {
    /// 1, 2, 3.
    pub(super) number: u8,
    /// `node1` …
    pub(super) name: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// Its address on the underlay.
    pub(super) address: Ipv4Addr,
    /// Its Pods' network.
    pub(super) cidr: Ipv4Net,
    /// Its files.
    pub(super) folder: PathBuf,
}

/// Everything the demo made; gone when this is dropped, unless [`World::keep`] was called.
pub(super) struct World {
    /// Process id of the demo that made it.
    pub(super) id: u32,
    /// The underlay's namespace.
    pub(super) underlay: String,
    /// The nodes.
    pub(super) nodes: Vec<Node>,
    /// All Pods.
    pub(super) pods: Vec<Pod>,
    /// Files of this demo.
    pub(super) folder: PathBuf,
    kept: bool,
}

impl World {
    /// Makes it, wired up and reachable within each node, with nothing between the Pods of different nodes.
    pub(super) fn build(stop: &Interrupt) -> Result<Self> {
        let id = std::process::id();
        let folder = Path::new(RUN_DIR).join(id.to_string());
        let nodes: Vec<Node> = (1..=NODES).map(|number| Node::new(id, number, &folder)).collect();
        let pods = (1..=NODES).flat_map(|node| (1..=PODS).map(move |pod| Pod::new(id, node, pod))).collect();
        let world = Self { id, underlay: format!("{PREFIX}{id}-underlay"), nodes, pods, folder, kept: false };
        world.make_folders()?;
        for namespace in world.namespaces() {
            run(stop, None, &["ip", "netns", "add", namespace])?;
        }
        ip_batch(stop, &world.underlay, &world.underlay_lines())?;
        for node in &world.nodes {
            ip_batch(stop, &node.namespace, &world.node_lines(node))?;
            run(stop, Some(&node.namespace), &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        }
        for pod in &world.pods {
            ip_batch(stop, &pod.namespace, &pod.lines())?;
        }
        Ok(world)
    }

    /// Leaves everything where it is.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.kept = true;
        leftovers::mark_kept(&self.folder)
    }

    /// The Pods of one node.
    pub(super) fn pods_of(&self, node: &Node) -> impl Iterator<Item = &Pod> {
        let number = node.number;
        self.pods.iter().filter(move |pod| pod.node == number)
    }

    /// One Pod on the first node and one on the second.
    pub(super) fn pair(&self) -> Result<(&Pod, &Pod)> {
        let on = |node| self.pods.iter().find(|pod| pod.node == node);
        on(1).zip(on(2)).ok_or_else(|| Error::new("the demo has no two Pods"))
    }

    fn namespaces(&self) -> impl Iterator<Item = &str> {
        let nodes = self.nodes.iter().map(|node| node.namespace.as_str());
        let pods = self.pods.iter().map(|pod| pod.namespace.as_str());
        std::iter::once(self.underlay.as_str()).chain(nodes).chain(pods)
    }

    fn make_folders(&self) -> Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let folders = self.nodes.iter().map(|node| node.folder.as_path()).chain([self.folder.as_path()]);
        for folder in folders {
            builder.create(folder).map_err(|error| Error::new(format!("cannot make {}: {error}", folder.display())))?;
        }
        Ok(())
    }

    fn underlay_lines(&self) -> String {
        let mut lines =
            format!("link set lo up\nlink add br0 type bridge\naddr add {HUB}/24 dev br0\nlink set br0 up\n");
        for node in &self.nodes {
            let (port, namespace) = (&node.name, &node.namespace);
            let _ = writeln!(lines, "link add {port} type veth peer name eth0 netns {namespace}");
            let _ = writeln!(lines, "link set {port} master br0 up");
        }
        lines
    }

    fn node_lines(&self, node: &Node) -> String {
        let mut lines = format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", node.address);
        for (number, pod) in self.pods_of(node).enumerate() {
            let (port, namespace) = (format!("pod{}", number + 1), &pod.namespace);
            let _ = writeln!(lines, "link add {port} type veth peer name eth0 netns {namespace}");
            let _ = writeln!(lines, "addr add {}/32 dev {port}\nlink set {port} up", pod.gateway());
            let _ = writeln!(lines, "route add {}/32 dev {port}", pod.address);
        }
        lines
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.kept {
            leftovers::remove(self.id);
        }
    }
}

impl Node {
    fn new(id: u32, number: u8, folder: &Path) -> Self {
        let name = format!("node{number}");
        Self {
            number,
            namespace: format!("{PREFIX}{id}-{name}"),
            address: Ipv4Addr::new(10, 77, 0, number),
            cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, number, 0), 24),
            folder: folder.join(&name),
            name,
        }
    }

    /// Its config file.
    pub(super) fn config(&self) -> String {
        self.folder.join("warren.toml").display().to_string()
    }
}

impl Pod {
    fn new(id: u32, node: u8, pod: u8) -> Self {
        let address = Ipv4Addr::new(10, 42, node, 9 + pod);
        Self { namespace: format!("{PREFIX}{id}-node{node}-pod{pod}"), address, node }
    }

    /// Its node, as it sees it.
    fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 42, self.node, 1)
    }

    fn lines(&self) -> String {
        let (address, gateway) = (self.address, self.gateway());
        format!(
            "link set lo up\naddr add {address}/32 dev eth0\nlink set eth0 up\n\
             route add {gateway} dev eth0\nroute add default via {gateway}\n"
        )
    }
}
