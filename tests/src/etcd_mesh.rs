//! Meshes by way of etcd.

use crate::{Agent, Etcd, Lab, Node, Plan, Pod, Sniffer, assert_seen_without_warren, between, eventually, ping};

/// Nodes with a Pod each, all added by the administrator and running.
#[derive(Debug)]
pub struct EtcdMesh {
    /// One for each node.
    pub agents: Vec<Agent>,
    /// One for each node.
    pub pods: Vec<Pod>,
    /// `node1` …
    pub nodes: Vec<Node>,
    /// Their registry.
    pub etcd: Etcd,
    /// Listens since before the first agent started.
    pub sniffer: Sniffer,
    /// Where they are.
    pub lab: Lab,
}

impl EtcdMesh {
    /// Starts that many, and waits until each knows all others.
    #[track_caller]
    pub fn start(plan: Plan, count: usize) -> Self {
        let lab = Lab::with(plan);
        let etcd = Etcd::start(&lab);
        Self::join(lab, etcd, count)
    }

    /// The same with an etcd that runs already.
    #[track_caller]
    pub fn join(lab: Lab, etcd: Etcd, count: usize) -> Self {
        let sniffer = lab.sniff();
        etcd.init(&lab, &[]);
        let nodes: Vec<Node> = (0..count).map(|_| lab.node()).collect();
        let pods = nodes.iter().map(Node::pod).collect();
        let agents = etcd.mesh(&nodes);
        Self { agents, pods, nodes, etcd, sniffer, lab }
    }

    /// Fails the test unless every Pod reaches every other at each of its addresses, encrypted.
    #[track_caller]
    pub fn assert_connected(&self) {
        for from in &self.pods {
            for to in self.pods.iter().flat_map(Pod::addresses).filter(|to| !from.addresses().contains(to)) {
                assert!(ping(from.namespace(), *to), "{} does not reach {to}", from.namespace().name());
            }
        }
        self.sniffer.assert_encrypted();
    }

    /// Fails the test if anything was in clear, or unless the same Pods are seen in clear without Warren.
    #[track_caller]
    pub fn finish(mut self) {
        self.sniffer.assert_encrypted();
        assert_seen_without_warren(&self.sniffer, &mut self.agents, between(&self.pods));
    }

    /// Waits until one Pod reaches another.
    #[track_caller]
    pub fn until_reached(&self, from: usize, to: usize) {
        eventually(15, "one Pod reaches the other", || {
            ping(self.pods[from].namespace(), self.pods[to].address()).then_some(())
        });
    }
}
