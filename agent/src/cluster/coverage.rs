//! Whom `strict` would cut off: nodes that ought to have an agent which all others accept, and have none. Pure.
//!
//! Two nodes that both have one, and never reached each other, are known to these two alone: of them only what the agent on
//! this host says is looked at.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use warren_crypto::PublicKey;
use warren_overlay::mesh::{Cluster, Mesh, Own, Ownership, PeerSpec, Refusal, Snapshot, compute};
use warren_overlay::record::NodeName;

use crate::status::{InClear, PeerStatus, Status};

/// Nodes that are named one by one.
const NAMED: usize = 8;
/// Whose eyes the mesh is seen with: a name that is nobody's.
const BYSTANDER: &str = "warren-cluster-enforce.invalid";

/// Nodes that somebody else than the store says there are; each with the prefixes that it was given, and what is wrong with
/// its agent, as far as they know.
pub(super) type Nodes = BTreeMap<String, (Vec<IpNet>, Option<String>)>;

/// What there is.
pub(super) struct Facts<'a> {
    /// What the registry holds.
    pub(super) snapshot: &'a Snapshot,
    /// The nodes of a Kubernetes cluster.
    pub(super) nodes: &'a Nodes,
    /// What the agent on this host says.
    pub(super) agent: Option<&'a Status>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    /// Who would be cut off, each with the reason.
    lacks: BTreeMap<String, String>,
    /// How many nodes there ought to be.
    pub(super) nodes: usize,
    /// The agent on this host, if it is one of this cluster's.
    pub(super) agent: Option<String>,
}

/// Looks at every node that there ought to be.
pub(super) fn coverage(facts: &Facts<'_>) -> Coverage {
    let mesh = mesh(facts.snapshot);
    let agent = facts.agent.filter(|agent| is_of(agent, &mesh));
    let owners = facts.snapshot.allocations.iter().map(|given| given.node.as_str());
    let names: BTreeSet<&str> = owners.chain(facts.nodes.keys().map(String::as_str)).collect();
    let mut lacks = BTreeMap::new();
    for name in &names {
        let of_agent = || facts.nodes.get(*name)?.1.clone();
        let refused = || remembered(agent?, name);
        if let Some(why) = lacks_record(facts, &mesh, name).or_else(of_agent).or_else(refused) {
            lacks.insert((*name).to_owned(), why);
        }
    }
    if let Some(agent) = agent {
        // Of peers out of its file the enforcement says nothing.
        for peer in agent.peers.iter().filter(|peer| !peer.proven && names.contains(peer.name.as_str())) {
            lacks.entry(peer.name.clone()).or_insert_with(|| never_reached(agent, peer));
        }
        lacks.iter_mut().for_each(|(name, why)| why.push_str(&in_clear(agent, name)));
    }
    Coverage { lacks, nodes: names.len(), agent: agent.map(|agent| agent.node.clone()) }
}

/// As every node sees it.
fn mesh(snapshot: &Snapshot) -> Mesh {
    let own = BYSTANDER.parse().map(|name| Own {
        name,
        public_key: PublicKey::from_bytes([0; 32]),
        addresses: BTreeSet::new(),
        cidrs: BTreeSet::new(),
        protected: BTreeSet::new(),
    });
    let seen_by = |own| compute(&own, Some(snapshot), &[], &Ownership::default(), &Cluster::default());
    own.map(seen_by).unwrap_or_default()
}

/// Whether the agent is this cluster's: its name and key are published there.
fn is_of(agent: &Status, mesh: &Mesh) -> bool {
    peer(mesh, &agent.node).is_some_and(|peer| peer.public_key.to_string() == agent.public_key)
}

fn peer<'m>(mesh: &'m Mesh, name: &str) -> Option<&'m PeerSpec> {
    mesh.peers.get(&name.parse::<NodeName>().ok()?)
}

/// What is wrong with a node's record.
fn lacks_record(facts: &Facts<'_>, mesh: &Mesh, name: &str) -> Option<String> {
    let refusal = |of_prefix: bool| {
        let mut refusals = mesh.refusals.iter();
        refusals.find(|refusal| refusal.subject == name && refusal.cidr.is_some() == of_prefix)
    };
    let said = |refusal: &Refusal| format!("{} ({})", refusal.detail, refusal.reason);
    let Some(peer) = peer(mesh, name) else {
        return Some(match refusal(false) {
            Some(refusal) => format!("its record is refused: {}", said(refusal)),
            None => "there is no record of it: no agent runs there".to_owned(),
        });
    };
    let has = |v6: bool| peer.cidrs.iter().any(|cidr| cidr.addr().is_ipv6() == v6);
    let version = |v6: bool| if v6 { "IPv6" } else { "IPv4" };
    let v6 = needs(facts, name).into_iter().find(|v6| !has(*v6))?;
    let why = refusal(true).map_or_else(String::new, |refusal| format!(": {}", said(refusal)));
    Some(format!("its agent claims none of the {} prefixes that it has{why}", version(v6)))
}

