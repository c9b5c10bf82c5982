//! The admission policies of `deploy/kubernetes/base`, evaluated as an API server would: who may write what. By a real
//! evaluator of CEL, but not by Kubernetes' own.

use serde_json::{Value, json};

use crate::policy::{Case, Policy};

/// The token of a Pod on this node.
fn pod_on(node: &str) -> Value {
    json!({"username": "system:serviceaccount:warren-system:warren", "groups": ["system:serviceaccounts"],
        "extra": {"authentication.kubernetes.io/node-name": [node], "authentication.kubernetes.io/pod-name": ["warren-x"]}})
}

fn user(name: &str) -> Value {
    json!({"username": name, "groups": ["system:authenticated"]})
}

fn owner(node: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": format!("uid-{node}")}])
}

/// With its owners, if it has any: what is empty is left out on the wire.
fn object(name: &str, owners: &Value, spec: Value) -> Value {
    match owners {
        Value::Null => json!({"metadata": {"name": name}, "spec": spec}),
        owners => json!({"metadata": {"name": name, "ownerReferences": owners}, "spec": spec}),
    }
}

fn record(node: &str, owners: &Value) -> Value {
    object(node, owners, json!({"cidrs": ["10.1.0.0/24"], "addresses": ["192.0.2.1"]}))
}

fn block(cidr: &str, node: &str, owners: &Value) -> Value {
    object(&cidr.replace(['.', '/'], "-"), owners, json!({"cidr": cidr, "node": node}))
}

fn cluster() -> Value {
    json!({"metadata": {"name": "default"}, "spec": {"networks": ["0.0.0.0/0"]}})
}

const MIGRATOR: &str = "system:serviceaccount:kube-system:storage-version-migrator-controller";
const COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

/// What a node's agent, a host and those who administer do.
fn honest() -> Vec<(&'static str, Case)> {
    let (a, host) = (pod_on("a"), user("warren:host:h"));
    let (own, bare) = (record("a", &owner("a")), json!({"metadata": {"name": "h"}, "spec": {}}));
    let own_block = block("10.1.0.0/24", "a", &owner("a"));
    let mut with_status = own.clone();
    with_status["status"] = json!({"conditions": []});
    let mut going = own.clone();
    going["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    vec![
        ("its record that an administrator deletes", Case::update(&a, "warrennodes", going.clone(), going)),
        ("its record", Case::create(&a, "warrennodes", own.clone())),
        ("its record again", Case::update(&a, "warrennodes", own.clone(), own.clone())),
        ("its status", Case::update(&a, "warrennodes/status", own.clone(), with_status)),
        ("its record away", Case::delete(&a, "warrennodes", own.clone())),
        ("its block", Case::create(&a, "warrenblocks", own_block.clone())),
        ("its block away", Case::delete(&a, "warrenblocks", own_block.clone())),
        ("a host's record", Case::create(&host, "warrennodes", bare.clone())),
        ("a host's record again", Case::update(&host, "warrennodes", bare.clone(), bare.clone())),
        ("a host's record away", Case::delete(&host, "warrennodes", bare)),
        ("the collector", Case::delete(&user(COLLECTOR), "warrenblocks", own_block.clone())),
        (
            "the collector, leaving an orphan",
            Case::update(&user(COLLECTOR), "warrenblocks", own_block.clone(), block("10.1.0.0/24", "a", &json!(null))),
        ),
        ("the storage migrator", Case::update(&user(MIGRATOR), "warrennodes", own.clone(), own.clone())),
        ("the collector of old", Case::delete(&user("system:kube-controller-manager"), "warrennodes", own)),
        ("an administrator's block", Case::create(&user("admin"), "warrenblocks", own_block).by_administrator()),
        ("the cluster", Case::create(&user("admin"), "warrenclusters", cluster()).by_administrator()),
    ]
}

