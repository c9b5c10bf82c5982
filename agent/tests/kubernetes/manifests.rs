//! The roles in `deploy/kubernetes/base` against what the agent asks for.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use warren_agent::registry::kubernetes::{ACCESS, Access, SOURCES};

fn read(folder: &str, file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes").join(folder).join(file);
    let manifest = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    manifest.split("\n---\n").map(|one| serde_saphyr::from_str(one).expect("YAML")).collect()
}

fn documents(file: &str) -> Vec<Value> {
    read("base", file)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|one| one.as_str().expect("a text").to_owned()).collect()
}

/// Each with the namespace in which it holds.
fn rules(role: &Value) -> Vec<(Value, Option<String>)> {
    let place = role["metadata"]["namespace"].as_str().map(str::to_owned);
    assert_eq!(place.is_some(), role["kind"] == "Role", "{role}");
    role["rules"].as_array().expect("rules").iter().map(|rule| (rule.clone(), place.clone())).collect()
}

#[test]
fn every_role_is_bound_to_the_same_agents_in_its_own_place() {
    let all = read("base", "rbac.yaml");
    let bindings: Vec<_> = all.iter().filter(|one| one["roleRef"].is_object()).collect();
    for role in all.iter().filter(|one| one["rules"].is_array()) {
        let of = |one: &&&Value| {
            one["roleRef"]["name"] == role["metadata"]["name"] && one["roleRef"]["kind"] == role["kind"]
        };
        let bound: Vec<_> = bindings.iter().filter(of).collect();
        assert_eq!(bound.len(), 1, "{role}");
        assert_eq!(bound[0]["metadata"]["namespace"], role["metadata"]["namespace"]);
        assert_eq!(bound[0]["subjects"], bindings[0]["subjects"]);
    }
}

/// Holds the roles in the folder to the table.
#[track_caller]
fn assert_allows(folder: &str, table: &[Access]) {
    let mut allowed = BTreeSet::new();
    let roles = read(folder, "rbac.yaml").into_iter().filter(|one| one["rules"].is_array());
    for (rule, place) in roles.flat_map(|role| rules(&role)) {
        let names = texts(&rule["resourceNames"]);
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    let one = (group.clone(), resource.clone(), verb, names.clone(), place.clone());
                    assert!(allowed.insert(one), "{rule}: twice");
                }
            }
        }
    }
    let asked: BTreeSet<_> = table
        .iter()
        .map(|one| {
            let names = one.name.iter().map(|name| (*name).to_owned()).collect();
            let place = one.namespace.map(str::to_owned);
            (one.group.to_owned(), one.resource.to_owned(), one.verb.to_owned(), names, place)
        })
        .collect();
    assert_eq!(allowed, asked, "{folder}");
}

#[test]
fn the_role_allows_what_the_agent_asks_for_and_nothing_else() {
    assert_allows("base", ACCESS);
}

#[test]
fn a_source_of_prefixes_has_a_role_of_its_own_bound_to_the_agent_and_no_other_has_it() {
    for (source, table) in SOURCES {
        let folder = format!("components/cidrs-{source}");
        assert_allows(&folder, table);
        let documents = read(&folder, "rbac.yaml");
        let binding = documents.iter().find(|one| one["kind"] == "ClusterRoleBinding").expect("a binding");
        let role = documents.iter().find(|one| one["kind"] == "ClusterRole").expect("a role");
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        assert_eq!(binding["subjects"][0]["name"], "warren", "{source}");
    }
}

#[test]
fn policies_cover_every_resource_that_can_be_written_with_its_status() {
    for document in documents("crds.yaml").iter().filter(|one| one["kind"] == "CustomResourceDefinition") {
        let plural = document["spec"]["names"]["plural"].as_str().expect("a name");
        let policy = &documents("admission.yaml")[0];
        let rule = &policy["spec"]["matchConstraints"]["resourceRules"][0];
        let covered = texts(&rule["resources"]);
        assert!(covered.contains(&plural.to_owned()) && covered.contains(&format!("{plural}/status")), "{plural}");
        assert_eq!(texts(&rule["operations"]), ["CREATE", "UPDATE", "DELETE"]);
        assert_eq!(rule["apiGroups"][0], document["spec"]["group"]);
    }
}

#[test]
fn a_node_begins_by_either_overlay_as_the_cluster_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/overlays");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).expect("the manifest is there");
    let cluster: Value = serde_saphyr::from_str(&read("kubernetes/cluster.yaml")).expect("YAML");
    for overlay in ["kubernetes", "etcd"] {
        let file: Value = toml::from_str(&read(&format!("{overlay}/warren.toml"))).expect("TOML");
        for key in ["networks", "enforcement"] {
            let said = &cluster["spec"][key];
            assert!(!said.is_null() && file["overlay"][key] == *said, "{overlay}: {key}");
        }
    }
}
