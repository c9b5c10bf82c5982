//! One cell of the matrix: three nodes beneath a CNI, kube-proxy's rules, Warren, everything that a cluster says, and at
//! the end the control: the same without Warren, which the sniffer must see.
//!
//! ```text
//! client (pod 1) ── node1 ═══╤═══ node2 ── web (pod 2)
//!                            │
//!      outside (hub) ────────┴═══ node3 ── dns, third (pod 3)
//! ```

use std::net::{IpAddr, SocketAddr};

use super::Cni;
use super::calico::Tunnel;
use super::dns;
use super::flow::Flow;
use super::kube_proxy::{KubeProxy, Service};
use super::plugin::HostPort;
use crate::lab::networks;
use crate::witness::Witness;
use crate::{Agent, Family, Lab, Node, Plan, Pod, Settings, Sniffer, Wiring};

/// Where every Pod and every node listens.
const PORT: u16 = 8080;
/// Where every node listens too: exempt between nodes, and not for Pods.
const KUBELET: u16 = 10250;
/// Where the name server listens.
const DNS_PORT: u16 = 5353;
/// Ports of the nodes: of a service, of one with `externalTrafficPolicy: Local`, and of the Pod itself.
const NODE_PORT: u16 = 30080;
const LOCAL_PORT: u16 = 30081;
const HOST_PORT: u16 = 8088;

/// What Warren carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `mode = "pods"`.
    Pods,
    /// `mode = "nodes"`.
    Nodes,
}

impl Mode {
    /// As it is configured.
    pub fn name(self) -> &'static str {
        if self == Self::Pods { "pods" } else { "nodes" }
    }
}

/// One combination.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The network.
    pub cni: Cni,
    /// What Warren carries.
    pub mode: Mode,
    /// Of Pods and underlay.
    pub family: Family,
    /// Of the underlay.
    pub mtu: u16,
    /// The services' rules.
    pub proxy: KubeProxy,
}

/// What a cell showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Ways that must be encrypted.
    pub sealed: usize,
    /// Of these, seen in clear without Warren.
    pub seen: usize,
    /// All ways.
    pub ways: usize,
    /// Of these, as they must be.
    pub reached: usize,
    /// Frames in clear with Warren.
    pub clear: u64,
    /// Datagrams of the tunnel.
    pub tunnel: u64,
    /// Everything that is not as it must be, with Warren and without.
    pub faults: Vec<String>,
}

/// The three nodes with their Pods.
struct Cluster {
    cell: Cell,
    witnesses: Vec<Witness>,
    names: Vec<dns::Server>,
    agents: Vec<Agent>,
    pods: [Pod; 3],
    _tunnels: Vec<Tunnel>,
    nodes: [Node; 3],
    sniffer: Sniffer,
    lab: Lab,
}

impl Cell {
    /// Builds it, runs everything with Warren, and again without.
    #[track_caller]
    pub fn run(self) -> Outcome {
        let mut cluster = Cluster::start(self);
        let mut outcome = cluster.with_warren();
        cluster.agents.iter_mut().for_each(|agent| {
            agent.kill();
            agent.cleanup();
        });
        cluster.without_warren(&mut outcome);
        outcome
    }
}

impl Cluster {
    #[track_caller]
    fn start(cell: Cell) -> Self {
        let plan = Plan { underlay: cell.family, overlay: cell.family, mtu: cell.mtu, wiring: Wiring::HostRoutes };
        let lab = Lab::with(plan);
        let sniffer = Sniffer::start_with(lab.hub(), &in_clear(cell.mode));
        let nodes: [Node; 3] = lab.nodes();
        let tunnels = cell.cni.install(&nodes);
        let port = [HostPort { host: HOST_PORT, pod: PORT }];
        let pods = nodes.each_ref().map(|node| cell.cni.attach(node, &port[usize::from(node.number != 2)..]));
        let mut cluster = Self {
            cell,
            witnesses: vec![],
            names: vec![],
            agents: vec![],
            pods,
            _tunnels: tunnels,
            nodes,
            sniffer,
            lab,
        };
        cluster.listen();
        for node in &cluster.nodes {
            cell.proxy.install(node, &networks(cell.family), &cluster.services());
        }
        cluster.start_agents();
        cluster
    }

    fn listen(&mut self) {
        for pod in &self.pods {
            self.witnesses.extend(pod.addresses().iter().map(|at| Witness::start(pod.namespace(), at_port(*at, PORT))));
        }
        for node in &self.nodes {
            let all = node.addresses().into_iter().chain(self.cell.cni.host_addresses(node));
            self.witnesses.extend(all.map(|at| Witness::start(node.namespace(), at_port(at, PORT))));
            let kubelet = |at| Witness::start(node.namespace(), at_port(at, KUBELET));
            self.witnesses.extend(node.addresses().into_iter().map(kubelet));
        }
        let third = &self.pods[2];
        let server = |at: &IpAddr| dns::Server::start(third.namespace(), at_port(*at, DNS_PORT));
        self.names.extend(third.addresses().iter().map(server));
    }

