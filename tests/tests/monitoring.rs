//! What deploy/ has for who watches: where metrics are, and that rules and dashboard ask for what there is.

use serde_json::Value;
use warren_tests::manifests::{Manifests, named, root, value_of};

#[test]
fn metrics_are_on_the_nodes_address_and_every_name_that_is_asked_for_exists() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page is there");
    let known = |name: &str| name == "up" || page.contains(&format!("`{name}`"));
    for manifests in [Manifests::with(&["monitoring"]), Manifests::chart(&["monitoring.enabled=true"])] {
        assert_eq!(manifests.unknown, ["PodMonitor", "PrometheusRule"]);
        let agent = manifests.agent();
        assert_eq!(value_of(agent, "WARREN_METRICS_LISTEN"), "$(HOST_IP):9586");
        let place = |name: &str| agent["env"].as_array().into_iter().flatten().position(|one| one["name"] == name);
        assert!(place("HOST_IP") < place("WARREN_METRICS_LISTEN"), "Kubernetes knows only variables from above");
        let monitor = &manifests.one("PodMonitor")["spec"];
        let labels = &manifests.one("DaemonSet")["spec"]["template"]["metadata"]["labels"];
        for (label, value) in monitor["selector"]["matchLabels"].as_object().expect("a selector") {
            assert_eq!(labels[label], *value, "the monitor selects no Pod of the agent's");
        }
        assert_eq!(named(&agent["ports"], "metrics")["containerPort"], 9586);

        let dashboards = manifests.documents.iter().find(|one| one["metadata"]["labels"]["grafana_dashboard"] == "1");
        let dashboard = dashboards.and_then(|one| one["data"]["warren.json"].as_str()).expect("a dashboard");
        let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
        let mut asked = Vec::new();
        expressions(&dashboard, &mut asked);
        expressions(manifests.one("PrometheusRule"), &mut asked);
        assert!(asked.len() > 20, "expressions were not found");
        for name in asked.iter().flat_map(|expression| names(expression)) {
            assert!(known(name), "{name} is no metric of docs/metrics.md");
        }
    }
    let ipv6 = Manifests::chart(&["monitoring.enabled=true", "monitoring.ipv6=true"]);
    assert_eq!(value_of(ipv6.agent(), "WARREN_METRICS_LISTEN"), "[$(HOST_IP)]:9586");
}

/// All values of keys named `expr`.
fn expressions(value: &Value, found: &mut Vec<String>) {
    if let Some(map) = value.as_object() {
        found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
        map.values().for_each(|inner| expressions(inner, found));
    }
    value.as_array().into_iter().flatten().for_each(|inner| expressions(inner, found));
}

/// The metrics in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|byte: char| !(byte.is_ascii_alphanumeric() || byte == '_'));
    words.filter(|word| word.starts_with("warren_") || *word == "up")
}
