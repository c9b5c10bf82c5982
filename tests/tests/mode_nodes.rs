//! `mode = "nodes"`: whatever nodes say to each other is in the tunnel, and so whatever a CNI wraps between them.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pod
//!         host, VXLAN  sniffer      host, VXLAN
//! ```

use std::net::{IpAddr, SocketAddr};

use warren_tests::control::Way;
use warren_tests::datagram::{Echo, echoed};
use warren_tests::lab::networks;
use warren_tests::ping::answered;
use warren_tests::stock::section;
use warren_tests::stream::{transfer, transfer_at};
use warren_tests::tcp::Counters;
use warren_tests::{
    Agent, Etcd, Family, Flood, Lab, Node, Plan, Pod, Settings, Sniffer, Wiring, assert_seen_without_warren, between,
    eventually, ping, static_mesh_with,
};

/// In pcap's language: what nodes say to each other in clear, but for exempt ports, neighbour discovery and the tunnel.
const BETWEEN_NODES: &str = "((ip and src net 10.77.0.0/24 and dst net 10.77.0.0/24 and not host 10.77.0.254) or \
     (ip6 and src net fd77::/64 and dst net fd77::/64 and not host fd77::fe and not (ip6[6] = 58 and ip6[40] > 132 and \
     ip6[40] < 138))) and not udp port 51840 and not (port 22 or port 6443 or portrange 2379-2380 or port 10250)";
/// Ports that stay in clear.
const EXEMPT: [u16; 5] = [22, 6443, 2379, 2380, 10250];
/// Their neighbours, which do not.
const OTHERS: [u16; 4] = [23, 2378, 2381, 10249];

struct Pair {
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    sniffer: Sniffer,
    _lab: Lab,
}

/// `change` is told of the other node.
fn pair(underlay: Family, change: impl Fn(&Node, &mut Settings)) -> Pair {
    pair_of(Plan { underlay, overlay: underlay, ..Plan::default() }, change)
}

fn pair_of(plan: Plan, change: impl Fn(&Node, &mut Settings)) -> Pair {
    let lab = Lab::with(plan);
    let sniffer = Sniffer::start_with(lab.hub(), BETWEEN_NODES);
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh_with(&nodes, |node, settings| {
        settings.text("overlay", "mode", "nodes");
        change(&nodes[usize::from(node.number == 1)], settings);
    });
    Pair { agents, pods, nodes, sniffer, _lab: lab }
}

/// Each node to every address of the other.
fn among(nodes: &[Node; 2]) -> Vec<Way<'_>> {
    let to = |own: usize| nodes[1 - own].addresses().into_iter().map(move |to| (nodes[own].namespace(), to));
    to(0).chain(to(1)).collect()
}

#[test]
fn nodes_talk_to_each_other_in_the_tunnel() {
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair(Family::Dual, |_, _| {});
    for (from, to) in among(nodes).into_iter().chain(between(pods)) {
        assert!(ping(from, to), "{} does not reach {to}", from.name());
    }
    for (from, to) in [(0, 1), (1, 0)] {
        for address in nodes[to].addresses() {
            transfer(nodes[from].namespace(), nodes[to].namespace(), address, 50);
            transfer(pods[from].namespace(), nodes[to].namespace(), address, 50);
            let echo = Echo::start(nodes[to].namespace(), address);
            assert!(echoed(nodes[from].namespace(), echo.address(), 4000), "to {address}");
        }
    }
    sniffer.assert_encrypted();
    assert_seen_without_warren(sniffer, agents, among(nodes).into_iter().chain(between(pods)));
}

#[test]
fn nodes_say_nothing_in_clear_when_an_agent_is_killed() {
    let Pair { agents, nodes, sniffer, .. } = &mut pair(Family::Dual, |_, _| {});
    let floods: Vec<Flood> = among(nodes).into_iter().map(|(from, to)| Flood::start(from, to)).collect();
    let reach = || among(nodes).into_iter().all(|(from, to)| ping(from, to));
    eventually(15, "nodes reach each other", || reach().then_some(()));
    for _ in 0..2 {
        agents[0].kill();
        assert!(!reach(), "nodes reach each other without a tunnel");
        sniffer.assert_nothing_in_clear();
        agents[0].up();
        eventually(15, "nodes reach each other again", || reach().then_some(()));
    }
    sniffer.assert_encrypted();
    drop(floods);
    assert_seen_without_warren(sniffer, agents, among(nodes));
}

#[test]
fn exempt_ports_stay_in_clear_and_work_in_both_directions_with_and_without_agents() {
    let Pair { agents, nodes, sniffer, .. } = &mut pair(Family::Dual, |_, _| {});
    let each_way = |work: &dyn Fn(&Node, &Node, SocketAddr), ports: &[u16]| {
        for (from, to) in [(0, 1), (1, 0)] {
            for address in nodes[to].addresses() {
                ports.iter().for_each(|port| work(&nodes[from], &nodes[to], SocketAddr::new(address, *port)));
            }
        }
    };
    let talk = |from: &Node, to: &Node, at: SocketAddr| transfer_at(from.namespace(), to.namespace(), at, 1);
    each_way(&talk, &OTHERS);
    sniffer.assert_encrypted();
    let in_clear = |from: &Node, to: &Node, at: SocketAddr| {
        sniffer.reset();
        talk(from, to, at);
        assert!(sniffer.canaries() > 0, "{at} is exempt, yet not in clear");
    };
    each_way(&in_clear, &EXEMPT);
    agents.iter_mut().for_each(Agent::kill);
    each_way(&in_clear, &EXEMPT);
}

