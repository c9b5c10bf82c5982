//! Traffic that begins or ends on the hosts themselves, is translated on its way, or has nowhere to go. Each test ends
//! with its control: the same traffic without Warren is seen.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pod
//!         host         sniffer      host
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use warren_tests::datagram::{self, Echo, echoed};
use warren_tests::node::gateway;
use warren_tests::stream::transfer;
use warren_tests::tcp::Counters;
use warren_tests::{
    Agent, Family, Lab, Node, Plan, Pod, Sniffer, Wiring, assert_seen_without_warren, ping, static_mesh,
};

/// Two nodes with a Pod each, and everything that watches them.
struct Pair {
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    sniffer: Sniffer,
    _lab: Lab,
}

fn pair(plan: Plan) -> Pair {
    let lab = Lab::with(plan);
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh(&nodes);
    Pair { agents, pods, nodes, sniffer, _lab: lab }
}

#[test]
fn a_host_reaches_the_pods_of_other_nodes() {
    for wiring in [Wiring::Bridge, Wiring::HostRoutes] {
        let Pair { agents, pods, nodes, sniffer, .. } =
            &mut pair(Plan { overlay: Family::Dual, underlay: Family::Dual, wiring, ..Plan::default() });
        for address in pods[1].addresses() {
            assert!(ping(nodes[0].namespace(), *address), "{wiring:?}: no reply from {address}");
            transfer(nodes[0].namespace(), pods[1].namespace(), *address, 50);
        }
        sniffer.assert_encrypted();
        let ways = pods[1].addresses().iter().map(|to| (nodes[0].namespace(), *to));
        assert_seen_without_warren(sniffer, agents, ways);
    }
}

#[test]
fn a_pod_reaches_other_nodes_and_is_answered_through_the_tunnel() {
    for wiring in [Wiring::Bridge, Wiring::HostRoutes] {
        let Pair { agents, pods, nodes, sniffer, .. } =
            &mut pair(Plan { overlay: Family::Dual, underlay: Family::Dual, wiring, ..Plan::default() });
        for address in nodes[1].addresses() {
            assert!(ping(pods[0].namespace(), address), "{wiring:?}: no reply from {address}");
            transfer(pods[0].namespace(), nodes[1].namespace(), address, 50);
        }
        sniffer.assert_encrypted();
        let ways = nodes[1].addresses().into_iter().map(|to| (pods[0].namespace(), to));
        assert_seen_without_warren(sniffer, agents, ways);
    }
}

#[test]
fn a_pod_whose_node_masquerades_it_is_answered_through_the_tunnel() {
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair(Plan::default());
    nodes[0].namespace().nft(
        "table ip cni { chain post { type nat hook postrouting priority srcnat;
         ip saddr 10.42.1.0/24 ip daddr != 10.42.1.0/24 masquerade; }\n}",
    );
    for (what, address, end) in
        [("Pod", pods[1].address(), pods[1].namespace()), ("node", nodes[1].address(), nodes[1].namespace())]
    {
        assert!(ping(pods[0].namespace(), address), "no reply from the remote {what}");
        transfer(pods[0].namespace(), end, address, 50);
    }
    sniffer.assert_encrypted();
    let ways = [pods[1].address(), nodes[1].address()].map(|to| (pods[0].namespace(), to));
    assert_seen_without_warren(sniffer, agents, ways);
}

#[test]
fn a_host_is_reached_by_its_address_among_the_pods_also_where_a_cni_moves_the_local_table_behind() {
    let plan = Plan { overlay: Family::Dual, underlay: Family::Dual, wiring: Wiring::Bridge, ..Plan::default() };
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair(plan);
    for line in ["rule add pref 100 lookup local", "rule del pref 0 lookup local"] {
        for family in ["-4", "-6"] {
            nodes.iter().for_each(|node| drop(node.namespace().ip(&format!("{family} {line}"))));
        }
    }
    for cidr in nodes[0].cidrs() {
        for pod in pods.iter() {
            assert!(ping(pod.namespace(), gateway(cidr)), "{} does not reach its address", pod.namespace().name());
        }
    }
    sniffer.assert_encrypted();
    let ways = nodes[0].cidrs().into_iter().map(|cidr| (pods[1].namespace(), gateway(cidr)));
    assert_seen_without_warren(sniffer, agents, ways);
}

