//! Prefixes that a node's CNI decides about, as the files say that CNIs leave on every node; the files come, change and go
//! under running agents.
//!
//! ```text
//! pod ── node1 ═══ hub ═══ node2 ── pod
//!        net.d    sniffer
//! ```

use std::path::PathBuf;

use serde_json::json;
use warren_tests::api_server::{AFFINITIES, Mood};
use warren_tests::secret::write_secret;
use warren_tests::{
    Agent, ApiServer, EtcdMesh, Lab, Node, Plan, Pod, Settings, assert_seen_without_warren, between, eventually, ping,
    static_settings,
};

/// The folder of a node's CNI configuration.
fn net_d(node: &Node) -> PathBuf {
    node.folder().join("net.d")
}

/// Has a node take its prefixes from its CNI.
fn ask_cni(node: &Node, settings: &mut Settings, source: &str) {
    settings.text("node", "cidrs", source).text("node", "cni_dir", net_d(node).display()).text(
        "node",
        "flannel_file",
        node.folder().join("subnet.env").display(),
    );
}

/// Installs a CNI as kindnet does: beside, then renamed.
fn install(node: &Node, cidrs: &[String]) {
    let ranges: Vec<String> = cidrs.iter().map(|cidr| format!(r#"[{{"subnet": "{cidr}"}}]"#)).collect();
    let text = format!(
        r#"{{"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{{"type": "ptp", "ipam": {{"type": "host-local",
            "ranges": [{}]}}}}, {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}"#,
        ranges.join(", ")
    );
    std::fs::create_dir_all(net_d(node)).expect("the node's folder is ours");
    let (new, file) = (net_d(node).join("10-kindnet.conflist.temp"), net_d(node).join("10-kindnet.conflist"));
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, file).expect("renamed");
}

fn own(node: &Node) -> Vec<String> {
    node.cidrs().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn until_reached(pods: &[Pod; 2]) {
    eventually(15, "Pods reach each other", || {
        between(pods).into_iter().all(|(from, to)| ping(from, to)).then_some(())
    });
}

#[test]
fn a_prefix_that_the_cni_gives_later_changes_and_takes_back_applies_without_a_restart() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let mut all = static_settings(&nodes);
    ask_cni(&nodes[0], &mut all[0], "auto");
    let mut agents: Vec<Agent> = nodes.iter().zip(&all).map(|(node, settings)| node.start(settings)).collect();
    let process = agents[0].pid();
    agents[1].ready();

    agents[0].until("says that it waits for the CNI, and is not ready", |status| {
        let said = status.problems().iter().any(|problem| problem.contains("net.d") && problem.contains("subnet.env"));
        said && !status.ready() && status.cidrs().is_empty()
    });
    assert!(!ping(pods[0].namespace(), pods[1].address()), "a Pod that is nobody's is carried");

    install(&nodes[0], &["10.42.77.0/24".to_owned()]);
    agents[0].until("has what the CNI says", |status| status.cidrs() == ["10.42.77.0/24"] && status.ready());
    assert!(!ping(pods[0].namespace(), pods[1].address()), "a Pod outside of the node's prefix is carried");

    install(&nodes[0], &own(&nodes[0]));
    agents[0].until("has what the CNI says now", |status| status.cidrs() == own(&nodes[0]) && status.ready());
    until_reached(&pods);

    std::fs::remove_dir_all(net_d(&nodes[0])).expect("it is there");
    agents[0].until("says that the CNI's files are gone", |status| {
        status.problems().iter().any(|problem| problem.contains("net.d"))
    });
    let status = agents[0].now();
    assert_eq!((status.cidrs(), status.ready()), (own(&nodes[0]).iter().map(String::as_str).collect(), true));
    until_reached(&pods);
    assert_eq!(agents[0].pid(), process, "it was restarted");
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
}

#[test]
fn flannels_file_is_enough_and_is_read_again_when_the_lease_changes() {
    let lab = Lab::new();
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let mut all = static_settings(&nodes);
    let lease = |node: &Node, subnet: &str| {
        let text =
            format!("FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n");
        std::fs::write(node.folder().join("subnet.env"), text).expect("written");
    };
    lease(&nodes[0], "10.42.78.1/24");
    ask_cni(&nodes[0], &mut all[0], "flannel");
    let mut agents: Vec<Agent> = nodes.iter().zip(&all).map(|(node, settings)| node.start(settings)).collect();
    agents[0].until("has its lease", |status| status.cidrs() == ["10.42.78.0/24"] && status.ready());
    lease(&nodes[0], &own(&nodes[0])[0].replace(".0/24", ".1/24"));
    agents[0].until("has its new lease", |status| status.cidrs() == own(&nodes[0]));
    agents[1].ready();
    until_reached(&pods);
    sniffer.assert_encrypted();
    assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
}

