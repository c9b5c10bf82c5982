//! A node: a namespace wired to the hub, with a key and a folder, and room for Pods.

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use warren_crypto::{PrivateKey, PublicKey};

use crate::lab::{Lab, Plan, Wiring, forward, nodad, on_link, underlay_v4, underlay_v6};
use crate::namespace::Namespace;
use crate::secret::write_secret;
use crate::{Agent, Pod, Settings};

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
        self.pods.set(self.pods.get() + 1);
        Pod::new(self, self.pods.get())
    }

    /// Starts the agent.
    #[track_caller]
    pub fn start(&self, settings: &Settings) -> Agent {
        Agent::start(self, settings)
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
        for address in self.addresses() {
            let _ = writeln!(lines, "addr add {} dev eth0{}", on_link(address), nodad(address));
        }
        lines.push_str("link set eth0 up\n");
        for gateway in lab.hub_addresses() {
            let _ = writeln!(lines, "route add default via {gateway}");
        }
        self.namespace.ip_batch(&lines);
        forward(&self.namespace);
        self.wire_bridge();
        self.route_from(lab);
    }

    /// The fabric's route to this node's Pods: what is not caught on the node travels in clear, and is seen.
    fn route_from(&self, lab: &Lab) {
        for cidr in self.cidrs() {
            if let Some(via) = self.gateway_for(cidr) {
                lab.hub().ip(&format!("route add {cidr} via {via} dev br0"));
            }
        }
    }

    /// An address of this node as the next hop to a prefix; IPv4 by way of an IPv6 neighbour is possible (RFC 5549), the
    /// other way round is not.
    fn gateway_for(&self, cidr: IpNet) -> Option<String> {
        let (v4, addresses) = (cidr.addr().is_ipv4(), self.addresses());
        let same = addresses.iter().find(|address| address.is_ipv4() == v4).map(ToString::to_string);
        same.or_else(|| v4.then(|| format!("inet6 {}", self.address())))
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
