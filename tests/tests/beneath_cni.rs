//! Warren beneath CNIs: Pods that real plugins attach, and fixtures of what CNIs leave on nodes (`tests/src/cni`), each with
//! kube-proxy's rules. Every way through the cluster is reached and captured; then Warren is removed, and the same ways
//! must be seen in clear.

use ipnet::IpNet;
use warren_tests::cni::calico::{self, Encapsulation};
use warren_tests::cni::cell::{Cell, Mode};
use warren_tests::cni::kube_proxy::{Form, KubeProxy};
use warren_tests::cni::plugin::HostPort;
use warren_tests::cni::{Cni, table};
use warren_tests::{Family, Lab, Node, assert_seen_without_warren, ping, static_mesh, static_mesh_with};

const NFTABLES: KubeProxy = KubeProxy { form: Form::Nftables, masquerade_all: false };
const IPTABLES: KubeProxy = KubeProxy { form: Form::Iptables, masquerade_all: false };
const IPVS: KubeProxy = KubeProxy { form: Form::Ipvs, masquerade_all: false };

#[track_caller]
fn holds(cell: Cell) {
    let outcome = cell.run();
    assert!(outcome.faults.is_empty(), "{}:\n{}", table::name(&cell), outcome.faults.join("\n"));
    assert_eq!((outcome.clear, outcome.seen), (0, outcome.sealed));
}

/// One cell of the matrix each; the rest is for `make matrix`.
macro_rules! cells {
    ($($name:ident: $cni:ident, $mode:ident, $family:ident, $mtu:literal, $proxy:expr;)*) => {
        $(#[test]
        fn $name() {
            holds(Cell { cni: Cni::$cni, mode: Mode::$mode, family: Family::$family, mtu: $mtu, proxy: $proxy });
        })*
    };
}

cells! {
    pods_of_the_real_bridge_plugin_in_mode_pods: Bridge, Pods, V4, 1500, NFTABLES;
    pods_of_the_real_ptp_plugin_in_mode_nodes: Ptp, Nodes, Dual, 1500, IPTABLES;
    services_whose_addresses_are_local_to_every_node_in_mode_pods: Bridge, Pods, Dual, 1500, IPVS;
    flannels_vxlan_inside_of_mode_nodes: FlannelVxlan, Nodes, V6, 1500, NFTABLES;
    calicos_ip_in_ip_inside_of_mode_nodes: CalicoIpip, Nodes, V4, 1500, IPTABLES;
    calicos_routes_across_subnets_in_mode_pods: CalicoCrossSubnet, Pods, V4, 9000, NFTABLES;
    ciliums_local_table_behind_the_rules_of_mode_pods: CiliumNative, Pods, Dual, 1500, NFTABLES;
    ciliums_tunnel_inside_of_mode_nodes: CiliumTunnel, Nodes, V4, 1500, NFTABLES;
}

#[test]
fn what_the_real_plugins_take_away_is_gone_and_its_address_stays_inside() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    Cni::Bridge.install(&nodes);
    let port = [HostPort { host: 8088, pod: 8080 }];
    let (stays, goes) = (Cni::Bridge.attach(&nodes[0], &[]), Cni::Bridge.add(&nodes[1], &port));
    let gone = goes.pod.address();
    let mut agents = static_mesh(&nodes);
    assert!(ping(stays.namespace(), gone), "the Pod is not reached");
    let rules = || nodes[1].namespace().run(&["iptables-nft-save", "-t", "nat"]);
    assert!(rules().contains(&gone.to_string()), "portmap left no rule for the host port");
    Cni::Bridge.conflist(&nodes[1]).expect("it has one").del(&nodes[1], &goes);
    assert!(!rules().contains(&gone.to_string()), "portmap left its rules behind");
    sniffer.reset();
    assert!(!ping(stays.namespace(), gone), "the Pod is still there");
    sniffer.assert_nothing_in_clear();
    assert_seen_without_warren(&sniffer, &mut agents, [(stays.namespace(), gone)]);
}