#[test]
fn a_service_address_is_translated_before_the_tunnel() {
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair(Plan::default());
    let (service, target) = (IpAddr::from([10, 96, 0, 1]), pods[1].address());
    let rule = format!(
        "ip daddr {service} udp dport 53 dnat to {target}:5353; ip daddr {service} icmp type echo-request dnat to {target}"
    );
    nodes[0].namespace().nft(&format!(
        "table ip services {{ chain pre {{ type nat hook prerouting priority dstnat; {rule}; }}
         chain out {{ type nat hook output priority -100; {rule}; }}\n}}"
    ));
    let _echo = Echo::start_at(pods[1].namespace(), SocketAddr::new(target, 5353));
    for from in [pods[0].namespace(), nodes[0].namespace()] {
        assert!(echoed(from, SocketAddr::new(service, 53), 600), "from {}", from.name());
        assert!(ping(from, service), "from {}", from.name());
    }
    sniffer.assert_nothing_in_clear();
    let ways = [pods[0].namespace(), nodes[0].namespace()].map(|from| (from, service));
    assert_seen_without_warren(sniffer, agents, ways);
}

#[test]
fn what_a_pod_says_to_a_node_is_in_the_tunnel_also_where_the_kernel_routes_it_by_its_destination_alone() {
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair(Plan::default());
    let (IpAddr::V4(pod), IpAddr::V4(node)) = (pods[0].address(), nodes[1].address()) else { unreachable!() };
    let arrives = |port| {
        let to = SocketAddrV4::new(node, port);
        let target = nodes[1].namespace().enter(|| UdpSocket::bind(to).expect("the node has the address"));
        target.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket has a timeout");
        datagram::send_routed_by_destination(nodes[0].namespace(), pod, to);
        target.recv_from(&mut [0; 64]).map(|(_, from)| from.ip())
    };
    assert!(ping(pods[0].namespace(), node.into()), "the Pod does not reach the node");
    assert_eq!(arrives(7001).ok(), Some(pod.into()));
    // As kube-proxy does with `--masquerade-all`: the guard would take it for the node's own.
    nodes[0].namespace().nft(
        "table ip proxy {\nchain post {\ntype nat hook postrouting priority srcnat;
         ip saddr 10.42.0.0/16 udp dport 7002 masquerade;\n}\n}",
    );
    assert_eq!(arrives(7002).ok(), Some(nodes[0].address()));
    sniffer.assert_encrypted();
    agents.iter_mut().for_each(Agent::kill);
    assert!(arrives(7001).is_err() && arrives(7002).is_err(), "it arrives without a tunnel");
    sniffer.assert_nothing_in_clear();
    assert_seen_without_warren(sniffer, agents, [(pods[0].namespace(), node.into())]);
    sniffer.reset();
    assert_eq!(arrives(7001).ok(), Some(pod.into()));
    assert!(sniffer.canaries() > 0, "the sniffer does not see it");
}

#[test]
fn a_packet_for_a_pod_that_is_gone_stays_inside() {
    for wiring in [Wiring::Bridge, Wiring::HostRoutes] {
        let Pair { agents, pods, nodes, sniffer, .. } = &mut pair(Plan { wiring, ..Plan::default() });
        for gone in ["10.42.2.99", "10.42.1.99"] {
            let gone: IpAddr = gone.parse().expect("an address");
            for from in [pods[0].namespace(), pods[1].namespace(), nodes[0].namespace(), nodes[1].namespace()] {
                assert!(!ping(from, gone), "{wiring:?}: {gone} answers {}", from.name());
            }
        }
        sniffer.assert_nothing_in_clear();
        let to = |gone: usize| IpAddr::from([10, 42, if gone == 0 { 1 } else { 2 }, 99]);
        let ways = [0, 1]
            .into_iter()
            .flat_map(|own| [(pods[own].namespace(), to(1 - own)), (nodes[own].namespace(), to(1 - own))]);
        assert_seen_without_warren(sniffer, agents, ways);
    }
}

#[test]
fn a_packet_for_a_prefix_that_no_node_has_stays_inside() {
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair(Plan::default());
    for from in [pods[0].namespace(), nodes[0].namespace()] {
        assert!(!ping(from, [10, 42, 200, 1].into()));
    }
    sniffer.assert_nothing_in_clear();
    let ways = [pods[0].namespace(), nodes[0].namespace()].map(|from| (from, [10, 42, 200, 1].into()));
    assert_seen_without_warren(sniffer, agents, ways);
}

