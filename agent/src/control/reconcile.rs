//! From facts to what is done about them. A reconcile that changes nothing writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use warren_crypto::PublicKey;
use warren_overlay::hold::Effective;
use warren_overlay::mesh::{self, Cluster, Mesh, Origin, Own, Ownership, PeerSpec};
use warren_overlay::record::{ENDPOINTS_MAX, NodeName, RECORD_VERSION, Record};

use super::Control;
use super::desired::{Facts, desired, overhead, protected};
use crate::config::{Associations, Cidrs, Config};
use crate::dataplane::ASSOCIATIONS;
use crate::host::{Desired, HostError, VxlanSocket};
use crate::registry::cache::{Cache, Cached};

/// How often the kernel is asked whether our routes still win.
const CHECK_PERIOD: Duration = Duration::from_secs(15);

impl Control {
    /// Computes the mesh anew and makes data path, host, disk and registry follow.
    pub(super) async fn reconcile(&mut self) {
        let (mut mesh, mut effective) = self.compute();
        // Whoever is gone for good claims nothing any longer, so that others may.
        if mesh.ownership.forget_absent(&effective.peers) {
            self.ownership = mesh.ownership;
            (mesh, effective) = self.compute();
        }
        self.announce(&mesh.refusals);
        self.vanished = effective.vanished.into_keys().collect();
        self.held = effective.held;
        self.deadline = effective.next_deadline.map(|(at, _)| at);
        self.peers = self.on_their_paths(without_ours(effective.peers, &mesh.own_cidrs)).await;
        self.ownership = mesh.ownership.clone();
        self.mesh = mesh;
        self.follow_proven();
        self.remember();
        self.take_effect().await;
    }

    /// Guard, tunnels, routes, record, in this order; what fails keeps the rest from happening until it is mended.
    async fn take_effect(&mut self) {
        let desired = self.desired();
        let guarded = self.host.guard(&desired);
        if !self.note(guarded.map(drop)) {
            return;
        }
        self.count_in_clear();
        // Routes before tunnels would blackhole for a moment, tunnels before routes do nothing: tunnels first.
        self.dataplane.apply(&self.peers, &self.local_prefixes(), self.vteps());
        let routed = self.host.route(&desired).await;
        if self.note(routed.map(drop)) {
            self.publish_record();
        }
    }

    /// Who had a tunnel once stays proven until an administrator says otherwise.
    fn follow_proven(&mut self) {
        self.proven.follow(&self.peers, &self.mesh.own_cidrs, &self.cluster().networks);
        let statics: BTreeSet<_> = self.statics.iter().map(|peer| &peer.name).collect();
        self.proven.forget(Origin::Static, |name| !statics.contains(name));
        let released: BTreeSet<_> =
            self.snapshot.iter().flat_map(|snapshot| &snapshot.released).map(|gone| &gone.node).collect();
        let owners: BTreeSet<_> = self.ownership.owners.values().collect();
        self.proven.forget(Origin::Registry, |name| {
            released.contains(name) && !owners.contains(name) && !self.peers.contains_key(name)
        });
    }

    /// The mesh as the data has it, and the peers in force.
    fn compute(&mut self) -> (Mesh, Effective) {
        let snapshot = self.snapshot.as_deref();
        let mut mesh = mesh::compute(&self.own(), snapshot, &self.statics, &self.ownership, &self.fallback());
        // Of a node that is left with nothing, all that was allocated counts as its own: not what it gives back.
        mesh.own_cidrs.retain(|cidr| !self.config.node.cidrs.rule_out(cidr));
        let effective = self.hold.apply(mesh.peers.clone(), &self.not_known_dead(), Instant::now());
        (mesh, effective)
    }

    pub(super) fn own(&self) -> Own {
        let mut own = own(&self.config, self.public_key, &self.node_addresses, &self.gateways);
        own.cidrs.extend(self.kept());
        own
    }

    /// What the API server no longer names and nobody else got, and what is in use here whoever is to have it, for as long as it
    /// is allocated to this node.
    fn kept(&self) -> BTreeSet<IpNet> {
        let Cidrs::Given(given) = &self.config.node.cidrs else { return BTreeSet::new() };
        if !self.config.has_store() {
            return given.beside(given.kept.iter().chain(&given.lost).copied());
        }
        let networks = self.cluster().networks;
        let inside = |cidr: &IpNet| networks.iter().any(|network| network.contains(cidr));
        let own = self.ownership.owners.iter().filter(|(_, node)| **node == self.config.node.name);
        given.beside(own.map(|(cidr, _)| *cidr).filter(inside))
    }