/// The CNI keeps its Pods' prefixes to itself: Warren knows of nodes alone.
fn pair_beneath_a_cni(plan: Plan) -> Pair {
    pair_of(plan, |other, settings| {
        let mut peer = section(other, Some(other.address()));
        peer.unset("", "cidrs").list("", "addresses", other.addresses());
        settings.list::<&str>("node", "cidrs", []).list::<&str>("overlay", "networks", []).clear_peers().add_peer(peer);
    })
}

#[test]
fn a_vxlan_of_the_cni_carries_pods_inside_the_tunnel() {
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair_beneath_a_cni(Plan::default());
    for (own, other) in [(0, 1), (1, 0)] {
        vxlan(&nodes[own], &nodes[other], 1390, "");
    }
    for (from, to) in between(pods) {
        assert!(ping(from, to), "{} does not reach {to}", from.name());
    }
    transfer(pods[0].namespace(), pods[1].namespace(), pods[1].address(), 100);
    transfer(pods[1].namespace(), pods[0].namespace(), pods[0].address(), 100);
    agents[0].kill();
    assert!(between(pods).into_iter().all(|(from, to)| !ping(from, to)), "the VXLAN works without a tunnel");
    sniffer.assert_encrypted();
    assert_seen_without_warren(sniffer, agents, between(pods));
}

#[test]
fn superpackets_of_a_vxlan_pass_the_device_and_the_vxlan_whole_with_and_without_outer_checksums() {
    let without = "udp6zerocsumtx udp6zerocsumrx";
    for (underlay, checksum) in
        [(Family::V4, "udpcsum"), (Family::V4, "noudpcsum"), (Family::V6, ""), (Family::V6, without)]
    {
        let plan = Plan { underlay, ..Plan::default() };
        let Pair { pods, nodes, sniffer, .. } = &mut pair_beneath_a_cni(plan);
        for (own, other) in [(0, 1), (1, 0)] {
            vxlan(&nodes[own], &nodes[other], 1350, checksum);
        }
        sniffer.headers_only();
        let count = |device| nodes.each_ref().map(|node| frames(node, device));
        let (before, taken_before) = (count("warren0"), count("flannel0"));
        transfer(pods[0].namespace(), pods[1].namespace(), pods[1].address(), 100);
        let (after, taken_after) = (count("warren0"), count("flannel0"));
        let read = mean(before[0].0, after[0].0);
        // The kernel hands them over since then.
        if linux_is_at_least([6, 17]) {
            assert!(read > 4000, "{checksum}: frames of {read} bytes off the device");
            let taken = mean(taken_before[1].1, taken_after[1].1);
            assert!(taken > 4000, "{checksum}: the VXLAN gets {taken} bytes at once");
        }
        let written = mean(before[1].1, after[1].1);
        assert!(written > 4000, "{checksum}: frames of {written} bytes onto the device");
        sniffer.assert_encrypted();
    }
}

/// Frames and bytes that the kernel sent by the device, and that came by it.
fn frames(node: &Node, device: &str) -> ([u64; 2], [u64; 2]) {
    let of = |name: &str| {
        let path = format!("/sys/class/net/{device}/statistics/{name}");
        node.namespace().run(&["cat", &path]).trim().parse().expect("a number")
    };
    ([of("tx_packets"), of("tx_bytes")], [of("rx_packets"), of("rx_bytes")])
}

fn mean(before: [u64; 2], after: [u64; 2]) -> u64 {
    (after[1] - before[1]) / (after[0] - before[0]).max(1)
}

fn linux_is_at_least(wanted: [u32; 2]) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel says which it is");
    let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse().unwrap_or(0));
    [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)] >= wanted
}

/// What flannel makes of two nodes: a VXLAN between their addresses and, for each other node, a route into it.
fn vxlan(own: &Node, other: &Node, mtu: u16, options: &str) {
    let (local, remote) = (own.address(), other.address());
    own.namespace().ip_batch(&format!(
        "link add flannel0 mtu {mtu} type vxlan id 1 local {local} remote {remote} dstport 8472 {options}\n\
         addr add 10.42.{}.0/32 dev flannel0\nlink set flannel0 up\n\
         route add 10.42.{other}.0/24 via 10.42.{other}.0 dev flannel0 onlink\n",
        own.number,
        other = other.number
    ));
}