/// What nobody may.
fn hostile() -> Vec<(&'static str, Case)> {
    let (a, host) = (pod_on("a"), user("warren:host:h"));
    let no_node = json!({"username": "system:serviceaccount:warren-system:warren"});
    let mut two_nodes = pod_on("a");
    two_nodes["extra"]["authentication.kubernetes.io/node-name"] = json!(["a", "b"]);
    let mut empty = pod_on("");
    empty["extra"]["authentication.kubernetes.io/node-name"] = json!([""]);
    let (own, other) = (record("a", &owner("a")), record("b", &owner("b")));
    let (own_block, other_block) = (block("10.1.0.0/24", "a", &owner("a")), block("10.2.0.0/24", "b", &owner("b")));
    let mut keeper = owner("a");
    keeper.as_array_mut().expect("a list").push(owner("b")[0].clone());
    let pod_owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "x"}]);
    let nobody = json!(null);
    let (mut kept, mut blocking) = (own.clone(), own.clone());
    kept["metadata"]["finalizers"] = json!(["mallory.example/stay"]);
    blocking["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = true.into();
    let mut changed = own.clone();
    changed["spec"]["cidrs"] = json!(["10.2.0.0/24"]);
    let mut kept_host = record("h", &nobody);
    kept_host["metadata"]["finalizers"] = json!(["mallory.example/stay"]);
    vec![
        ("a record that stays", Case::create(&a, "warrennodes", kept.clone())),
        ("a record that is to stay", Case::update(&a, "warrennodes", own.clone(), kept)),
        ("a host's record that stays", Case::create(&host, "warrennodes", kept_host)),
        ("a record that keeps its Node", Case::create(&a, "warrennodes", blocking)),
        ("a token without node", Case::create(&no_node, "warrennodes", own.clone())),
        ("a token without node, deleting", Case::delete(&no_node, "warrennodes", own.clone())),
        ("a token of two nodes", Case::create(&two_nodes, "warrennodes", own.clone())),
        ("a token of the node without a name", Case::create(&empty, "warrennodes", record("", &owner("")))),
        ("a stranger", Case::create(&user("mallory"), "warrennodes", own.clone())),
        ("another's record", Case::create(&a, "warrennodes", other.clone())),
        ("another's record, changed", Case::update(&a, "warrennodes", other.clone(), other.clone())),
        ("another's record, taken over", Case::update(&a, "warrennodes", other.clone(), own.clone())),
        ("another's record, away", Case::delete(&a, "warrennodes", other.clone())),
        ("another's status", Case::update(&a, "warrennodes/status", other.clone(), other.clone())),
        ("a block for another", Case::create(&a, "warrenblocks", block("10.1.0.0/24", "b", &owner("a")))),
        ("another's block, away", Case::delete(&a, "warrenblocks", other_block.clone())),
        ("another's block, taken over", Case::update(&a, "warrenblocks", other_block, own_block.clone())),
        ("its block, given away", Case::update(&a, "warrenblocks", own_block, block("10.1.0.0/24", "b", &owner("a")))),
        ("the cluster", Case::update(&a, "warrenclusters", cluster(), cluster())),
        ("the cluster, away", Case::delete(&a, "warrenclusters", cluster())),
        (
            "the cluster by a node of its name",
            Case::create(&pod_on("default"), "warrenclusters", {
                let mut object = cluster();
                object["metadata"]["ownerReferences"] = owner("default");
                object
            }),
        ),
        ("a record that nobody owns", Case::create(&a, "warrennodes", record("a", &nobody))),
        ("a record of another owner", Case::create(&a, "warrennodes", record("a", &owner("b")))),
        ("a record of two owners", Case::create(&a, "warrennodes", record("a", &keeper))),
        ("a record that a Pod owns", Case::create(&a, "warrennodes", record("a", &pod_owner))),
        ("a host's own block", Case::create(&host, "warrenblocks", block("10.1.0.0/24", "h", &nobody))),
        ("another's record by a host", Case::create(&host, "warrennodes", record("a", &nobody))),
        ("another's record by a host, away", Case::delete(&host, "warrennodes", own.clone())),
        ("a host's record that a Node owns", Case::create(&host, "warrennodes", record("h", &owner("a")))),
        (
            "a host with a node's name in its token",
            Case::create(
                &json!({"username": "warren:host:h", "extra": {"authentication.kubernetes.io/node-name": ["a"]}}),
                "warrennodes",
                own.clone(),
            ),
        ),
        ("the collector, writing", Case::update(&user(COLLECTOR), "warrennodes", own.clone(), changed)),
        ("the migrator, making", Case::create(&user(MIGRATOR), "warrennodes", own)),
    ]
}

fn node_a() -> Value {
    json!({"metadata": {"name": "a", "uid": "uid-a"}, "spec": {"podCIDRs": ["10.1.0.0/24"]},
        "status": {"addresses": [{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "192.0.2.1"}]}})
}