    pub(super) fn fallback(&self) -> Cluster {
        fallback(&self.config)
    }

    pub(super) fn cluster(&self) -> Cluster {
        self.snapshot.as_ref().and_then(|snapshot| snapshot.cluster.clone()).unwrap_or_else(|| self.fallback())
    }

    pub(super) fn desired(&self) -> Desired {
        desired(&Facts {
            config: &self.config,
            cluster: &self.cluster(),
            mesh: &self.mesh,
            peers: &self.peers,
            proven: &self.proven,
            node_addresses: &self.accepted_addresses(),
            underlay_devices: &self.underlay_devices,
            mtu: self.mtu,
        })
    }

    /// This node's own prefixes: what may leave by the TUN, and what may come out of a tunnel.
    fn local_prefixes(&self) -> Vec<IpNet> {
        let addresses = self.accepted_addresses().into_iter().chain(self.config.overlay.address.iter().copied());
        self.mesh.own_cidrs.iter().copied().chain(addresses.map(IpNet::from)).collect()
    }

    /// Where the kernel of this host takes VXLAN apart.
    fn vteps(&self) -> BTreeSet<SocketAddr> {
        let addresses = self.accepted_addresses();
        let at = |socket: &VxlanSocket| {
            let (v6, port) = (socket.v6, socket.port);
            addresses.iter().filter(move |to| to.is_ipv6() == v6).map(move |to| SocketAddr::new(*to, port))
        };
        self.vxlan.iter().flat_map(at).collect()
    }

    /// Each peer with the MTU of the way to its first endpoint.
    async fn on_their_paths(&mut self, peers: BTreeMap<NodeName, PeerSpec>) -> BTreeMap<NodeName, PeerSpec> {
        let mut result = BTreeMap::new();
        for (name, mut spec) in peers {
            if let Some(endpoint) = spec.endpoints.first() {
                let path = self.path_mtu(endpoint.ip()).await.saturating_sub(overhead(endpoint.is_ipv6()));
                spec.mtu = Some(spec.mtu.unwrap_or(self.mtu).min(path.max(1280)));
            }
            result.insert(name, spec);
        }
        result
    }

    async fn path_mtu(&mut self, address: IpAddr) -> u16 {
        if let Some(mtu) = self.path_mtus.get(&address) {
            return *mtu;
        }
        let default = self.mtu.saturating_add(overhead(address.is_ipv6()));
        let mtu = self.host.path_mtu(address).await.unwrap_or(default);
        self.path_mtus.insert(address, mtu);
        mtu
    }

    /// Brings the host in line; gives the number of writes.
    pub(super) async fn apply_host(&mut self) -> u32 {
        let desired = self.desired();
        let applied = self.host.apply(&desired).await;
        let writes = applied.as_ref().map_or(0, |applied| applied.writes);
        self.note(applied.map(drop));
        writes
    }

    /// Remembers whether the host is as it should be; gives that.
    fn note(&mut self, result: Result<(), HostError>) -> bool {
        let problem = result.err().map(|error| error.to_string());
        match &problem {
            Some(problem) if self.host_problem.as_ref() != Some(problem) => {
                tracing::error!(%problem, "the host cannot be brought in line");
            }
            None if self.host_problem.is_some() => tracing::info!("the host is as it should be again"),
            _ => {}
        }
        self.host_problem = problem;
        self.host_problem.is_none()
    }

    /// Asks the kernel whether our routes win.
    pub(super) async fn check_host(&mut self) {
        self.next_check = Instant::now() + CHECK_PERIOD;
        let problems = self.host.check(&self.desired()).await;
        for problem in problems.iter().filter(|problem| !self.host_problems.contains(problem)) {
            tracing::warn!(%problem, "host");
        }
        self.host_problems = problems;
        self.follow_given().await;
    }

    fn announce(&self, refusals: &[mesh::Refusal]) {
        for refusal in refusals.iter().filter(|refusal| !self.mesh.refusals.contains(refusal)) {
            tracing::warn!(subject = %refusal.subject, reason = %refusal.reason, detail = %refusal.detail, "refused");
        }
    }