#[test]
fn an_address_that_calico_borrows_from_another_nodes_block_is_refused_by_name_and_stays_inside() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let _tunnels = Cni::CalicoBgp.install(&nodes);
    let borrower = calico::borrow(Encapsulation::Bgp, &nodes[0], &nodes[1], &[&nodes[1]]);
    let pod = Cni::CalicoBgp.attach(&nodes[1], &[]);
    let prefixes = |node: &Node| match node.number {
        1 => [calico::blocks(node), vec![IpNet::from(borrower.address())]].concat(),
        _ => calico::blocks(node),
    };
    let mut agents = static_mesh_with(&nodes, |node, settings| {
        let other = &nodes[usize::from(node.number == 1)];
        settings.list("node", "cidrs", prefixes(node)).clear_peers().peer_with(other, prefixes(other));
    });
    agents[1].until("says that the block is its own", |status| status.refused("overlap"));
    for (from, to) in [(&pod, &borrower), (&borrower, &pod)] {
        assert!(!ping(from.namespace(), to.address()), "a borrowed address is carried");
    }
    sniffer.assert_nothing_in_clear();
    let ways = [(pod.namespace(), borrower.address()), (borrower.namespace(), pod.address())];
    assert_seen_without_warren(&sniffer, &mut agents, ways);
}

#[test]
fn a_pod_that_its_cni_neither_wraps_nor_masquerades_towards_nodes_is_dropped_by_name_without_prefixes() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let _tunnels = Cni::CalicoIpip.install(&nodes);
    let pods = nodes.each_ref().map(|node| Cni::CalicoIpip.attach(node, &[]));
    // `natOutgoing: false`.
    for node in &nodes {
        node.namespace().run(&["ipset", "flush", "cali40masq-ipam-pools"]);
    }
    let mut agents = static_mesh_with(&nodes, |node, settings| {
        let other = &nodes[usize::from(node.number == 1)];
        settings.text("overlay", "mode", "nodes").list::<&str>("overlay", "networks", []);
        settings.list::<&str>("node", "cidrs", []).clear_peers().peer_with(other, vec![]);
    });
    assert!(ping(pods[0].namespace(), pods[1].address()), "the CNI's tunnel does not carry Pods");
    assert!(!ping(pods[0].namespace(), nodes[1].address()), "a source that the peer cannot know is carried");
    agents[0].until("the drop is counted by name", |status| status.drops("source_not_ours") > 0);
    sniffer.assert_nothing_in_clear();
    let ways = [(pods[0].namespace(), nodes[1].address()), (pods[0].namespace(), pods[1].address())];
    assert_seen_without_warren(&sniffer, &mut agents, ways);
}

/// Every CNI × mode × version of IP × MTU, then every form of kube-proxy's rules.
fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for cni in Cni::ALL {
        for mode in [Mode::Pods, Mode::Nodes].into_iter().filter(|mode| cni.suits(*mode)) {
            for family in [Family::V4, Family::V6, Family::Dual].into_iter().filter(|family| cni.speaks(*family)) {
                cells.extend([1500, 9000].map(|mtu| Cell { cni, mode, family, mtu, proxy: NFTABLES }));
            }
        }
    }
    for form in [Form::Nftables, Form::Iptables, Form::IptablesLegacy, Form::Ipvs] {
        for masquerade_all in [false, true] {
            let proxy = KubeProxy { form, masquerade_all };
            if proxy == NFTABLES {
                continue;
            }
            let cell = |mode| Cell { cni: Cni::Bridge, mode, family: Family::Dual, mtu: 1500, proxy };
            cells.extend([Mode::Pods, Mode::Nodes].map(cell));
        }
    }
    cells
}

/// Of all cells, those whose row has every one of the words in `WARREN_MATRIX`.
#[test]
#[ignore = "every combination takes ten minutes: `make matrix`"]
fn the_matrix() {
    let words = std::env::var("WARREN_MATRIX").unwrap_or_default();
    let wanted = |cell: &Cell| words.split(',').all(|word| table::name(cell).contains(word.trim()));
    let cells: Vec<Cell> = cells().into_iter().filter(wanted).collect();
    assert!(!cells.is_empty(), "no cell has the words {words:?}");
    assert_eq!(table::print(&cells), 0, "not everything is as it must be");
}
