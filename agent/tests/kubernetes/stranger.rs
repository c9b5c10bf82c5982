//! The Kubernetes API as kmock imitates it (`tests/kmock/serve.py`): a process of its own, asked over HTTP and TLS. Its
//! authors never heard of Warren.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use warren_agent::config::Kubernetes;
use warren_agent::registry::Known;
use warren_overlay::record::Record;
use warren_tests::api_server::kubeconfig;
use warren_tests::certificates::Authority;
use warren_tests::manifests::{root, tool};

use crate::space::{Node, PATIENCE, given, object, record};

pub(crate) const NODES: &str = "/api/v1/nodes";
pub(crate) const CLUSTERS: &str = "/apis/warren.dev/v1alpha1/warrenclusters";
pub(crate) const BLOCKS: &str = "/apis/warren.dev/v1alpha1/warrenblocks";
pub(crate) const RECORDS: &str = "/apis/warren.dev/v1alpha1/warrennodes";

const TOKEN: &str = "t0ken-of-the-agent";

/// One server; gone when dropped.
pub(crate) struct Stranger {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    url: String,
    authority: Authority,
    folder: TempDir,
}

impl Stranger {
    /// With a WarrenCluster. `versions` of objects are `numbers`, as a real server's, or `words`.
    pub(crate) fn start(versions: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path());
        let issued = authority.issue("kmock", vec!["127.0.0.1".to_owned()]);
        let mut process = Command::new(tool("venv/bin/python"))
            .arg(root().join("tests/kmock/serve.py"))
            .args([&issued.cert, &issued.key, &authority.ca_file()])
            .args([TOKEN, versions])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let orders = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut server = Self { process, orders, answers, url: String::new(), authority, folder };
        server.url = server.answer().as_str().expect("it says where it listens").to_owned();
        server.put(
            CLUSTERS,
            json!({"metadata": {"name": "default"}, "spec": {"networks": ["10.0.0.0/8"], "enforcement": "strict"}}),
        );
        server
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a pipe is read");
        serde_json::from_str(&line).expect("kmock answers: what went wrong stands above")
    }

    fn ask(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("kmock listens");
        self.answer()
    }

    /// The answer to an administrator's request, and its status.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: &Value) -> (u64, Value) {
        let mut answer = self.ask(&json!({"method": method, "path": path, "body": body}));
        (answer["status"].as_u64().expect("a status"), answer["body"].take())
    }

    /// From now on it behaves like this towards agents.
    pub(crate) fn be(&mut self, mood: Option<&str>) {
        self.ask(&json!({"mood": mood}));
        self.cut();
    }

    /// Ends all connections.
    pub(crate) fn cut(&mut self) {
        self.ask(&json!({"cut": true}));
    }

    /// The next watch of records is told that its version is too old.
    pub(crate) fn expire(&mut self) {
        self.ask(&json!({"expired": 1}));
        self.cut();
    }

    #[track_caller]
    pub(crate) fn put(&mut self, path: &str, object: Value) {
        let (status, said) = self.request("POST", path, &object);
        assert_eq!(status, 200, "{said}");
    }

    pub(crate) fn change(&mut self, path: &str, name: &str, change: &Value) {
        let (status, said) = self.request("PATCH", &format!("{path}/{name}"), change);
        assert_eq!(status, 200, "{said}");
    }

    pub(crate) fn remove(&mut self, path: &str, name: &str) {
        let (status, said) = self.request("DELETE", &format!("{path}/{name}"), &Value::Null);
        assert_eq!(status, 200, "{said}");
    }

    pub(crate) fn get(&mut self, path: &str, name: &str) -> Option<Value> {
        let (status, found) = self.request("GET", &format!("{path}/{name}"), &Value::Null);
        (status == 200).then_some(found)
    }

    /// The record of somebody of whom there is no agent.
    pub(crate) fn publish(&mut self, record: &Record) {
        self.put(RECORDS, object(record, 1));
    }

    /// A block of this prefix.
    pub(crate) fn block(&mut self, cidr: &str, node: &str) {
        let name = cidr.replace(['.', '/'], "-");
        self.put(BLOCKS, json!({"metadata": {"name": name}, "spec": {"cidr": cidr, "node": node}}));
    }

    /// What agents asked of this path, by kmock's own idea of what they wanted: the parameters of each.
    pub(crate) fn asked(&mut self, action: &str, path: &str) -> Vec<Value> {
        let asked = self.ask(&json!({"asked": action, "path": path}));
        asked.as_array().expect("a list").clone()
    }

    /// How often all records were read.
    pub(crate) fn lists(&mut self) -> usize {
        self.asked("LIST", RECORDS).iter().filter(|asked| asked["limit"] != "1").count()
    }

    /// As the agent of a host with this token.
    pub(crate) fn config(&self, token: &str) -> Kubernetes {
        let mut text: Value = serde_json::from_str(&kubeconfig(&self.url, &self.authority.ca_file())).expect("JSON");
        text["users"][0]["user"] = json!({"token": token});
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, text.to_string()).expect("the folder is ours");
        Kubernetes { kubeconfig: Some(path), ..Kubernetes::default() }
    }

    /// A Node and its agent's registry.
    pub(crate) fn node(&mut self, name: &str, address: &str, pod_cidr: &str) -> Node {
        let addresses = json!([{"type": "InternalIP", "address": address}]);
        let spec = json!({"podCIDRs": [pod_cidr]});
        self.put(NODES, json!({"metadata": {"name": name}, "spec": spec, "status": {"addresses": addresses}}));
        Node::start(self.config(TOKEN), record(name, address), given(&[pod_cidr]), Known::default())
    }

    /// Waits until this holds of what it keeps.
    pub(crate) async fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