/// What a Pod holds the MTU of its way to be, and that one byte more does not pass.
#[track_caller]
fn assert_learns(from: &Pod, to: IpAddr, mtu: u16) {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let whole = |size: u16| answered(from.namespace(), to, 1, &["-M", "do", "-s", &(size - headers).to_string()]);
    eventually(5, "the Pod learns what fits", || {
        whole(mtu + 1);
        from.namespace().ip(&format!("route get {to}")).contains(&format!("mtu {mtu}")).then_some(())
    });
    assert_eq!((whole(mtu), whole(mtu + 1)), (1, 0), "of {mtu} bytes, and of one more");
}

#[test]
fn pods_on_a_bridge_with_a_vxlan_are_told_by_it_what_fits_into_the_tunnel() {
    // The tunnel's MTU, less the headers of a VXLAN.
    for (family, fits) in [(Family::V4, 1440 - 50), (Family::V6, 1420 - 70)] {
        let plan = Plan { underlay: family, overlay: family, wiring: Wiring::Bridge, ..Plan::default() };
        let Pair { agents, pods, nodes, sniffer, .. } = &mut pair_beneath_a_cni(plan);
        for (own, other) in [(0, 1), (1, 0)] {
            let (local, remote) = (nodes[own].address(), nodes[other].address());
            nodes[own].namespace().ip_batch(&format!(
                "link add vxlan0 mtu 1500 type vxlan id 1 local {local} remote {remote} dstport 8472 df set\n\
                 link set vxlan0 master cni0\nlink set vxlan0 up\n"
            ));
            pods[own].namespace().ip(&format!("route add {} dev eth0", networks(family)[0]));
        }
        assert_learns(&pods[0], pods[1].address(), fits);
        // Who has learnt nothing yet, by TCP.
        transfer(pods[1].namespace(), pods[0].namespace(), pods[0].address(), 50);
        sniffer.assert_encrypted();
        assert_seen_without_warren(sniffer, agents, between(pods));
    }
}

#[test]
fn a_routed_vxlan_too_large_for_the_tunnel_goes_in_fragments_or_tells_pods_where_the_host_lets_it() {
    let Pair { agents, pods, nodes, sniffer, .. } = &mut pair_beneath_a_cni(Plan::default());
    let wire = |options| {
        for (own, other) in [(0, 1), (1, 0)] {
            nodes[own].namespace().attempt(&["ip", "link", "del", "flannel0"]);
            vxlan(&nodes[own], &nodes[other], 1450, options);
        }
    };
    let (from, to) = (pods[0].namespace(), pods[1].address());
    // What it puts together for itself: the VXLAN's own packets.
    let joined = || Counters::of(nodes[1].namespace()).get("ReasmOKs");

    wire("df unset");
    let before = joined();
    transfer(from, pods[1].namespace(), to, 50);
    let whole = || answered(from, to, 1, &["-M", "do", "-s", "1422"]);
    assert_eq!(whole(), 1, "a packet of the VXLAN's own MTU passes");
    assert!(joined() > before + 50, "nothing was joined from fragments");

    // The VXLAN knows what fits, but the kernel by default tells nobody for whom it routes.
    wire("df set");
    assert_eq!((0..3).map(|_| whole()).sum::<u32>(), 0, "a packet that is too large passes whole");
    assert!(!from.ip(&format!("route get {to}")).contains("mtu 1390"), "the kernel tells: docs/cni.md says otherwise");
    for node in nodes.iter() {
        node.namespace().sysctl("net/ipv4/ip_forward_use_pmtu", "1");
    }
    assert_learns(&pods[0], to, 1390);
    transfer(pods[1].namespace(), from, pods[0].address(), 50);
    sniffer.assert_encrypted();
    assert_seen_without_warren(sniffer, agents, between(pods));
}

#[test]
fn a_registry_on_a_node_is_reached_past_the_tunnel() {
    let lab = Lab::new();
    let sniffer = Sniffer::start_with(lab.hub(), BETWEEN_NODES);
    let nodes: [Node; 3] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let etcd = Etcd::start_on(&nodes[0]);
    etcd.init(&lab, &[]);
    etcd.grant(&nodes[0]);
    let start = |node: &Node| {
        etcd.add(node);
        node.start(etcd.settings(node).text("overlay", "mode", "nodes"))
    };
    let mut agents: Vec<Agent> = nodes.iter().map(start).collect();
    let complete = |agents: &[Agent]| {
        for agent in agents {
            agent.until("all peers, by way of etcd", |status| {
                status.ready() && status.peers().len() == 2 && status.registry_ok("etcd") == Some(true)
            });
        }
        for (from, to) in between(&pods) {
            eventually(15, "Pods reach each other", || ping(from, to).then_some(()));
        }
    };
    complete(&agents);
    // With every tunnel gone and the guard in place the store must still be found.
    agents.iter_mut().for_each(Agent::kill);
    agents.iter_mut().for_each(Agent::up);
    complete(&agents);
    // Datagrams that found their way back into the tunnel would multiply.
    let before = sniffer.tunnel();
    assert!(ping(nodes[1].namespace(), nodes[2].address()));
    let more = sniffer.tunnel() - before;
    assert!(more < 500, "three echo requests made {more} datagrams of the tunnel");
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
}
