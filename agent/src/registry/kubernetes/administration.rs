//! What an administrator sees and does with a kubeconfig of their own, to make a roll-out strict: which Nodes there are and
//! how their agents fare, what the agents were told, and the WarrenCluster. No agent makes any of these requests.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};
use warren_overlay::mesh::{Cluster, Enforcement, Snapshot};

use super::follow::News;
use super::object::{Kind, Object, is_going, version};
use super::resources::CLUSTER_NAME;
use super::server::{all, answer};
use super::store::Store;
use super::{Fault, connect};
use crate::config::Kubernetes;
use crate::registry::Known;

/// By which labels Pods of the agent are known, whatever installed them.
const AGENTS: &str = "app.kubernetes.io/name=warren,app.kubernetes.io/component=agent";
/// Whose field the enforcement is.
const MANAGER: &str = "warren-cluster";

/// An API server, as an administrator sees it.
pub(crate) struct Administration {
    client: Client,
    url: String,
}

/// What of a Node counts here.
struct Machine {
    name: String,
    pod_cidrs: Vec<IpNet>,
}

/// What of an agent's Pod counts here.
struct Pod {
    node: String,
    name: String,
    is_ready: bool,
}

impl Administration {
    /// Connects.
    pub(crate) async fn open(config: &Kubernetes) -> Result<Self, String> {
        let url = connect::server(config).await.unwrap_or_default();
        let client = connect::connect(config).await.map_err(|fault| fault.to_string())?;
        Ok(Self { client, url })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The Nodes that need an agent, each with its Pod CIDRs, and what is wrong with its agent's Pod. Where no agent runs in
    /// a Pod, nobody knows that here.
    pub(crate) async fn nodes(&self) -> Result<BTreeMap<String, (Vec<IpNet>, Option<String>)>, String> {
        let machines = self.all(Kind::Node.path(), None, machine).await.map_err(|fault| self.tell(&fault))?;
        let pods = self.all("/api/v1/pods", Some(AGENTS), pod).await.map_err(|fault| self.tell(&fault))?;
        let none = machines.iter().all(|machine| machine.pod_cidrs.is_empty());
        // Where Kubernetes gives out no Pod CIDRs, any Node may have Pods.
        let ours = machines.into_iter().filter(|machine| none || !machine.pod_cidrs.is_empty());
        let told = ours.map(|Machine { name, pod_cidrs }| {
            let lacks = lacks_pod(&name, &pods);
            (name, (pod_cidrs, lacks))
        });
        Ok(told.collect())
    }

    /// The cluster, at which version it was seen, and everything that agents are told.
    pub(crate) async fn cluster(&self) -> Result<(Cluster, String, Snapshot), String> {
        let (mut store, mut seen) = (Store::default(), String::new());
        for kind in [Kind::Cluster, Kind::Block, Kind::Record] {
            let keep = |value: Value| {
                if kind == Kind::Cluster && value.pointer("/metadata/name") == Some(&CLUSTER_NAME.into()) {
                    seen = version(&value).unwrap_or_default();
                }
                if is_going(kind, &value) { None } else { Object::read(kind, value) }
            };
            let objects = self.all(kind.path(), None, keep).await.map_err(|fault| self.tell(&fault))?;
            store.apply(News::Listed(kind, objects, String::new()));
        }
        let cluster = store.cluster("")?;
        let (snapshot, _) = store.snapshot(cluster.clone(), &Known::default());
        Ok((cluster, seen, snapshot))
    }

    /// Changes the enforcement; false when somebody changed the object since `seen`.
    pub(crate) async fn enforce(&self, enforcement: Enforcement, seen: &str) -> Result<bool, String> {
        let change = json!({"metadata": {"resourceVersion": seen}, "spec": {"enforcement": enforcement}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(Kind::Cluster.path()).patch(CLUSTER_NAME, &params, &Patch::Merge(change));
        let request = request.map_err(|error| error.to_string())?;
        match answer(&self.client, request).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.code() == Some(409) => Ok(false),
            Err(fault) => Err(self.tell(&fault)),
        }
    }

    /// Of everything at a path what is kept of it.
    async fn all<T>(
        &self,
        path: &str,
        labels: Option<&str>,
        keep: impl FnMut(Value) -> Option<T>,
    ) -> Result<Vec<T>, Fault> {
        let params = ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default() };
        all(&self.client, path, params, keep).await
    }

    /// What that means for an administrator.
    fn tell(&self, fault: &Fault) -> String {
        let remedy = match fault.code() {
            Some(401 | 403) => "; come as an administrator of the cluster: --kubeconfig FILE",
            Some(404) => "; if its agents use etcd, name that with --endpoints URL",
            _ => "",
        };
        format!("the API server at {}: {fault}{remedy}", self.url)
    }
}

fn text(value: &Value, at: &str) -> Option<String> {
    value.pointer(at)?.as_str().map(str::to_owned)
}

/// `None` for one that is being deleted.
fn machine(value: Value) -> Option<Machine> {
    let is_going = value.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    let cidrs = value.pointer("/spec/podCIDRs").and_then(Value::as_array).into_iter().flatten();
    let pod_cidrs = cidrs.filter_map(|cidr| cidr.as_str()?.parse().ok()).collect();
    let machine = Machine { name: text(&value, "/metadata/name")?, pod_cidrs };
    (!is_going).then_some(machine)
}

/// `None` for one that is on no node yet.
fn pod(value: Value) -> Option<Pod> {
    let is_going = value.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
    Some(Pod {
        node: text(&value, "/spec/nodeName")?,
        name: text(&value, "/metadata/name")?,
        is_ready: !is_going && conditions.is_some_and(|all| all.iter().any(is_ready)),
    })
}

/// What is wrong with the agent's Pod of this node.
fn lacks_pod(node: &str, pods: &[Pod]) -> Option<String> {
    let own: Vec<_> = pods.iter().filter(|pod| pod.node == node).collect();
    if pods.is_empty() || own.iter().any(|pod| pod.is_ready) {
        return None;
    }
    let names: BTreeSet<_> = own.iter().map(|pod| pod.name.as_str()).collect();
    Some(match names.first() {
        Some(name) => format!("the agent's Pod {name} is not ready"),
        None => "no Pod of the agent runs there, and a record is no sign of life".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(node: &str, ready: &str) -> Option<Pod> {
        let conditions = json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}]);
        pod(json!({"metadata": {"name": format!("warren-{node}")}, "spec": {"nodeName": node},
            "status": {"conditions": conditions}}))
    }

    #[test]
    fn a_node_needs_a_pod_of_the_agent_that_is_ready_where_agents_run_in_pods() {
        let pods: Vec<_> =
            [on("a", "True"), on("b", "False"), on("c", "True"), on("c", "False")].into_iter().flatten().collect();
        assert_eq!(lacks_pod("a", &pods), None);
        assert_eq!(lacks_pod("b", &pods).as_deref(), Some("the agent's Pod warren-b is not ready"));
        assert_eq!(lacks_pod("c", &pods), None, "one goes while the next is there");
        assert!(lacks_pod("d", &pods).is_some_and(|why| why.contains("no Pod")));
        assert_eq!(lacks_pod("d", &[]), None, "agents that run otherwise have none");
    }

    #[test]
    fn what_is_being_deleted_does_not_count() {
        let mut node = json!({"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.1.0.0/24"]}});
        assert!(machine(node.clone()).is_some_and(|machine| machine.pod_cidrs.len() == 1));
        node["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(machine(node).is_none());
        let going = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(pod(going).is_some_and(|pod| !pod.is_ready));
        assert!(pod(json!({"metadata": {"name": "p"}})).is_none() && machine(json!(7)).is_none());
    }
}