    #[track_caller]
    fn start_agents(&mut self) {
        let agents: Vec<Agent> = self.nodes.iter().map(|node| node.start(&self.settings(node))).collect();
        for agent in &agents {
            agent.ready();
        }
        self.agents = agents;
    }

    /// In `nodes` mode a CNI that wraps keeps its prefixes to itself.
    fn hides_prefixes(&self) -> bool {
        self.cell.mode == Mode::Nodes && self.cell.cni.wraps()
    }

    fn settings(&self, node: &Node) -> Settings {
        let Cell { cni, mode, .. } = self.cell;
        let mut settings = node.settings();
        settings.text("overlay", "mode", mode.name());
        let hidden = self.hides_prefixes();
        if hidden {
            settings.list::<&str>("node", "cidrs", []).list::<&str>("overlay", "networks", []);
        } else {
            cni.source(node, &mut settings);
        }
        for other in self.nodes.iter().filter(|other| other.number != node.number) {
            settings.peer_with(other, if hidden { Vec::new() } else { cni.prefixes(other) });
        }
        settings
    }

    fn with_warren(&self) -> Outcome {
        let flows = self.flows();
        let told: Vec<Vec<String>> = flows.iter().map(Flow::run).collect();
        let mut outcome = Outcome {
            ways: flows.len(),
            reached: told.iter().filter(|faults| faults.is_empty()).count(),
            sealed: flows.iter().filter(|flow| flow.sealed).count(),
            faults: told.concat(),
            ..Outcome::default()
        };
        outcome.clear = self.sniffer.clear();
        outcome.tunnel = self.sniffer.tunnel();
        if outcome.clear > 0 {
            outcome.faults.extend(flows.iter().filter_map(|flow| self.leak(flow)));
            outcome.faults.push(format!("{} frames were in clear", outcome.clear));
        }
        if outcome.tunnel == 0 {
            outcome.faults.push("no datagram of the tunnel was seen".to_owned());
        }
        let problems = self
            .agents
            .iter()
            .flat_map(|agent| agent.now().problems().into_iter().map(str::to_owned).collect::<Vec<_>>());
        outcome.faults.extend(problems.map(|problem| format!("an agent complains: {problem}")));
        outcome
    }

    /// Which flow it was that showed something in clear.
    fn leak(&self, flow: &Flow<'_>) -> Option<String> {
        self.sniffer.reset();
        flow.run();
        (self.sniffer.clear() > 0).then(|| format!("in clear: {} to {}", flow.kind, flow.to))
    }

    /// The control: each way that was sealed works without Warren, and is seen.
    fn without_warren(&self, outcome: &mut Outcome) {
        for flow in self.flows().iter().filter(|flow| flow.sealed) {
            self.sniffer.reset();
            outcome.faults.extend(flow.run().into_iter().map(|fault| format!("without Warren: {fault}")));
            if self.sniffer.clear() > 0 {
                outcome.seen += 1;
            } else {
                outcome.faults.push(format!("without Warren nothing is seen of {} to {}", flow.kind, flow.to));
            }
        }
    }

    fn services(&self) -> Vec<Service> {
        let mut services = Vec::new();
        for v6 in [false, true].into_iter().filter(|v6| if *v6 { self.cell.family.v6() } else { self.cell.family.v4() })
        {
            let pod =
                |number: u8, port| (number, at_port(of(self.pods[usize::from(number) - 1].addresses(), v6), port));
            let node = |number: u8| (number, at_port(of(&self.nodes[usize::from(number) - 1].addresses(), v6), PORT));
            let service = |name, last, port, node_port, local, endpoint| {
                let cluster = at_port(service_address(v6, last), port);
                Service { name, cluster, node_port, local, endpoints: vec![endpoint] }
            };
            services.extend([
                service("ns1/web", 10, 80, Some(NODE_PORT), false, pod(2, PORT)),
                service("ns1/local", 11, 80, Some(LOCAL_PORT), true, pod(2, PORT)),
                service("ns1/host", 12, 443, None, false, node(2)),
                service("ns1/webhook", 13, 443, None, false, pod(3, PORT)),
                service("kube-system/dns", 53, 53, None, false, pod(3, DNS_PORT)),
            ]);
        }
        services
    }