#[test]
fn with_etcd_the_prefix_of_the_cni_is_claimed_published_and_followed() {
    let mut mesh = EtcdMesh::start(Plan::default(), 2);
    let node = mesh.lab.node();
    let mut settings = mesh.etcd.settings(&node);
    ask_cni(&node, &mut settings, "cni");
    install(&node, &["10.42.99.0/24".to_owned()]);
    mesh.pods.push(node.pod());
    mesh.agents.push(node.start(&settings));
    mesh.nodes.push(node);
    let published = |agent: &Agent, cidr: &str| {
        agent.until("sees the new node with its prefix", |status| {
            status.peer("node3").is_some_and(|peer| peer["cidrs"] == json!([cidr]))
        });
    };
    mesh.agents[2].ready();
    published(&mesh.agents[0], "10.42.99.0/24");
    assert!(mesh.etcd.get(&mesh.etcd.allocation_key("10.42.99.0/24")).is_some(), "it is not allocated");

    let right = own(&mesh.nodes[2]);
    install(&mesh.nodes[2], &right);
    mesh.agents.iter().take(2).for_each(|agent| published(agent, &right[0]));
    assert!(mesh.etcd.get(&mesh.etcd.allocation_key(&right[0])).is_some(), "the new one is not allocated");
    eventually(15, "the new node's Pod is reached", || {
        ping(mesh.pods[0].namespace(), mesh.pods[2].address()).then_some(())
    });
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn with_etcd_calicos_blocks_are_asked_of_the_api_server_followed_and_given_back() {
    let mut mesh = EtcdMesh::start(Plan::default(), 1);
    let api = ApiServer::start_in(&mesh.lab);
    let node = mesh.lab.node();
    let (spare, right) = ("10.42.99.0/26", own(&node)[0].clone());
    let name = |block: &str| format!("{}-{}", node.name, block.replace(['.', '/'], "-"));
    for block in [spare, &right] {
        let spec = json!({"cidr": block, "deleted": "false", "node": node.name, "state": "confirmed", "type": "host"});
        api.put(AFFINITIES, json!({"metadata": {"name": name(block)}, "spec": spec}));
    }
    let kubeconfig = node.folder().join("kubeconfig");
    write_secret(&kubeconfig, &api.kubeconfig());
    let mut settings = mesh.etcd.settings(&node);
    settings.text("node", "cidrs", "calico");
    settings.set("kubernetes", "enabled", false).text("kubernetes", "kubeconfig", kubeconfig.display());
    let (gone, last) = (name(spare), name(&right));
    mesh.pods.push(node.pod());
    mesh.agents.push(node.start(&settings));
    mesh.nodes.push(node);
    let published = |agent: &Agent, cidrs: &[&str]| {
        agent.within(45, "sees the new node with its blocks", |status| {
            status.peer("node2").is_some_and(|peer| peer["cidrs"] == json!(cidrs))
        });
    };
    published(&mesh.agents[0], &[&right, spare]);
    let process = mesh.agents[1].pid();
    mesh.until_reached(0, 1);

    api.be(Mood::Status(500));
    mesh.agents[1].until("says that the API server is not well, and keeps what it said", |status| {
        let said =
            status.problems().iter().any(|problem| problem.starts_with("node.cidrs: the API server is not well"));
        said && status.ready() && status.cidrs() == [right.as_str(), spare]
    });
    [(0, 1), (1, 0)].into_iter().for_each(|(from, to)| mesh.until_reached(from, to));

    let mut going = api.get(AFFINITIES, &gone).expect("it is there");
    going["spec"]["state"] = "pendingDeletion".into();
    api.put(AFFINITIES, going);
    api.remove(AFFINITIES, &gone);
    api.be(Mood::Well);
    published(&mesh.agents[0], &[&right]);
    eventually(15, "the other block is given back", || {
        mesh.etcd.get(&mesh.etcd.allocation_key(spare)).is_none().then_some(())
    });
    assert_eq!(mesh.agents[1].pid(), process, "it was restarted");

    let mut taken = api.get(AFFINITIES, &last).expect("it is there");
    api.remove(AFFINITIES, &last);
    taken["spec"]["node"] = "another".into();
    taken["metadata"] = json!({"name": "another"});
    api.put(AFFINITIES, taken);
    mesh.agents[1].until("says that a block with a Pod in it is another's, and holds it", |status| {
        let said = status.problems().iter().any(|problem| problem.contains("addresses in it are in use here"));
        said && status.ready() && status.cidrs() == [right.as_str()]
    });
    [(0, 1), (1, 0)].into_iter().for_each(|(from, to)| mesh.until_reached(from, to));
    mesh.finish();
}

#[test]
fn the_prefix_of_another_node_is_refused_whatever_the_cni_says() {
    let mesh = EtcdMesh::start(Plan::default(), 2);
    let node = mesh.lab.node();
    let mut settings = mesh.etcd.settings(&node);
    ask_cni(&node, &mut settings, "cni");
    install(&node, &own(&mesh.nodes[0]));
    let thief = node.start(&settings);
    thief.until("says whose it is", |status| {
        status.cidrs().is_empty() && status.problems().iter().any(|problem| problem.contains("belongs to node1"))
    });
    mesh.assert_connected();
}

#[test]
fn a_cni_that_gives_no_prefix_is_named_with_what_to_do() {
    let lab = Lab::new();
    let [node] = lab.nodes();
    let mut settings = node.settings();
    ask_cni(&node, &mut settings, "auto");
    std::fs::create_dir_all(net_d(&node)).expect("made");
    let calico = r#"{"name": "k8s-pod-network", "plugins": [{"type": "calico", "ipam": {"type": "calico-ipam"}}]}"#;
    std::fs::write(net_d(&node).join("10-calico.conflist"), calico).expect("written");
    let agent = node.start(&settings);
    agent.until("names Calico's IPAM and the mode", |status| {
        let problems = status.problems();
        !status.ready()
            && problems.iter().any(|said| said.contains("calico-ipam") && said.contains("overlay.mode = \"nodes\""))
    });
    let preflight = agent.cli(&["preflight"]).said();
    assert!(preflight.contains("calico-ipam"), "{preflight}");
}