/// All against the same Node.
fn honest_of_facts() -> Vec<(&'static str, Case)> {
    let a = pod_on("a");
    let own = record("a", &owner("a"));
    let cases = vec![
        ("its block", Case::create(&a, "warrenblocks", block("10.1.0.0/24", "a", &owner("a")))),
        ("its record", Case::create(&a, "warrennodes", own.clone())),
        ("its record again", Case::update(&a, "warrennodes", own.clone(), own)),
        (
            "an orphan of the collector",
            Case::update(
                &user(COLLECTOR),
                "warrenblocks",
                block("10.2.0.0/24", "a", &owner("a")),
                block("10.2.0.0/24", "a", &json!(null)),
            ),
        ),
        ("a record without prefixes", Case::create(&a, "warrennodes", json!({"metadata": {"name": "a"}, "spec": {}}))),
        (
            "another's block, of which this Node says nothing",
            Case::create(&pod_on("b"), "warrenblocks", block("10.2.0.0/24", "b", &owner("b"))),
        ),
        ("a host's record", Case::create(&user("warren:host:a"), "warrennodes", record("a", &json!(null)))),
        (
            "an administrator's block",
            Case::create(&user("admin"), "warrenblocks", block("10.9.0.0/24", "a", &json!(null))).by_administrator(),
        ),
    ];
    cases.into_iter().map(|(what, case)| (what, case.against(&node_a()))).collect()
}

fn hostile_of_facts() -> Vec<(&'static str, Case)> {
    let a = pod_on("a");
    let record_of = |spec: Value| json!({"metadata": {"name": "a", "ownerReferences": owner("a")}, "spec": spec});
    let mut forged = owner("a");
    forged[0]["uid"] = "uid-b".into();
    let bare = json!({"metadata": {"name": "a", "uid": "uid-a"}, "spec": {}, "status": {}});
    let cases = vec![
        ("a prefix of another", Case::create(&a, "warrenblocks", block("10.2.0.0/24", "a", &owner("a")))),
        ("more than its prefix", Case::create(&a, "warrenblocks", block("10.1.0.0/16", "a", &owner("a")))),
        ("an address as a prefix", Case::create(&a, "warrenblocks", block("192.0.2.9/32", "a", &owner("a")))),
        (
            "a record with a prefix of another",
            Case::create(&a, "warrennodes", record_of(json!({"cidrs": ["10.1.0.0/24", "10.2.0.0/24"]}))),
        ),
        (
            "a record with an address of another",
            Case::create(&a, "warrennodes", record_of(json!({"addresses": ["192.0.2.1", "192.0.2.2"]}))),
        ),
        ("another UID", Case::create(&a, "warrenblocks", block("10.1.0.0/24", "a", &forged))),
    ];
    let mut cases: Vec<_> = cases.into_iter().map(|(what, case)| (what, case.against(&node_a()))).collect();
    let early = Case::create(&a, "warrenblocks", block("10.1.0.0/24", "a", &owner("a"))).against(&bare);
    cases.push(("a prefix before Kubernetes gave any", early));
    cases
}

/// What an agent on `a` writes, more or less.
fn event(regarding: Value, controller: &str, instance: &str) -> Value {
    json!({"metadata": {"generateName": "a-"}, "reason": "NotReady", "type": "Warning", "regarding": regarding,
        "reportingController": controller, "reportingInstance": instance})
}

fn of(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "name": name})
}

fn honest_events() -> Vec<(&'static str, Case)> {
    let (a, host, other) =
        (pod_on("a"), user("warren:host:h"), user("system:serviceaccount:kube-system:node-controller"));
    let ours = |kind: &str, node: &str| event(of(kind, node), "warren.dev/agent", node);
    vec![
        ("of its Node", Case::create(&a, "events", ours("Node", "a"))),
        ("of its record", Case::create(&a, "events", ours("WarrenNode", "a"))),
        ("of a host's record", Case::create(&host, "events", ours("WarrenNode", "h"))),
        ("somebody else's", Case::create(&other, "events", event(of("Pod", "x"), "other", "b"))),
        ("of nobody that is named", Case::create(&json!({}), "events", json!({}))),
    ]
}