/// Of which versions of IP (`true`: IPv6) the node has Pods in the overlay: by its allocations, and by what Kubernetes gave
/// it inside the cluster network.
fn needs(facts: &Facts<'_>, name: &str) -> BTreeSet<bool> {
    let given = facts.snapshot.allocations.iter().filter(|given| given.node.as_str() == name).map(|given| given.cidr);
    let given = given.filter(|cidr| cidr.prefix_len() < cidr.max_prefix_len());
    let networks = facts.snapshot.cluster.iter().flat_map(|cluster| &cluster.networks);
    let inside = |cidr: &&IpNet| networks.clone().any(|network| network.contains(*cidr));
    let of_node = facts.nodes.get(name).into_iter().flat_map(|(prefixes, _)| prefixes).filter(inside);
    given.chain(of_node.copied()).map(|cidr| cidr.addr().is_ipv6()).collect()
}

/// What the agent on this host holds against the node, by what it remembers and the store no longer says.
fn remembered(agent: &Status, name: &str) -> Option<String> {
    let refusal = agent.refusals.iter().find(|refusal| refusal.subject == name)?;
    Some(format!("the agent on {} refuses it: {} ({})", agent.node, refusal.detail, refusal.reason))
}

fn never_reached(agent: &Status, peer: &PeerStatus) -> String {
    format!("the agent on {} has never had a tunnel with it ({})", agent.node, peer.state)
}

/// What passed in clear between the node and this host.
fn in_clear(agent: &Status, name: &str) -> String {
    match agent.in_clear.get(name) {
        Some(InClear { sent, received }) if sent + received > 0 => {
            format!("; {} sent it {sent} packets in clear and got {received}", agent.node)
        }
        _ => String::new(),
    }
}

impl Coverage {
    /// Nobody would be cut off, as far as can be seen from here.
    pub(super) fn is_full(&self) -> bool {
        self.lacks.is_empty()
    }

    /// How many would be cut off.
    pub(super) fn lacking(&self) -> usize {
        self.lacks.len()
    }

    /// The first of them by name with their reasons, a line each, and how many more there are.
    pub(super) fn lines(&self) -> String {
        let line = |(name, why): (&String, &String)| printable(&format!("  {name}: {why}"));
        let mut lines: Vec<_> = self.lacks.iter().take(NAMED).map(line).collect();
        if self.lacks.len() > NAMED {
            lines.push(format!("  and {} more", self.lacks.len() - NAMED));
        }
        lines.join("\n")
    }
}