    pub(super) fn hold_is_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Keeps on disk what a reboot must not forget: the last good mesh of a store, and who is proven.
    pub(super) fn remember(&mut self) {
        let store = self.config.has_store();
        let cached = Cached {
            snapshot: self.snapshot.as_deref().filter(|_| store).cloned(),
            ownership: if store { self.ownership.clone() } else { Ownership::default() },
            proven: self.proven.clone(),
            api_server: self.api_server.clone(),
        };
        if self.remembered == cached {
            return;
        }
        self.remembered.clone_from(&cached);
        if let Err(error) = Cache::store(&self.config.node.state_dir, &cached) {
            tracing::warn!(%error, "a reboot while the store is down would find no mesh");
        }
    }

    /// The record is published last, when the node can really be reached.
    pub(super) fn publish_record(&self) {
        let record = self.record();
        self.publish.send_if_modified(|published| {
            let differs = published.as_ref() != Some(&record);
            if differs {
                *published = Some(record);
            }
            differs
        });
    }

    fn record(&self) -> Record {
        let associates = self.config.overlay.associations != Associations::Off;
        Record {
            version: RECORD_VERSION,
            name: self.config.node.name.clone(),
            public_key: self.public_key,
            endpoints: self.endpoints(),
            addresses: self.own().addresses,
            cidrs: self.mesh.own_cidrs.clone(),
            mtu: self.mtu,
            workers: self.workers as u16,
            suites: if associates {
                self.suites.iter().map(|suite| suite.name().to_owned()).collect()
            } else {
                Vec::new()
            },
            features: associates.then(|| ASSOCIATIONS.to_owned()).into_iter().collect(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        let all = || endpoints(&self.accepted_addresses(), &self.node_addresses, self.config.underlay.port);
        self.config.node.endpoints.clone().unwrap_or_else(all)
    }
}

/// As many as a record may have; first those that peers know to be this node's.
fn endpoints(accepted: &BTreeSet<IpAddr>, all: &BTreeSet<IpAddr>, port: u16) -> Vec<SocketAddr> {
    let first = accepted.iter().chain(all.difference(accepted)).take(ENDPOINTS_MAX);
    first.map(|address| SocketAddr::new(*address, port)).collect()
}

/// A peer that is only kept must not bring along what has become this node's own.
fn without_ours(mut peers: BTreeMap<NodeName, PeerSpec>, own: &BTreeSet<IpNet>) -> BTreeMap<NodeName, PeerSpec> {
    for peer in peers.values_mut() {
        peer.cidrs.retain(|cidr| !own.iter().any(|own| own.contains(cidr) || cidr.contains(own)));
    }
    peers
}

/// This node, as far as the mesh is concerned.
pub(super) fn own(
    config: &Config,
    public_key: PublicKey,
    node_addresses: &BTreeSet<IpAddr>,
    gateways: &BTreeSet<IpAddr>,
) -> Own {
    let cidrs = config.node.cidrs.known();
    let addresses = node_addresses.iter().chain(&config.overlay.address).copied().collect();
    let protected = match &config.node.cidrs {
        Cidrs::Listed(_) | Cidrs::Given(_) => gateways.iter().copied().chain(protected(config)).collect(),
        // Where nodes allocate for themselves, every node is trusted.
        Cidrs::Auto { .. } => BTreeSet::new(),
    };
    Own { name: config.node.name.clone(), public_key, addresses, cidrs, protected }
}

/// What the configuration says of the cluster, for as long as no store says otherwise.
pub(super) fn fallback(config: &Config) -> Cluster {
    Cluster { id: String::new(), networks: config.overlay.networks.clone(), enforcement: config.overlay.enforcement }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_endpoints_than_a_record_may_have_and_the_known_addresses_first() {
        let all: BTreeSet<IpAddr> = (1..=20).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let accepted: BTreeSet<IpAddr> = all.iter().skip(18).copied().collect();
        let found = endpoints(&accepted, &all, 51840);
        assert_eq!(found.len(), ENDPOINTS_MAX);
        assert_eq!(found[0], SocketAddr::from(([192, 0, 2, 19], 51840)));
        assert_eq!(found[2], SocketAddr::from(([192, 0, 2, 1], 51840)));
    }
}
