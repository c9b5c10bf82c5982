//! How agents show an API server who they are, in the ways that installations have: a Pod by the token of its service account,
//! a host outside of the cluster by its client certificate.
//!
//! ```text
//!          API server, which answers nobody else
//! pod ── node1 ══╗  │       ╔══ host ── pod
//! pod ── node2 ══╩══ hub ═══╝
//!                  sniffer
//! ```

use warren_tests::api_server::BLOCKS;
use warren_tests::secret::write_secret;
use warren_tests::{
    Agent, ApiServer, Container, Lab, Node, Pod, Settings, Sniffer, Volume, assert_seen_without_warren, between,
    eventually, ping,
};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_warren-confined");
/// What an agent says that was answered 401.
const UNKNOWN: &str = "the API server does not know this agent: its token or certificate is not, or no longer, good";

/// Two nodes whose agents are Pods, in containers with the DaemonSet's rights.
struct Cluster {
    agents: Vec<Agent>,
    accounts: Vec<Volume>,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    api: ApiServer,
    sniffer: Sniffer,
    lab: Lab,
}

impl Cluster {
    fn start(token: &str) -> Self {
        let lab = Lab::new();
        let api = ApiServer::start_in(&lab);
        api.demand(&[token]);
        cluster_of(&lab, &api, "strict");
        let sniffer = lab.sniff();
        let nodes: Vec<Node> = lab.nodes::<2>().into();
        let pods = nodes.iter().map(Node::pod).collect();
        let accounts: Vec<_> = nodes.iter().map(|node| Volume::service_account(node, &api, token)).collect();
        let join =
            |(node, account)| Container::of(LAUNCHER, node).service_account(account, &api).start(&pod(&api, node));
        let agents = nodes.iter().zip(&accounts).map(join).collect();
        let cluster = Self { agents, accounts, pods, nodes, api, sniffer, lab };
        cluster.until_connected();
        cluster
    }

    #[track_caller]
    fn until_connected(&self) {
        for (from, to) in between(&self.pods) {
            eventually(15, "Pods reach each other", || ping(from, to).then_some(()));
        }
        self.sniffer.assert_encrypted();
    }

    fn finish(mut self, secrets: &[&str]) {
        for agent in &self.agents {
            let log = agent.log();
            assert!(secrets.iter().all(|secret| !log.contains(secret)), "a token or a key is in the log:\n{log}");
        }
        self.sniffer.assert_encrypted();
        assert_seen_without_warren(&self.sniffer, &mut self.agents, between(&self.pods));
    }
}

fn cluster_of(lab: &Lab, api: &ApiServer, enforcement: &str) {
    let networks: Vec<_> = lab.networks().iter().map(ToString::to_string).collect();
    api.cluster(&networks.iter().map(String::as_str).collect::<Vec<_>>(), enforcement);
}

/// As the DaemonSet's: the registry is the cluster that the Pod runs in.
fn pod(api: &ApiServer, node: &Node) -> Settings {
    let cidrs: Vec<_> = node.cidrs().iter().map(ToString::to_string).collect();
    api.node(&node.name, &cidrs.iter().map(String::as_str).collect::<Vec<_>>(), &node.addresses());
    let mut settings = node.settings();
    settings.text("node", "cidrs", "kubernetes").set("kubernetes", "enabled", true);
    settings
}

/// Waits until an agent says that it is not known.
#[track_caller]
fn until_unknown(agent: &Agent) {
    agent.until("says that the API server does not know it", |status| {
        let said = status.problems().iter().any(|problem| problem.contains(UNKNOWN) && problem.contains("401"));
        said && status.registry_ok("kubernetes") == Some(false)
    });
}

#[test]
fn a_token_that_ended_is_said_no_tunnel_ends_with_it_and_the_renewed_one_is_taken_up() {
    let cluster = Cluster::start("first-token");
    let processes: Vec<_> = cluster.agents.iter().map(Agent::pid).collect();
    cluster.api.demand(&["second-token"]);
    cluster.api.cut();
    cluster.agents.iter().for_each(until_unknown);
    assert!(cluster.agents.iter().all(|agent| agent.now().ready()), "a node without its registry is no longer ready");
    cluster.until_connected();

    cluster.accounts.iter().for_each(|account| account.renew(&cluster.api, "second-token"));
    cluster_of(&cluster.lab, &cluster.api, "permissive");
    for agent in &cluster.agents {
        agent.until("hears the API server again", |status| {
            let heard = status.registry_ok("kubernetes") == Some(true);
            heard && status.value()["enforcement"] == "permissive" && status.problems().is_empty()
        });
    }
    assert!(cluster.agents.iter().map(Agent::pid).eq(processes), "an agent was restarted");
    cluster.until_connected();
    cluster.finish(&["first-token", "second-token"]);
}

#[test]
fn a_host_without_a_certificate_is_told_so_and_joins_the_pods_mesh_as_soon_as_it_has_one() {
    let mut cluster = Cluster::start("token-of-pods");
    let (api, host) = (&cluster.api, cluster.lab.node());
    for cidr in host.cidrs() {
        let name = cidr.to_string().replace(['.', ':', '/'], "-");
        let spec = serde_json::json!({"cidr": cidr, "node": host.name});
        api.put(BLOCKS, serde_json::json!({"metadata": {"name": name}, "spec": spec}));
    }
    let kubeconfig = host.folder().join("kubeconfig");
    write_secret(&kubeconfig, &api.kubeconfig());
    let mut settings = host.settings();
    settings.text("kubernetes", "kubeconfig", kubeconfig.display());
    let agent = host.start(&settings);
    until_unknown(&agent);
    assert!(agent.now().peers().is_empty(), "it knows nodes of a cluster that does not know it");

    let certificate = api.authority().issue(&format!("warren:host:{}", host.name), Vec::new());
    let key = std::fs::read_to_string(&certificate.key).expect("just issued");
    write_secret(&kubeconfig, &api.kubeconfig_of(&certificate));
    agent.until("knows the Pods' nodes", |status| {
        status.registry_ok("kubernetes") == Some(true) && status.peers().len() == 2
    });
    cluster.pods.push(host.pod());
    cluster.agents.push(agent);
    cluster.nodes.push(host);
    cluster.until_connected();
    cluster.finish(&["token-of-pods", key.lines().nth(1).expect("a key has lines")]);
}
