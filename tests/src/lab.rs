//! A lab: the hub that nodes are wired to, and where their files are.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;

use crate::leftovers::{self, Guard, PREFIX};
use crate::namespace::Namespace;
use crate::{Node, Sniffer};

/// Last group of the hub's IPv6 addresses.
pub(crate) const HUB: u16 = 0xfe;
/// Labs of this process so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Which versions of IP something speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

impl Family {
    /// Whether IPv4 is in.
    pub fn v4(self) -> bool {
        self != Self::V6
    }

    /// Whether IPv6 is in.
    pub fn v6(self) -> bool {
        self != Self::V4
    }

    /// The addresses that belong to the family.
    pub fn only(self, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
        addresses.into_iter().filter(|address| if address.is_ipv4() { self.v4() } else { self.v6() }).collect()
    }
}

/// How Pods hang on their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// Ports of one bridge that has the gateway's address (flannel, kubenet).
    Bridge,
    /// A veth each, reached by a host route (Calico, Cilium).
    HostRoutes,
}

/// What a lab looks like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Addresses of the underlay.
    pub underlay: Family,
    /// Addresses of the Pods.
    pub overlay: Family,
    /// Of the underlay's devices, in bytes.
    pub mtu: u16,
    /// Of the Pods.
    pub wiring: Wiring,
}

impl Default for Plan {
    fn default() -> Self {
        Self { underlay: Family::V4, overlay: Family::V4, mtu: 1500, wiring: Wiring::HostRoutes }
    }
}

impl Plan {
    /// Whether Pods speak IPv6 and the underlay has no addresses of it: then the fabric routes by link-local ones.
    pub(crate) fn needs_link_local(self) -> bool {
        self.overlay.v6() && !self.underlay.v6()
    }
}

/// A hub, and the names and files of what is wired to it.
#[derive(Debug)]
pub struct Lab {
    /// What it looks like.
    pub plan: Plan,
    hub: Namespace,
    id: String,
    folder: PathBuf,
    nodes: Cell<u8>,
    /// Last: what it removes must be unused by then.
    _guard: Guard,
}

impl Lab {
    /// One with an IPv4 underlay of MTU 1500 and IPv4 Pods on host routes.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::with(Plan::default())
    }

    /// One of another look.
    pub fn with(plan: Plan) -> Self {
        let guard = Guard::take();
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let id = format!("{PREFIX}{process}-{number}");
        let folder = leftovers::folder_of(process).join(number.to_string());
        std::fs::create_dir_all(&folder).expect("the folder of this process exists");
        let hub = Namespace::create(&format!("{id}-hub"));
        let lab = Self { plan, hub, id, folder, nodes: Cell::new(0), _guard: guard };
        lab.wire_hub();
        lab
    }

    /// The next node.
    pub fn node(&self) -> Node {
        self.nodes.set(self.nodes.get() + 1);
        Node::new(self, self.nodes.get())
    }

    /// The next `N` nodes.
    pub fn nodes<const N: usize>(&self) -> [Node; N] {
        std::array::from_fn(|_| self.node())
    }

    /// Starts to listen on every link of the underlay.
    pub fn sniff(&self) -> Sniffer {
        Sniffer::start(&self.hub)
    }

    /// The namespace that the underlay is in.
    pub fn hub(&self) -> &Namespace {
        &self.hub
    }

    /// What the names of this lab begin with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where files of this lab go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The hub's addresses on the underlay, gateway of every node.
    pub fn hub_addresses(&self) -> Vec<IpAddr> {
        self.plan.underlay.only([underlay_v4(254).into(), underlay_v6(HUB).into()])
    }

    /// The hub's first address.
    pub fn hub_address(&self) -> IpAddr {
        self.hub_addresses()[0]
    }

    /// The prefixes that hold all Pods, as the agents are told.
    pub fn networks(&self) -> Vec<IpNet> {
        networks(self.plan.overlay)
    }

    fn wire_hub(&self) {
        let mut lines = format!("link add br0 mtu {} type bridge\n", self.plan.mtu);
        let link_local = self.plan.needs_link_local().then(|| link_local(HUB).into());
        for address in self.hub_addresses().into_iter().chain(link_local) {
            let _ = writeln!(lines, "addr add {} dev br0{}", on_link(address), nodad(address));
        }
        lines.push_str("link set br0 up\n");
        self.hub.ip_batch(&lines);
        forward(&self.hub);
        // A redirect would teach nodes a shorter way for what the tests send in clear on purpose.
        for device in ["all", "br0"] {
            self.hub.sysctl(&format!("net/ipv4/conf/{device}/send_redirects"), "0");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Both prefixes of the overlay, those of a family.
pub fn networks(family: Family) -> Vec<IpNet> {
    let all: [IpNet; 2] = ["10.42.0.0/16".parse().expect("a prefix"), "fd42::/48".parse().expect("a prefix")];
    all.into_iter().filter(|net| if net.addr().is_ipv4() { family.v4() } else { family.v6() }).collect()
}

/// The underlay's IPv4 address with this last byte.
pub fn underlay_v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

/// The underlay's IPv6 address with this last group.
pub fn underlay_v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last)
}

/// The link-local IPv6 address with this last group.
pub(crate) fn link_local(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)
}

/// An underlay address with the length of its prefix.
pub fn on_link(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })
}

/// IPv6 addresses are used at once: nobody else in a lab could have them.
pub fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

/// Lets a namespace forward both versions of IP.
pub fn forward(namespace: &Namespace) {
    namespace.sysctl("net/ipv4/ip_forward", "1");
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1");
}
