//! What a run happens in: two nodes and the wire between them, with a Pod behind each when the topology says so.
//!
//! ```text
//! nodes:            [node1] eth0 ──────── eth0 [node2]
//!                   10.77.0.1             10.77.0.2     underlay
//!                   10.88.0.1             10.88.0.2     tunnel addresses: who talks
//!
//! pods:  [pod1] ─── [node1] eth0 ──────── eth0 [node2] ─── [pod2]
//!        10.89.1.2  10.89.1.1             10.89.2.1        10.89.2.2: who talks
//! ```
//!
//! More than two nodes hang on one switch; node 1 is the hub, the others know only it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::netns::{self, Namespace};
use crate::{Error, Result, interrupt, peers, process};

/// Where each run has a folder of its own.
const RUN: &str = "/run";
/// What its name begins with; the process id follows.
const FOLDER: &str = "wbench-";
/// How long a tunnel may take until the first ping comes back.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topology {
    /// Node to node, through tunnel addresses.
    Nodes,
    /// Pod, node, tunnel, node, Pod.
    Pods,
    /// Nobody: what is measured inside one process. Has no world.
    Memory,
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
            Self::Memory => "memory",
        })
    }
}

impl FromStr for Topology {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "nodes" => Ok(Self::Nodes),
            "pods" => Ok(Self::Pods),
            _ => Err(Error::new(format!("no topology `{text}`: nodes or pods"))),
        }
    }
}

/// The namespaces of one run.
#[derive(Debug)]
pub struct World {
    /// Who talks.
    pub topology: Topology,
    /// MTU of the wire between the nodes.
    pub underlay_mtu: u16,
    /// MTU inside the tunnel, and of the Pods.
    pub mtu: u16,
    /// Node 1, node 2, and so on.
    nodes: Vec<Namespace>,
    /// What joins more than two.
    switch: Option<Namespace>,
    /// Made-up peers that node 1 knows beside the real ones.
    pub strangers: usize,
    /// Pod 1 and Pod 2, or none.
    pub pods: Vec<Namespace>,
    /// For keys, configuration and logs; 0700.
    pub folder: PathBuf,
}

impl World {
    /// Makes two nodes, with everything but the tunnel.
    ///
    /// # Errors
    /// Without root.
    pub fn build(topology: Topology, underlay_mtu: u16, mtu: u16) -> Result<Self> {
        let mut world = Self::empty(topology, underlay_mtu, mtu, 2)?;
        if topology == Topology::Pods {
            world.pods = vec![Namespace::make("pod1")?, Namespace::make("pod2")?];
        }
        let (one, two) = (world.node(1), world.node(2));
        one.ip(&format!(
            "link add eth0 mtu {underlay_mtu} type veth peer name eth0 mtu {underlay_mtu} netns {}\n",
            two.name()
        ))?;
        for number in [1, 2] {
            world.address(number)?;
            world.connect_pod(number)?;
        }
        Ok(world)
    }

    /// Makes a hub and `spokes` nodes around it, with everything but the tunnels.
    ///
    /// # Errors
    /// Without root.
    pub fn star(underlay_mtu: u16, mtu: u16, spokes: u8) -> Result<Self> {
        let mut world = Self::empty(Topology::Nodes, underlay_mtu, mtu, spokes + 1)?;
        let switch = Namespace::make("switch")?;
        switch.ip("link add br0 type bridge\nlink set br0 up\n")?;
        for number in world.numbers() {
            switch.ip(&format!(
                "link add port{number} mtu {underlay_mtu} type veth peer name eth0 mtu {underlay_mtu} netns {}\n\
                 link set port{number} master br0 up\n",
                world.node(number).name()
            ))?;
            world.address(number)?;
        }
        world.switch = Some(switch);
        Ok(world)
    }

    fn empty(topology: Topology, underlay_mtu: u16, mtu: u16, count: u8) -> Result<Self> {
        let folder = make_folder()?;
        let nodes = (1..=count).map(|number| Namespace::make(&format!("node{number}"))).collect::<Result<_>>()?;
        Ok(Self { topology, underlay_mtu, mtu, nodes, switch: None, strangers: 0, pods: Vec::new(), folder })
    }

    /// The numbers of the nodes.
    pub fn numbers(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.nodes.len() as u8
    }

