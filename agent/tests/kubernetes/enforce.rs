//! `warren cluster enforce --kubeconfig` against the lab's API server: Nodes, Pods of the agent and records are looked at, the
//! WarrenCluster is changed.

use std::process::{Command, Output, Stdio};

use serde_json::json;
use tempfile::TempDir;
use warren_overlay::record::Record;
use warren_tests::ApiServer;
use warren_tests::api_server::{BLOCKS, CLUSTERS, NODES, RECORDS};

use crate::space::record;

/// A permissive cluster with an API server, as an administrator reaches it.
struct Space {
    api: ApiServer,
    folder: TempDir,
}

impl Space {
    fn start() -> Self {
        let space = Self { api: ApiServer::start(), folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(space.folder.path().join("kubeconfig"), space.api.kubeconfig()).expect("the folder is ours");
        space.api.cluster(&["10.0.0.0/8"], "permissive");
        space
    }

    /// A Node, its block, and what its agent publishes.
    fn node(&self, number: u8, name: &str) {
        let (cidr, address) = (format!("10.{number}.0.0/24"), format!("192.0.2.{number}"));
        self.api.node(name, &[&cidr], &[address.parse().expect("an address")]);
        let block = json!({"metadata": {"name": format!("10-{number}-0-0-24")}, "spec": {"cidr": cidr, "node": name}});
        self.api.put(BLOCKS, block);
        self.publish(&Record { cidrs: [cidr.parse().expect("a prefix")].into(), ..record(name, &address) });
    }

    fn publish(&self, record: &Record) {
        let mut spec = serde_json::to_value(record).expect("JSON");
        let fields = spec.as_object_mut().expect("a record");
        let key = fields.remove("public_key").expect("it has a key");
        fields.insert("publicKey".to_owned(), key);
        fields.remove("name");
        self.api.put(RECORDS, json!({"metadata": {"name": record.name}, "spec": spec}));
    }

    fn enforce(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
        command.args(["cluster", "enforce"]).args(words).arg("--kubeconfig").arg(self.folder.path().join("kubeconfig"));
        command.stdin(Stdio::null()).output().expect("the program was built")
    }

    #[track_caller]
    fn refuses(&self, expected: &[&str]) {
        let refused = self.enforce(&["strict"]);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{why}");
        for part in expected {
            assert!(why.contains(part), "it does not say {part:?}: {why}");
        }
        assert_eq!(self.enforcement(), "permissive");
    }

    #[track_caller]
    fn succeeds(&self, words: &[&str]) -> String {
        let done = self.enforce(words);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn enforcement(&self) -> String {
        let cluster = self.api.get(CLUSTERS, "default").expect("it is there");
        assert_eq!(cluster["spec"]["networks"], json!(["10.0.0.0/8"]), "the networks stay");
        cluster["spec"]["enforcement"].as_str().expect("a word").to_owned()
    }
}

#[test]
fn strict_is_refused_until_every_node_with_pod_cidrs_has_a_record_and_an_agent_that_is_ready() {
    let space = Space::start();
    // More than one page of the lab's server.
    for (number, name) in (1..).zip(["a", "b", "c", "d", "e"]) {
        space.node(number, name);
        space.api.agent_pod(name, true);
    }
    space.api.node("virtual", &[], &[]);
    space.api.agent_pod("b", false);
    space.api.remove(RECORDS, "d");
    space.api.node("f", &["10.6.0.0/24"], &[]);
    let missing = ["cut off 3 nodes", "  b: the agent's Pod warren-b is not ready", "  d: there is no record", "  f: "];
    space.refuses(&missing);
    space.node(4, "d");
    space.api.agent_pod("b", true);
    space.api.remove(NODES, "f");
    let done = space.succeeds(&["strict"]);
    assert!(
        done.contains("the WarrenCluster in the API server at https://127.0.0.1:") && done.contains("agent: 5;"),
        "{done}"
    );
    assert_eq!(space.enforcement(), "strict");
    assert!(space.succeeds(&["strict"]).contains("is strict already"));
    space.api.remove(RECORDS, "a");
    space.succeeds(&["permissive"]);
    assert_eq!(space.enforcement(), "permissive");
    space.succeeds(&["strict", "--force"]);
    assert_eq!(space.enforcement(), "strict");
}

#[test]
fn where_kubernetes_gives_out_no_pod_cidrs_every_node_needs_an_agent() {
    let space = Space::start();
    space.api.node("a", &[], &[]);
    space.api.node("b", &[], &[]);
    space.publish(&record("a", "192.0.2.1"));
    space.refuses(&["cut off a node", "  b: there is no record"]);
    space.publish(&record("b", "192.0.2.2"));
    space.succeeds(&["strict"]);
}

#[test]
fn without_a_warrencluster_or_an_administrators_rights_it_says_what_to_do() {
    let space = Space::start();
    space.api.remove(CLUSTERS, "default");
    let refused = space.enforce(&["strict"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && why.contains("there is no WarrenCluster"), "{why}");
    space.api.cluster(&["10.0.0.0/8"], "permissive");
    space.api.be(warren_tests::api_server::Mood::Refusing(403));
    let refused = space.enforce(&["strict"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && why.contains("--kubeconfig FILE"), "{why}");
    assert_eq!(space.enforcement(), "permissive");
}
