//! Three agents that know each other from their config files.
//!
//! ```text
//! pod ── node1 ══╗          ╔══ node2 ── pod
//!                ╠══ hub ═══╣
//! pod ── node3 ══╝  sniffer
//! ```

use warren_tests::datagram::{Echo, LARGEST, echoed};
use warren_tests::stream::transfer;
use warren_tests::{
    Family, Lab, Node, Plan, Pod, Wiring, assert_seen_without_warren, between, long, ping, static_mesh,
    static_mesh_with,
};

const PLANS: [Plan; 5] = [
    Plan { underlay: Family::V4, overlay: Family::V4, mtu: 1500, wiring: Wiring::HostRoutes },
    Plan { underlay: Family::V6, overlay: Family::V6, mtu: 1500, wiring: Wiring::Bridge },
    Plan { underlay: Family::V4, overlay: Family::Dual, mtu: 9000, wiring: Wiring::Bridge },
    Plan { underlay: Family::V6, overlay: Family::V4, mtu: 1500, wiring: Wiring::HostRoutes },
    Plan { underlay: Family::Dual, overlay: Family::Dual, mtu: 9000, wiring: Wiring::HostRoutes },
];

#[test]
fn pods_of_three_nodes_reach_each_other_and_nothing_is_in_clear() {
    for plan in PLANS {
        let lab = Lab::with(plan);
        let sniffer = lab.sniff();
        let nodes: [Node; 3] = lab.nodes();
        let pods = nodes.each_ref().map(Node::pod);
        let mut agents = static_mesh(&nodes);
        for (from, to) in pairs(&pods) {
            for address in to.addresses() {
                assert!(ping(from.namespace(), *address), "{plan:?}: no reply from {address}");
            }
        }
        sniffer.assert_encrypted();
        assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
    }
}

#[test]
fn every_byte_of_a_large_transfer_arrives_in_both_directions() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let [one, two] = &pods;
    let mut agents = static_mesh(&nodes);
    sniffer.headers_only();
    transfer(one.namespace(), two.namespace(), two.address(), long::large());
    transfer(two.namespace(), one.namespace(), one.address(), long::large());
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
}

#[test]
fn transfers_arrive_whole_over_every_underlay() {
    for plan in PLANS {
        let lab = Lab::with(plan);
        let nodes: [Node; 2] = lab.nodes();
        let [one, two] = nodes.each_ref().map(Node::pod);
        let _agents = static_mesh(&nodes);
        for address in two.addresses() {
            transfer(one.namespace(), two.namespace(), *address, 300);
        }
    }
}

#[test]
fn each_offload_can_be_switched_off() {
    for offload in ["tun_tso", "tun_uso", "udp_gso", "udp_gro"] {
        let lab = Lab::new();
        let nodes: [Node; 2] = lab.nodes();
        let [one, two] = nodes.each_ref().map(Node::pod);
        let agents = static_mesh_with(&nodes, |_, settings| {
            settings.set("offload", offload, false);
        });
        let used = agents[0].now().value()["offloads"].to_string();
        assert!(!used.contains(offload), "{offload} is off, yet used: {used}");
        transfer(one.namespace(), two.namespace(), two.address(), 300);
        let echo = Echo::start(two.namespace(), two.address());
        assert!(echoed(one.namespace(), echo.address(), 4000), "with {offload} off");
    }
}

#[test]
fn agents_with_different_offloads_understand_each_other() {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let [one, two] = nodes.each_ref().map(Node::pod);
    let _agents = static_mesh_with(&nodes, |node, settings| {
        for offload in ["tun_tso", "tun_uso", "udp_gso", "udp_gro"] {
            settings.set("offload", offload, node.number == 1);
        }
    });
    transfer(one.namespace(), two.namespace(), two.address(), 300);
    transfer(two.namespace(), one.namespace(), one.address(), 300);
}

#[test]
fn udp_datagrams_of_every_size_arrive() {
    let lab = Lab::with(Plan { overlay: Family::Dual, ..Plan::default() });
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let [one, two] = &pods;
    let mut agents = static_mesh(&nodes);
    let around = |middle: usize| middle - 8..=middle + 8;
    let sizes = (0..=66).chain(around(1372)).chain(around(1392)).chain(around(1412)).chain(around(1472));
    let sizes = sizes.chain((2000..LARGEST).step_by(4999)).chain(LARGEST - 3..=LARGEST);
    let sizes: Vec<usize> = sizes.collect();
    for address in two.addresses() {
        let echo = Echo::start(two.namespace(), *address);
        for size in &sizes {
            assert!(echoed(one.namespace(), echo.address(), *size), "{size} bytes to {address}");
        }
    }
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
}

fn pairs(pods: &[Pod]) -> impl Iterator<Item = (&Pod, &Pod)> {
    let all = pods.iter().flat_map(move |from| pods.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| from.address() != to.address())
}