    /// Whom a node has a tunnel with: the hub with everybody, everybody with the hub.
    pub fn neighbours(&self, number: u8) -> Vec<u8> {
        if number == 1 { self.numbers().skip(1).collect() } else { vec![1] }
    }

    fn address(&self, number: u8) -> Result<()> {
        self.node(number).ip(&format!("addr add 10.77.0.{number}/24 dev eth0\nlink set eth0 up\n"))
    }

    fn connect_pod(&self, number: u8) -> Result<()> {
        let Some(pod) = self.pods.get(usize::from(number) - 1) else { return Ok(()) };
        let (node, mtu) = (self.node(number), self.mtu);
        node.ip(&format!(
            "link add pod type veth peer name eth0 mtu {mtu} netns {}\n\
             addr add 10.89.{number}.1/24 dev pod\nlink set pod mtu {mtu} up\n",
            pod.name()
        ))?;
        pod.ip(&format!(
            "addr add 10.89.{number}.2/24 dev eth0\nlink set eth0 up\nroute add default via 10.89.{number}.1\n"
        ))?;
        process::run(node.command("sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])).map(drop)
    }

    /// A node, from 1 on.
    pub fn node(&self, number: u8) -> &Namespace {
        &self.nodes[usize::from(number) - 1]
    }

    /// Where the one that sends lives.
    pub fn client(&self) -> &Namespace {
        self.pods.first().unwrap_or(&self.nodes[0])
    }

    /// Where the one that receives lives.
    pub fn server(&self) -> &Namespace {
        self.pods.get(1).unwrap_or(&self.nodes[1])
    }

    /// The address of the one that receives.
    pub fn target(&self) -> &'static str {
        match self.topology {
            Topology::Pods => "10.89.2.2",
            _ => "10.88.0.2",
        }
    }

    /// Gives a node's tunnel device its address, its MTU and the routes to the other node.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn attach(&self, number: u8, device: &str) -> Result<()> {
        let mtu = self.mtu;
        let pods = self.pod_route(number, &format!("dev {device} src 10.88.0.{number}"));
        self.node(number)
            .ip(&format!("addr add 10.88.0.{number}/24 dev {device}\nlink set {device} mtu {mtu} up\n{pods}"))
    }

    /// The command that leads a node to the other's Pods, if there are any.
    pub fn pod_route(&self, number: u8, way: &str) -> String {
        let other = 3u8.saturating_sub(number);
        if self.pods.is_empty() { String::new() } else { format!("route add 10.89.{other}.0/24 {way}\n") }
    }

    /// Waits until pings come back from everybody whom the client talks to.
    ///
    /// # Errors
    /// When one does not in time.
    pub fn wait_ready(&self) -> Result<()> {
        let spokes = self.numbers().skip(2).map(|number| format!("10.88.0.{number}"));
        std::iter::once(self.target().to_owned()).chain(spokes).try_for_each(|target| self.wait_ping(&target))
    }

    fn wait_ping(&self, target: &str) -> Result<()> {
        let limit = Instant::now() + READY_LIMIT;
        while Instant::now() < limit {
            interrupt::check()?;
            let arguments = ["-n", "-q", "-c", "1", "-W", "0.2", target];
            if process::output(self.client().command("ping").args(arguments))?.status.success() {
                return Ok(());
            }
        }
        Err(Error::new(format!("no ping reaches {target} within {} s", READY_LIMIT.as_secs())))
    }

    /// A file of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn make_folder() -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let folder = Path::new(RUN).join(format!("{FOLDER}{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    let made = fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|error| Error::new(format!("cannot make {}: {error} (root is needed)", folder.display())))?;
    Ok(folder)
}

/// Removes what runs that were killed without warning left: namespaces and their programs, folders, sockets.
///
/// # Errors
/// When `ip` cannot be run.
pub fn sweep() -> Result<()> {
    netns::sweep()?;
    let gone = |name: &str| name.strip_prefix(FOLDER).is_some_and(netns::is_gone);
    for path in entries(Path::new(RUN), gone) {
        let _ = fs::remove_dir_all(path);
    }
    for path in entries(Path::new(peers::SOCKETS), peers::is_abandoned_socket) {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

fn entries(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().to_str().is_some_and(&wanted)).map(|entry| entry.path()).collect()
}
