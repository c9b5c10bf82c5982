//! What deploy/ has for who watches: where metrics are, and that rules and dashboard ask for what there is.

use serde_json::Value;
use warren_tests::manifests::{Manifests, REQUIRED, named, root, template, value_of};

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

/// The agents of every release have one job: rules that knew the name of one would never fire for another.
#[test]
fn rules_ask_for_the_job_that_the_monitor_gives_to_agents_whatever_the_release_is_called() {
    let other = template("mesh", "network", &[&REQUIRED[..], &["monitoring.enabled=true"]].concat(), &[]);
    for manifests in [Manifests::with(&["monitoring"]), Manifests::rendered(&other)] {
        let label = manifests.one("PodMonitor")["spec"]["jobLabel"].as_str().expect("the job is a label of the Pod's");
        let job = &manifests.one("DaemonSet")["spec"]["template"]["metadata"]["labels"][label];
        let asked = format!("up{{job=\"{}\"}}", job.as_str().expect("the Pod has that label"));
        let mut rules = Vec::new();
        expressions(manifests.one("PrometheusRule"), &mut rules);
        let of_up: Vec<_> = rules.iter().filter(|rule| names(rule).any(|name| name == "up")).collect();
        assert!(of_up.len() >= 3 && of_up.iter().all(|rule| rule.contains(&asked)), "{asked} in {of_up:?}");
    }
}

#[test]
fn a_node_without_the_agents_pod_is_told_of_too() {
    let manifests = Manifests::with(&["monitoring"]);
    let rules = &manifests.one("PrometheusRule")["spec"]["groups"][0]["rules"];
    let alert = |name: &str| {
        let rule = rules.as_array().into_iter().flatten().find(|rule| rule["alert"] == name).expect("an alert");
        rule["expr"].as_str().expect("an expression").to_owned()
    };
    // Whose Pod is absent has no `up`: what there should be comes from elsewhere, and both have the label `node`.
    let missing = alert("WarrenAgentMissing");
    assert!(missing.starts_with("kube_node_info") && missing.contains("unless on (node) up{"), "{missing}");
    let monitored = &manifests.one("PodMonitor")["spec"]["podMetricsEndpoints"][0]["relabelings"][0];
    assert_eq!(monitored["targetLabel"], "node");
    assert!(alert("WarrenAgentsUnseen").starts_with("absent(up{"));
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
