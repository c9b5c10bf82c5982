//! Packets that reach the underlay's device past the hooks of IP: as a device of a CNI that hangs on it sends them, or as
//! traffic control or a program there redirects them (eBPF host routing). The guard's hooks on the device itself are the
//! last on their way.
//!
//! ```text
//! pod ── macvlan ────────────────► eth0 of node1 ──► nftables' egress hook ──► traffic control ──► hub: sniffer
//! pod ── pod1 ── mirred redirect ─► eth0 of node1 ─────────────────────────────► traffic control ──► hub: sniffer
//! pod ── pod1 ── bpf_redirect_neigh ► eth0 of node1 ───────────────────────────► traffic control ──► hub: sniffer
//! ```

use std::net::IpAddr;

use warren_tests::dump::dump;
use warren_tests::ping::answered;
use warren_tests::redirect::{NextHop, route_by_program};
use warren_tests::{
    Agent, Family, Lab, Node, Plan, Pod, Sniffer, assert_seen_without_warren, eventually, ping, static_mesh,
    static_mesh_with,
};

/// Two nodes with a Pod each that reach each other.
struct Pair {
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    sniffer: Sniffer,
    _lab: Lab,
}

fn pair() -> Pair {
    pair_in("pods")
}

fn pair_in(mode: &str) -> Pair {
    let lab = Lab::with(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() });
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh_with(&nodes, |_, settings| {
        settings.text("overlay", "mode", mode);
    });
    let pair = Pair { agents, pods, nodes, sniffer, _lab: lab };
    for to in pair.pods[1].addresses() {
        assert!(ping(pair.pods[0].namespace(), *to), "{to} is not reached");
    }
    pair
}

impl Pair {
    /// Fails the test unless the first Pod's packets to the second are all dropped.
    #[track_caller]
    fn cut(&self) {
        for to in self.pods[1].addresses() {
            self.lost(*to);
        }
    }

    /// The same, and each is counted.
    #[track_caller]
    fn refused(&self) {
        for to in self.pods[1].addresses() {
            let refused = self.agents[0].now().guard("refused");
            self.lost(*to);
            self.agents[0].until("every packet is counted", |status| status.guard("refused") >= refused + 3);
        }
    }

    /// Fails the test unless the sniffer sees the same packets now.
    #[track_caller]
    fn seen(&self) {
        for to in self.pods[1].addresses() {
            self.sniffer.reset();
            self.answers(*to);
            assert!(self.sniffer.clear() >= 3, "the sniffer does not see what is sent to {to}");
        }
    }

    #[track_caller]
    fn lost(&self, to: IpAddr) {
        assert_eq!(self.answers(to), 0, "the packets to {to} still go by the node's routes");
        self.sniffer.assert_nothing_in_clear();
    }

    /// Of three requests; whoever answers in this lab does it at once.
    fn answers(&self, to: IpAddr) -> u32 {
        answered(self.pods[0].namespace(), to, 3, &["-W", "0.3"])
    }

    /// Has a program take what comes from the first Pod for the other node, by the next hop that it makes of that one.
    fn program(&self, next: fn(IpAddr) -> NextHop) {
        let [own, other] = &self.nodes;
        for (to, there) in other.cidrs().into_iter().zip(other.addresses()) {
            route_by_program(own, "pod1", to, next(there));
        }
    }