#[test]
fn a_pod_cannot_send_from_an_address_of_another_node() {
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair(Plan::default());
    let stolen = IpAddr::from(Ipv4Addr::new(10, 42, 77, 7));
    pods[0].namespace().ip(&format!("addr add {stolen}/32 dev lo"));
    // The node itself would drop the packet by its reverse path: that is not what is tested.
    for device in ["all", "default", "pod1"] {
        nodes[0].namespace().sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0");
    }
    let target = pods[1].namespace().enter(|| UdpSocket::bind((pods[1].address(), 0)).expect("the address is there"));
    target.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket has a timeout");
    let to = target.local_addr().expect("it is bound");
    assert_eq!(datagram::send(pods[0].namespace(), stolen, to, 10), 10);
    assert!(target.recv(&mut [0; 64]).is_err(), "a packet with a stolen source arrived");
    agents[0].until("the drop is counted by name", |status| status.drops("source_not_ours") > 0);
    assert_eq!(datagram::send(pods[0].namespace(), pods[0].address(), to, 10), 10);
    assert!(target.recv(&mut [0; 64]).is_ok(), "the honest packet did not arrive");
    sniffer.assert_encrypted();
    assert_seen_without_warren(sniffer, agents, [(pods[0].namespace(), pods[1].address())]);
}

#[test]
fn a_packet_too_large_for_the_tunnel_is_answered_with_its_mtu() {
    let Pair { pods, agents, .. } = &pair(Plan::default());
    let mtu = agents[0].now().value()["mtu"].as_u64().expect("the status has an MTU");
    assert_eq!(mtu, 1440);
    let to = pods[1].address();
    let whole =
        |size: u64| warren_tests::ping::answered(pods[0].namespace(), to, 2, &["-M", "do", "-s", &size.to_string()]);
    assert_eq!(whole(mtu - 28), 2, "a packet of exactly the MTU passes");
    assert_eq!(whole(mtu - 27), 0, "a packet above it does not");
    let learnt = pods[0].namespace().ip(&format!("route get {to}"));
    assert!(learnt.contains("mtu 1440"), "the Pod did not learn the MTU: {learnt}");
}

/// In pcap's language: datagrams of the tunnel that routers may cut, and fragments of anything.
const MAY_BE_CUT: &str = "(udp port 51840 and ip[6] & 0x40 = 0) or (ip and ip[6:2] & 0x3fff != 0)";

#[test]
fn the_tunnels_datagrams_forbid_fragments_and_pass_where_a_router_makes_some_all_the_same() {
    let lab = Lab::new();
    let sniffer = Sniffer::start_with(lab.hub(), MAY_BE_CUT);
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let mut agents = static_mesh(&nodes);
    let each_way = || {
        for (from, to) in [(0, 1), (1, 0)] {
            transfer(pods[from].namespace(), pods[to].namespace(), pods[to].address(), 50);
            let echo = Echo::start(pods[to].namespace(), pods[to].address());
            assert!(echoed(pods[from].namespace(), echo.address(), 4000), "to {}", pods[to].address());
        }
    };
    each_way();
    sniffer.assert_encrypted();

    // A router between the nodes with a narrow way, which does not heed what the datagrams say.
    lab.hub().nft(
        "table ip careless {\nchain pre {\ntype filter hook prerouting priority raw;
         udp dport 51840 ip frag-off set 0;\n}\n}",
    );
    for (own, other) in [(0, 1), (1, 0)] {
        let to = nodes[other].address();
        lab.hub().ip(&format!("route add {to} dev br0 mtu 1000"));
        nodes[own].namespace().ip(&format!("route add {to} via {} dev eth0", lab.hub_address()));
    }
    let joined = || nodes.each_ref().map(|node| Counters::of(node.namespace()).get("ReasmOKs"));
    let before = joined();
    each_way();
    let after = joined();
    assert!(after.iter().zip(before).all(|(after, before)| *after > before + 50), "joined: {before:?}, {after:?}");
    assert!(sniffer.clear() > 100, "the sniffer sees no fragments");
    assert_eq!(sniffer.canaries(), 0, "a fragment shows what is in it");
    assert_seen_without_warren(&sniffer, &mut agents, [(pods[0].namespace(), pods[1].address())]);
}
