//! A node: a namespace wired to the hub, with a key and a folder, and room for Pods.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use warren_crypto::{PrivateKey, PublicKey};

use crate::lab::{HUB, Lab, Plan, Wiring, forward, link_local, nodad, on_link, underlay_v4, underlay_v6};
use crate::namespace::Namespace;
use crate::secret::write_secret;
use crate::{Agent, Pod, Settings, pod};

/// UDP port of every agent.
pub const PORT: u16 = 51840;

/// A machine of the lab.
#[derive(Debug)]
pub struct Node {
    /// 1, 2, 3 …
    pub number: u8,
    /// `node1` …
    pub name: String,
    plan: Plan,
    namespace: Namespace,
    folder: PathBuf,
    public_key: PublicKey,
    pods: Cell<u8>,
}

impl Node {
    pub(crate) fn new(lab: &Lab, number: u8) -> Self {
        let name = format!("node{number}");
        let folder = lab.folder().join(&name);
        std::fs::create_dir_all(&folder).expect("the lab's folder exists");
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("the folder is ours");
        let namespace = Namespace::create(&format!("{}-{name}", lab.id()));
        let public_key = write_key(&folder);
        let node = Self { number, name, plan: lab.plan, namespace, folder, public_key, pods: Cell::new(0) };
        node.wire(lab);
        node
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its files: key, state, config, log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its public key.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Its private key's file.
    pub fn key_file(&self) -> PathBuf {
        self.folder.join("private.key")
    }

    /// Replaces its key.
    pub fn rekey(&mut self) {
        self.public_key = write_key(&self.folder);
    }

    /// Its addresses on the underlay.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let number = self.number;
        self.plan.underlay.only([underlay_v4(number).into(), underlay_v6(number.into()).into()])
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.addresses()[0]
    }

    /// Its Pods' prefixes.
    pub fn cidrs(&self) -> Vec<IpNet> {
        cidrs(self.plan, self.number)
    }

    /// A config file's text as an administrator would write it, without any peer.
    pub fn settings(&self) -> Settings {
        Settings::of(self)
    }

    /// The next Pod.
    pub fn pod(&self) -> Pod {
        Pod::new(self, self.next_pod())
    }

    /// The namespace of the next Pod, which somebody else will wire.
    pub fn sandbox(&self) -> Namespace {
        pod::sandbox(self, self.next_pod())
    }

    fn next_pod(&self) -> u8 {
        self.pods.set(self.pods.get() + 1);
        self.pods.get()
    }

    /// Starts the agent.
    #[track_caller]
    pub fn start(&self, settings: &Settings) -> Agent {
        Agent::start(self, settings)
    }

    /// Cuts its power and boots it again, up to where there is no network yet: of what it was only its files are left.
    /// Its Pods must be gone before.
    pub fn reboot(&self, lab: &Lab) {
        lab.hub().ip(&format!("link del {}", self.name));
        self.namespace.renew();
        self.pods.set(0);
    }

    /// Brings its network up after a reboot.
    pub fn connect(&self, lab: &Lab) {
        self.wire(lab);
    }

    /// How its Pods hang on it.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    fn wire(&self, lab: &Lab) {
        let (name, namespace, mtu) = (&self.name, self.namespace.name(), self.plan.mtu);
        let mut hub = format!("link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {namespace}\n");
        let _ = writeln!(hub, "link set {name} master br0 up");
        lab.hub().ip_batch(&hub);
        let mut lines = String::new();
        for address in self.addresses().into_iter().chain(self.link_local()) {
            let _ = writeln!(lines, "addr add {} dev eth0{}", on_link(address), nodad(address));
        }
        lines.push_str("link set eth0 up\n");
        for way in self.ways_out(lab) {
            let _ = writeln!(lines, "route add {way} dev eth0");
        }
        self.namespace.ip_batch(&lines);
        forward(&self.namespace);
        self.wire_bridge();
        self.route_from(lab);
    }

    /// Ways out for every version of IP that the underlay or the Pods have.
    fn ways_out(&self, lab: &Lab) -> Vec<String> {
        let mut ways: Vec<String> = lab.hub_addresses().iter().map(|hub| format!("default via {hub}")).collect();
        if self.plan.overlay.v4() && !self.plan.underlay.v4() {
            ways.push(format!("0.0.0.0/0 via inet6 {}", lab.hub_address()));
        }
        ways.extend(self.plan.needs_link_local().then(|| format!("default via {}", link_local(HUB))));
        ways
    }

    fn link_local(&self) -> Option<IpAddr> {
        self.plan.needs_link_local().then(|| link_local(self.number.into()).into())
    }

    /// The fabric's route to this node's Pods: what is not caught on the node travels in clear, and is seen.
    fn route_from(&self, lab: &Lab) {
        for cidr in self.cidrs() {
            lab.hub().ip(&format!("route replace {cidr} via {} dev br0", self.gateway_to(cidr)));
        }
    }

    /// An address of this node as the next hop to a prefix; IPv4 may go by way of an IPv6 neighbour (RFC 5549).
    fn gateway_to(&self, cidr: IpNet) -> String {
        let v4 = cidr.addr().is_ipv4();
        let same = self.addresses().into_iter().chain(self.link_local()).find(|address| address.is_ipv4() == v4);
        same.map_or_else(|| format!("inet6 {}", self.address()), |address| address.to_string())
    }

    fn wire_bridge(&self) {
        if self.plan.wiring != Wiring::Bridge {
            return;
        }
        let mut lines = String::from("link add cni0 type bridge\n");
        for cidr in self.cidrs() {
            let gateway = gateway(cidr);
            let _ = writeln!(lines, "addr add {gateway}/{} dev cni0{}", cidr.prefix_len(), nodad(gateway));
        }
        lines.push_str("link set cni0 up\n");
        self.namespace.ip_batch(&lines);
    }
}

/// The first address of a prefix: its node, as its Pods see it.
pub fn gateway(cidr: IpNet) -> IpAddr {
    nth(cidr, 1)
}

/// The n-th address of a prefix.
pub fn nth(cidr: IpNet, n: u8) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(network) => (u32::from(network) + u32::from(n)).to_be_bytes().into(),
        IpAddr::V6(network) => (u128::from(network) + u128::from(n)).to_be_bytes().into(),
    }
}

fn cidrs(plan: Plan, number: u8) -> Vec<IpNet> {
    let all = [format!("10.42.{number}.0/24"), format!("fd42:0:0:{number:x}::/64")];
    let all = all.iter().map(|text| text.parse::<IpNet>().expect("a prefix"));
    all.filter(|net| if net.addr().is_ipv4() { plan.overlay.v4() } else { plan.overlay.v6() }).collect()
}

/// Draws a key and writes it where the agent looks for it.
fn write_key(folder: &Path) -> PublicKey {
    let key = PrivateKey::generate();
    write_secret(&folder.join("private.key"), &key.to_base64());
    key.public_key()
}