    fn flows(&self) -> Vec<Flow<'_>> {
        let families = [false, true].into_iter();
        let spoken = |v6: &bool| if *v6 { self.cell.family.v6() } else { self.cell.family.v4() };
        families.filter(spoken).flat_map(|v6| self.flows_of(v6)).collect()
    }

    fn flows_of(&self, v6: bool) -> Vec<Flow<'_>> {
        let [client, web, third] = self.pods.each_ref();
        let node = |number: usize| of(&self.nodes[number - 1].addresses(), v6);
        let host = |number: usize| self.hosts(number, v6);
        let pod = |pod: &Pod| of(pod.addresses(), v6);
        let hub = of(&self.lab.hub_addresses(), v6);
        let (inside, outside) = (client.namespace(), self.lab.hub());
        let host_network = self.nodes[0].namespace();
        let way = |kind, from, to, port, sources: Vec<IpAddr>| Flow {
            kind,
            from,
            to: at_port(to, port),
            sources,
            sealed: true,
        };
        // A Pod may be masqueraded on its way to a node, by its own node.
        let pod_or_node = |from: &Pod, number: usize| [vec![pod(from)], host(number)].concat();
        let hidden = self.cell.cni.hides_pods();
        let seen = |from: &Pod, number| if hidden { host(number) } else { vec![pod(from)] };
        let all = self.cell.proxy.masquerade_all;
        let through_proxy = |from: &Pod, number| if all { host(number) } else { seen(from, number) };
        let service = |last| service_address(v6, last);
        let mut flows = vec![
            way("Pod → Pod", inside, pod(web), PORT, seen(client, 1)),
            way("Pod → Pod", web.namespace(), pod(third), PORT, seen(web, 2)),
            way("Pod → Pod", third.namespace(), pod(client), PORT, seen(third, 3)),
            way("Pod → node", inside, node(2), PORT, pod_or_node(client, 1)),
            way("Pod → node", web.namespace(), node(1), PORT, pod_or_node(web, 2)),
            way("node → Pod", host_network, pod(web), PORT, host(1)),
            way("Pod → ClusterIP", inside, service(10), 80, through_proxy(client, 1)),
            way("Pod → ClusterIP of a host", inside, service(12), 443, pod_or_node(client, 1)),
            way("host → ClusterIP", host_network, service(10), 80, host(1)),
            way("API server → webhook", host_network, service(13), 443, host(1)),
            way("DNS", inside, service(53), 53, vec![]),
            way("Pod → hostPort", inside, node(2), HOST_PORT, pod_or_node(client, 1)),
            open(way("outside → hostPort", outside, node(2), HOST_PORT, vec![hub])),
            way("Pod → NodePort", third.namespace(), node(1), NODE_PORT, host(1)),
            open(way("outside → NodePort", outside, node(1), NODE_PORT, host(1))),
            open(way("outside → NodePort, Local", outside, node(2), LOCAL_PORT, vec![hub])),
        ];
        // Without prefixes it is taken for what the node says to the kubelet, and that is exempt.
        if !self.hides_prefixes() {
            flows.push(way("Pod → kubelet", inside, node(2), KUBELET, pod_or_node(client, 1)));
        }
        for own in host(1).into_iter().filter(|own| !is_anycast(*own)) {
            flows.push(open(way("Pod → own node", inside, own, PORT, pod_or_node(client, 1))));
        }
        for other in host(2).into_iter().filter(|other| *other != node(2)) {
            flows.push(way("Pod → node's Pod address", inside, other, PORT, pod_or_node(client, 1)));
        }
        if self.cell.mode == Mode::Nodes {
            flows.push(way("host → host", host_network, node(2), PORT, vec![node(1)]));
        }
        flows
    }

    /// Whom a node's host may be taken for.
    fn hosts(&self, number: usize, v6: bool) -> Vec<IpAddr> {
        let node = &self.nodes[number - 1];
        let all = node.addresses().into_iter().chain(self.cell.cni.host_addresses(node));
        all.filter(|address| address.is_ipv6() == v6).collect()
    }
}

/// A way that need not be encrypted, or cannot be.
fn open(flow: Flow<'_>) -> Flow<'_> {
    Flow { sealed: false, ..flow }
}

/// In pcap's language: what must not be seen. Pods' addresses, and the tunnels that CNIs make of them; in `nodes` mode
/// whatever nodes say to each other.
fn in_clear(mode: Mode) -> String {
    let pods = "(ip and net 10.42.0.0/16) or (ip6 and net fd42::/48)";
    let tunnels = "(udp port 8472) or (udp port 4789) or (ip proto 4)";
    let nodes = "((ip and src net 10.77.0.0/24 and dst net 10.77.0.0/24 and not host 10.77.0.254) or \
         (ip6 and src net fd77::/64 and dst net fd77::/64 and not host fd77::fe and not (ip6[6] = 58 and ip6[40] > 132 \
         and ip6[40] < 138))) and not udp port 51840";
    if mode == Mode::Nodes { format!("{pods} or {tunnels} or ({nodes})") } else { format!("{pods} or {tunnels}") }
}

fn at_port(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

#[track_caller]
fn of(addresses: &[IpAddr], v6: bool) -> IpAddr {
    *addresses.iter().find(|address| address.is_ipv6() == v6).expect("it has an address of each version that it speaks")
}

/// The first address of an IPv6 prefix is every router's there (RFC 4291): no connection can be opened to it.
fn is_anycast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[4..] == [0; 4])
}

/// Of the services' network.
fn service_address(v6: bool, last: u8) -> IpAddr {
    if v6 { [0xfd96, 0, 0, 0, 0, 0, 0, u16::from(last)].into() } else { [10, 96, 0, last].into() }
}