fn hostile_events() -> Vec<(&'static str, Case)> {
    let a = pod_on("a");
    let no_node = json!({"username": "system:serviceaccount:warren-system:warren"});
    let host = user("warren:host:");
    let ours = |kind: &str, node: &str| event(of(kind, node), "warren.dev/agent", "a");
    vec![
        ("of another node", Case::create(&a, "events", ours("Node", "b"))),
        ("of something else", Case::create(&a, "events", ours("Pod", "a"))),
        ("of nothing", Case::create(&a, "events", event(json!({}), "warren.dev/agent", "a"))),
        ("as another controller", Case::create(&a, "events", event(of("Node", "a"), "kubelet", "a"))),
        ("as another instance", Case::create(&a, "events", event(of("Node", "a"), "warren.dev/agent", "b"))),
        ("without a node", Case::create(&no_node, "events", event(of("Node", ""), "warren.dev/agent", ""))),
        ("a host without a name", Case::create(&host, "events", event(of("Node", ""), "warren.dev/agent", ""))),
        ("one that is there", Case::update(&a, "events", json!({}), event(of("Node", "b"), "warren.dev/agent", "a"))),
    ]
}

fn hold(policy: &Policy, honest: &[(&str, Case)], hostile: &[(&str, Case)]) {
    for (what, case) in honest {
        assert_eq!(policy.judge(case), Ok(()), "refused: {what}");
    }
    for (what, case) in hostile {
        let message = policy.judge(case).expect_err(what);
        assert!(!message.is_empty(), "{what} is refused without a word");
    }
}

/// Without any one of its rules something hostile would pass.
fn needs_every_rule(policy: &Policy, hostile: &[(&str, Case)]) {
    for (number, validation) in policy.validations.iter().enumerate() {
        let mut weaker = policy.clone();
        weaker.validations.remove(number);
        let passes = hostile.iter().any(|(_, case)| weaker.judge(case).is_ok());
        assert!(passes, "no case needs this rule: {}", validation.rule.0);
    }
}

#[test]
fn a_token_writes_the_objects_of_its_own_node_and_no_others() {
    hold(&Policy::read("admission.yaml"), &honest(), &hostile());
}

#[test]
fn a_node_says_of_itself_what_kubernetes_knows() {
    hold(&Policy::read("admission-node-facts.yaml"), &honest_of_facts(), &hostile_of_facts());
}

#[test]
fn an_agent_says_something_of_its_own_node_only() {
    hold(&Policy::read("admission-events.yaml"), &honest_events(), &hostile_events());
}

#[test]
fn where_the_cni_gives_the_prefixes_a_node_gives_itself_any_but_single_addresses() {
    for source in ["calico", "cilium"] {
        let policy = Policy::of_facts_with_cidrs(source);
        let case =
            |cidr: &str| Case::create(&pod_on("a"), "warrenblocks", block(cidr, "a", &owner("a"))).against(&node_a());
        let cases = ["10.2.0.0/26", "fd00:10::40/122", "fd00::/32"].map(|cidr| (cidr, case(cidr)));
        hold(&policy, &cases, &[]);
        hold(&policy, &honest_of_facts(), &["192.0.2.9/32", "fd00::1/128"].map(|cidr| (cidr, case(cidr))));
        let others: Vec<_> = hostile_of_facts();
        let refused = others.iter().filter(|(_, case)| policy.judge(case).is_err()).map(|(what, _)| *what);
        let expected = ["an address as a prefix", "a record with an address of another", "another UID"];
        assert_eq!(refused.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn no_rule_is_there_for_nothing() {
    needs_every_rule(&Policy::read("admission-events.yaml"), &hostile_events());
    needs_every_rule(&Policy::read("admission.yaml"), &hostile());
    needs_every_rule(&Policy::read("admission-node-facts.yaml"), &hostile_of_facts());
}

#[test]
fn what_a_request_may_lack_is_asked_for_first() {
    // Marked `omitempty` in AdmissionRequest and UserInfo.
    let lacking = [
        "subResource",
        "requestKind",
        "requestResource",
        "requestSubResource",
        "name",
        "namespace",
        "object",
        "oldObject",
        "dryRun",
        "options",
        "userInfo.uid",
        "userInfo.groups",
        "userInfo.extra",
    ];
    for policy in ["admission.yaml", "admission-node-facts.yaml", "admission-events.yaml"].map(Policy::read) {
        for (expression, field) in policy.expressions().flat_map(|one| lacking.map(|field| (one, field))) {
            let asks = expression.split(|one: char| !(one.is_alphanumeric() || one == '.'));
            let name = format!("request.{field}");
            let uses = asks.filter(|word| *word == name).count();
            assert!(uses == 0 || expression.contains(&format!("has({name})")), "{expression}");
        }
    }
}