    /// Somebody on the underlay says to have the other node's Pod.
    fn answered_for(&self) {
        for to in self.pods[1].addresses() {
            let neighbour = format!("neigh replace {to} lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
            self.nodes[0].namespace().ip(&neighbour);
        }
    }

    /// One line of `tc` on the first node, which must succeed.
    fn tc(&self, line: &str) -> String {
        tc(&self.nodes[0], line)
    }

    /// What is asked about packets that leave the first node.
    fn filters(&self) -> String {
        self.tc("filter show dev eth0 egress")
    }
}

fn tc(node: &Node, line: &str) -> String {
    node.namespace().run(&["tc"].into_iter().chain(line.split(' ')).collect::<Vec<_>>())
}

/// Gives the Pod a second device straight on the underlay's, and sends there what is for the other node's Pods.
fn attach(node: &Node, pod: &Pod, other: &Node) {
    let name = pod.namespace().name();
    node.namespace().ip(&format!("link add link eth0 name direct0 netns {name} type macvlan mode bridge"));
    pod.namespace().ip("link set direct0 up");
    for cidr in other.cidrs() {
        // The hub's port takes whatever comes for it: no neighbour is asked for.
        let next = if cidr.addr().is_ipv4() { "10.77.0.254" } else { "fd77::fe" };
        pod.namespace().ip(&format!("neigh add {next} lladdr 02:00:00:00:00:01 dev direct0 nud permanent"));
        pod.namespace().ip(&format!("route add {cidr} via {next} dev direct0 onlink"));
    }
}

/// Sends what comes from the Pod for the other node straight out of the underlay's device, from where a CNI's eBPF
/// programs do: the ingress hook of traffic control on the Pod's link.
fn redirect(own: &Node, other: &Node) {
    tc(own, "qdisc add dev pod1 clsact");
    for cidr in other.cidrs() {
        let (protocol, ip) = if cidr.addr().is_ipv4() { ("ip", "ip") } else { ("ipv6", "ip6") };
        let of = format!("filter add dev pod1 ingress protocol {protocol} u32 match {ip} dst {cidr}");
        tc(own, &format!("{of} action mirred egress redirect dev eth0"));
    }
}

#[test]
fn a_packet_past_the_hooks_of_ip_is_dropped_and_counted() {
    let mut pair = pair();
    attach(&pair.nodes[0], &pair.pods[0], &pair.nodes[1]);
    pair.refused();
    pair.sniffer.assert_encrypted();
    // One hook is enough, either of them.
    pair.agents[0].kill();
    pair.tc("qdisc del dev eth0 clsact");
    pair.cut();
    pair.agents[0].up();
    pair.agents[0].ready();
    pair.agents[0].kill();
    pair.nodes[0].namespace().run(&["nft", "delete", "table", "netdev", "warren"]);
    pair.cut();
    // The control: without both the same packets leave, though the rest of the guard stands.
    pair.tc("qdisc del dev eth0 clsact");
    pair.nodes[0].namespace().run(&["nft", "list", "table", "inet", "warren"]);
    pair.seen();
}

#[test]
fn a_packet_that_traffic_control_redirects_is_dropped_and_counted_also_without_an_agent() {
    let mut pair = pair();
    redirect(&pair.nodes[0], &pair.nodes[1]);
    pair.refused();
    pair.sniffer.assert_encrypted();
    pair.agents[0].kill();
    pair.cut();
    pair.agents[0].up();
    pair.agents[0].ready();
    pair.refused();
    pair.agents[0].terminate();
    pair.cut();
    // The control: without the filter the same packets leave, though all of nftables' hooks stand.
    pair.tc("filter del dev eth0 egress");
    pair.nodes[0].namespace().run(&["nft", "list", "table", "netdev", "warren"]);
    pair.seen();
}

/// The helper is given the next hop, or finds one; in the end without an agent.
fn routed_by_a_program(mode: &str) {
    let mut pair = pair_in(mode);
    pair.program(NextHop::Given);
    pair.refused();
    // Where no route leads out by the device the kernel looks for the Pod itself there, and nobody answers.
    pair.program(|_| NextHop::Routed);
    pair.cut();
    // Once somebody does, what waited for it leaves, and what follows.
    pair.answered_for();
    pair.refused();
    pair.sniffer.assert_encrypted();
    pair.agents[0].kill();
    pair.cut();
    pair.program(NextHop::Given);
    pair.cut();
    let ways = pair.pods[1].addresses().iter().map(|to| (pair.pods[0].namespace(), *to));
    assert_seen_without_warren(&pair.sniffer, &mut pair.agents, ways);
    pair.program(|_| NextHop::Routed);
    pair.seen();
}

#[test]
fn a_packet_that_a_program_routes_past_the_kernel_is_dropped_and_counted_also_without_an_agent() {
    routed_by_a_program("pods");
}

#[test]
fn a_packet_that_a_program_routes_past_the_kernel_is_dropped_in_mode_nodes_too() {
    routed_by_a_program("nodes");
}

#[test]
fn the_filter_that_somebody_takes_away_is_back_within_a_second() {
    let pair = pair();
    redirect(&pair.nodes[0], &pair.nodes[1]);
    for sabotage in ["filter del dev eth0 egress", "qdisc del dev eth0 clsact"] {
        let repairs = pair.agents[0].now().value()["repairs"].as_u64().unwrap_or_default();
        pair.tc(sabotage);
        eventually(1, sabotage, || pair.filters().contains("bytecode").then_some(()));
        pair.agents[0].until("counted", |status| status.value()["repairs"].as_u64() > Some(repairs));
        pair.sniffer.reset();
        pair.refused();
    }
}

#[test]
fn cleanup_leaves_no_qdisc_of_ours_and_does_not_touch_somebody_elses() {
    let lab = Lab::with(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() });
    let nodes: [Node; 2] = lab.nodes();
    let _pods = nodes.each_ref().map(Node::pod);
    let foreign = "pref 5 protocol ip u32 match ip dst 198.51.100.1/32 classid 1:1";
    tc(&nodes[1], "qdisc add dev eth0 clsact");
    tc(&nodes[1], &format!("filter add dev eth0 egress {foreign}"));
    tc(&nodes[1], &format!("filter add dev eth0 ingress {foreign}"));
    let state = |node: &Node| {
        let filters = ["egress", "ingress"].map(|hook| tc(node, &format!("filter show dev eth0 {hook}")));
        (dump(node.namespace()), filters)
    };
    let before = nodes.each_ref().map(state);
    let mut agents = static_mesh(&nodes);
    for (node, agent) in nodes.iter().zip(&mut agents) {
        assert!(tc(node, "filter show dev eth0 egress").contains("bytecode"), "there is no filter");
        assert_eq!(agent.now().value()["problems"].to_string(), "[]");
        agent.kill();
        agent.cleanup();
    }
    for (node, before) in nodes.iter().zip(before) {
        pretty(&state(node).0, &before.0);
        assert_eq!(state(node).1, before.1);
    }
}

/// Fails the test with the lines that differ.
#[track_caller]
fn pretty(now: &str, before: &str) {
    let lines = |one: &str, other: &str| {
        one.lines().filter(|line| !other.lines().any(|l| l == *line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((lines(now, before), lines(before, now)), (Vec::new(), Vec::new()));
}