/// What others say stays on its line.
fn printable(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use warren_overlay::mesh::{Allocation, Entry};
    use warren_overlay::record::{RECORD_VERSION, Record};

    use super::*;

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }

    fn entry(name: &str, number: u8, cidrs: &[&str]) -> Entry {
        let record = Record {
            version: RECORD_VERSION,
            name: name.parse().unwrap(),
            public_key: key(number),
            endpoints: vec![([192, 0, 2, number], 51840).into()],
            addresses: [[192, 0, 2, number].into()].into(),
            cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            mtu: 1420,
            workers: 1,
            suites: Vec::new(),
            features: BTreeSet::new(),
            agent: String::new(),
        };
        Entry { key: name.to_owned(), value: record.to_bytes(), create_revision: u64::from(number) }
    }

    fn snapshot(allocations: &[(&str, &str)], entries: Vec<Entry>) -> Snapshot {
        let allocations = allocations.iter().map(|(cidr, node)| Allocation {
            cidr: cidr.parse().unwrap(),
            node: node.parse().unwrap(),
            create_revision: 1,
        });
        let cluster = Cluster { networks: ["10.0.0.0/8".parse().unwrap()].into(), ..Cluster::default() };
        Snapshot { cluster: Some(cluster), allocations: allocations.collect(), entries, ..Snapshot::default() }
    }

    fn peer(name: &str, proven: bool) -> PeerStatus {
        PeerStatus { name: name.to_owned(), state: "connecting".to_owned(), proven, ..PeerStatus::default() }
    }

    fn lacks(snapshot: &Snapshot, nodes: &Nodes, agent: Option<&Status>) -> String {
        coverage(&Facts { snapshot, nodes, agent }).lines()
    }

    #[test]
    fn every_node_with_a_prefix_needs_a_record_that_others_accept() {
        let given = [("10.1.0.0/24", "a"), ("10.2.0.0/24", "b"), ("10.3.0.0/24", "c"), ("10.4.0.0/24", "d")];
        let entries = vec![entry("a", 1, &["10.1.0.0/24"]), entry("c", 1, &["10.3.0.0/24"]), entry("d", 4, &[])];
        let said = lacks(&snapshot(&given, entries), &Nodes::new(), None);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert_eq!(lines[0], "  b: there is no record of it: no agent runs there");
        assert!(
            lines[1].starts_with("  c: its record is refused: ") && lines[1].ends_with("(duplicate_key)"),
            "{said}"
        );
        assert_eq!(lines[2], "  d: its agent claims none of the IPv4 prefixes that it has");
    }

    #[test]
    fn what_kubernetes_gave_a_node_counts_in_each_version_of_ip_and_only_inside_of_the_network() {
        let snapshot = snapshot(&[], vec![entry("a", 1, &[]), entry("b", 2, &["10.2.0.0/24"])]);
        let given = |cidrs: &[&str]| (cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(), None);
        let said = |cidrs: &[&str]| lacks(&snapshot, &[("a".to_owned(), given(cidrs))].into(), None);
        assert_eq!(said(&["10.1.0.0/24"]), "  a: its agent claims none of the IPv4 prefixes that it has");
        assert_eq!(said(&["192.168.1.0/24"]), "", "the CNI gives its Pods others");
        let dual = [("10.1.0.0/24", "a"), ("fd00:1::/64", "a")];
        let dual = self::snapshot(&dual, vec![entry("a", 1, &["10.1.0.0/24"])]);
        let said = lacks(&dual, &Nodes::new(), None);
        let none = "  a: its agent claims none of the IPv6 prefixes that it has: ";
        assert!(said.starts_with(none) && said.ends_with(" (outside_network)"), "{said}");
    }

    #[test]
    fn a_host_without_pods_needs_none_and_one_with_an_address_alone_claims_none() {
        let entries = vec![entry("a", 1, &["10.1.0.0/24"]), entry("host", 2, &[])];
        let given = [("10.1.0.0/24", "a"), ("192.0.2.2/32", "host")];
        assert_eq!(lacks(&snapshot(&given, entries), &Nodes::new(), None), "");
    }

    #[test]
    fn nodes_that_only_kubernetes_knows_are_missed_too_and_their_pods_looked_at() {
        let entries = vec![entry("a", 1, &["10.1.0.0/24"]), entry("b", 2, &["10.2.0.0/24"])];
        let snapshot = snapshot(&[("10.1.0.0/24", "a"), ("10.2.0.0/24", "b")], entries);
        let nodes = [("a", None), ("b", Some("its Pod x is not ready")), ("Node_3", None)];
        let nodes: Nodes = nodes.map(|(name, why)| (name.to_owned(), (Vec::new(), why.map(str::to_owned)))).into();
        let found = coverage(&Facts { snapshot: &snapshot, nodes: &nodes, agent: None });
        assert_eq!((found.nodes, found.lacking()), (3, 2));
        assert_eq!(
            found.lines(),
            "  Node_3: there is no record of it: no agent runs there\n  b: its Pod x is not ready"
        );
    }

    #[test]
    fn the_agent_on_this_host_names_whom_it_never_reached_and_what_passed_in_clear() {
        let entries = vec![entry("a", 1, &["10.1.0.0/24"]), entry("b", 2, &["10.2.0.0/24"])];
        let snapshot = snapshot(&[("10.1.0.0/24", "a"), ("10.2.0.0/24", "b")], entries);
        let mut agent = Status {
            node: "a".to_owned(),
            public_key: key(1).to_string(),
            peers: vec![peer("b", false), peer("file", true)],
            in_clear: [("b".to_owned(), InClear { sent: 7, received: 5 })].into(),
            ..Status::default()
        };
        let said = lacks(&snapshot, &Nodes::new(), Some(&agent));
        let expected =
            "  b: the agent on a has never had a tunnel with it (connecting); a sent it 7 packets in clear and got 5";
        assert_eq!(said, expected);
        agent.public_key = key(9).to_string();
        assert_eq!(lacks(&snapshot, &Nodes::new(), Some(&agent)), "", "it belongs to another cluster");
        agent.public_key = key(1).to_string();
        agent.peers[0].proven = true;
        assert_eq!(lacks(&snapshot, &Nodes::new(), Some(&agent)), "");
    }

    #[test]
    fn of_many_the_first_are_named_and_the_others_counted() {
        let nodes: Nodes = (0..20).map(|number| (format!("n{number:02}"), (Vec::new(), None))).collect();
        let said = lacks(&snapshot(&[], Vec::new()), &nodes, None);
        assert_eq!(said.lines().count(), NAMED + 1);
        assert!(said.starts_with("  n00: ") && said.ends_with("  and 12 more"), "{said}");
    }
}
