//! The chart's page against its values.

use std::collections::BTreeSet;

use serde_json::Value;
use warren_tests::command::{checked, feed};
use warren_tests::manifests::{root, tool};

/// Tables that are keys of their own, which users fill.
const OPEN: [&str; 6] = ["settings", "affinity", "resources", "podAnnotations", "podLabels", "nodeSelector"];

/// Every value by its dotted name.
fn names(at: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(map) if !OPEN.contains(&at) && !at.ends_with(".labels") => {
            let prefix = if at.is_empty() { String::new() } else { format!("{at}.") };
            map.iter().for_each(|(key, inner)| names(&format!("{prefix}{key}"), inner, found));
        }
        _ => _ = found.insert(at.to_owned()),
    }
}

#[test]
fn the_page_names_every_value_and_no_other() {
    let read = |file: &str| std::fs::read_to_string(root().join("deploy/helm/warren").join(file)).expect("it is there");
    let argv =
        [&tool("venv/bin/python"), "-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"];
    let values: Value = serde_json::from_str(&checked(&argv, feed(&argv, &read("values.yaml")))).expect("JSON");
    let mut known = BTreeSet::new();
    names("", &values, &mut known);
    let rows = read("README.md");
    let rows = rows.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let told: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert!(known.len() > 30, "{known:?}");
    assert_eq!(told, known);
}
