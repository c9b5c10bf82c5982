//! The rules that the definitions themselves carry (`x-kubernetes-validations`), judged by a CEL evaluator as an API server
//! would: which objects are never stored, whoever writes them.

use std::path::Path;
use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, Program};
use serde_json::{Value, json};

/// The schema of a kind, out of the manifest that is installed.
fn schema(kind: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/base/crds.yaml");
    let manifest = std::fs::read_to_string(path).expect("the manifest is there");
    let mut all = manifest.split("\n---\n").map(|one| serde_saphyr::from_str::<Value>(one).expect("YAML"));
    let found = all.find(|one| one["spec"]["names"]["kind"] == kind).expect("the kind");
    found["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn is_true(rule: &str, now: &Value, before: Option<&Value>) -> bool {
    let mut context = Context::default();
    context.add_variable("self", now).expect("JSON is CEL");
    if let Some(before) = before {
        context.add_variable("oldSelf", before).expect("JSON is CEL");
    }
    // Of Kubernetes' library for strings; the evaluator lacks it.
    context.add_function("replace", |This(this): This<Arc<String>>, from: Arc<String>, to: Arc<String>| {
        this.replace(from.as_str(), to.as_str())
    });
    let program = Program::compile(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    let value = program.execute(&context).unwrap_or_else(|error| panic!("{rule}: {error}"));
    value.json().ok().and_then(|value| value.as_bool()).unwrap_or_else(|| panic!("{rule}: neither true nor false"))
}

/// The messages of all rules of this schema and of those below it that the object breaks. A rule about `oldSelf` is for updates.
fn broken(schema: &Value, now: &Value, before: Option<&Value>) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let judged = rules.filter_map(|one| {
        let rule = one["rule"].as_str().expect("a rule");
        let applies = before.is_some() || !rule.contains("oldSelf");
        (applies && !is_true(rule, now, before)).then(|| one["message"].as_str().expect("a message").to_owned())
    });
    let properties = schema["properties"].as_object().into_iter().flatten();
    let below = properties
        .filter(|(name, _)| now.get(name).is_some())
        .flat_map(|(name, schema)| broken(schema, &now[name], before.and_then(|before| before.get(name))));
    judged.chain(below).collect()
}

#[track_caller]
fn refused(kind: &str, now: &Value, before: Option<&Value>, word: &str) {
    let said = broken(&schema(kind), now, before);
    assert!(said.len() == 1 && said[0].contains(word), "{now}: {said:?}");
}

#[track_caller]
fn taken(kind: &str, now: &Value, before: Option<&Value>) {
    assert_eq!(broken(&schema(kind), now, before), Vec::<String>::new(), "{now}");
}

fn block(name: &str, cidr: &str, node: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"cidr": cidr, "node": node}})
}

#[test]
fn a_block_has_the_name_that_is_its_prefix_and_no_other() {
    for (name, cidr) in [
        ("10-1-2-0-24", "10.1.2.0/24"),
        ("192-0-2-1-32", "192.0.2.1/32"),
        ("fd00-0-0-1---64", "fd00:0:0:1::/64"),
        ("fd00---48", "fd00::/48"),
    ] {
        taken("WarrenBlock", &block(name, cidr, "a"), None);
    }
    for (name, cidr) in [
        ("10-1-2-0-25", "10.1.2.0/24"),
        ("10.1.2.0-24", "10.1.2.0/24"),
        ("mine", "10.1.2.0/24"),
        ("fd00--48", "fd00::/48"),
    ] {
        refused("WarrenBlock", &block(name, cidr, "a"), None, "the name must be the prefix");
    }
}

#[test]
fn a_block_never_changes_its_owner_or_its_prefix() {
    let old = block("10-1-2-0-24", "10.1.2.0/24", "a");
    taken("WarrenBlock", &old, Some(&old));
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"team": "net"});
    taken("WarrenBlock", &labelled, Some(&old));
    refused("WarrenBlock", &block("10-1-2-0-24", "10.1.2.0/24", "b"), Some(&old), "never changes");
    let renamed = broken(&schema("WarrenBlock"), &block("10-1-2-0-24", "10.1.3.0/24", "a"), Some(&old));
    assert_eq!(renamed.len(), 2, "neither its name nor its spec: {renamed:?}");
}

#[test]
fn there_is_one_cluster_and_it_may_change() {
    let cluster = |name: &str, enforcement: &str| {
        let spec = json!({"networks": ["10.0.0.0/8"], "enforcement": enforcement});
        json!({"metadata": {"name": name}, "spec": spec})
    };
    taken("WarrenCluster", &cluster("default", "permissive"), None);
    taken("WarrenCluster", &cluster("default", "strict"), Some(&cluster("default", "permissive")));
    refused("WarrenCluster", &cluster("other", "strict"), None, "called default");
}

#[test]
fn no_rule_of_the_definitions_is_left_unjudged() {
    let count = |kind: &str| schema(kind).to_string().matches("\"rule\":").count();
    assert_eq!(["WarrenBlock", "WarrenCluster", "WarrenNode"].map(count), [2, 1, 0], "judge the new one above");
}
