//! The chart with the API server as the registry, against the overlay that does the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use warren_tests::agent::program;
use warren_tests::command::{attempt, checked};
use warren_tests::manifests::{Manifests, REQUIRED, helm, root, template, value_of};

/// What the chart cannot do without here.
pub(crate) const NEEDED: [&str; 2] = ["registry=kubernetes", "overlay.networks={10.244.0.0/16}"];

fn chart(values: &[&str]) -> Manifests {
    Manifests::unchecked(&template("warren", "warren-system", &[&NEEDED[..], values].concat(), &[]))
}

fn etcd(values: &[&str]) -> Manifests {
    Manifests::unchecked(&helm(&[&REQUIRED[..], values].concat()))
}

fn overlay() -> Manifests {
    Manifests::over("overlays/kubernetes", &[])
}

/// The WarrenCluster that goes with the overlay.
fn cluster() -> Value {
    let text = std::fs::read_to_string(root().join("deploy/kubernetes/overlays/kubernetes/cluster.yaml"));
    Manifests::read(&text.expect("it is there")).documents.remove(0)
}

fn without(object: &mut Value, path: &str, keys: &[&str]) {
    let inner = object.pointer_mut(path).and_then(Value::as_object_mut).expect(path);
    keys.iter().for_each(|key| _ = inner.remove(*key));
}

/// Writes 1.0 and 1 alike: kustomize does.
fn level(value: &mut Value) {
    match value {
        Value::Number(number) => *value = json!(number.as_f64()),
        Value::Array(list) => list.iter_mut().for_each(level),
        Value::Object(map) => map.values_mut().for_each(level),
        _ => {}
    }
}

/// By kind and name, without what is the way of installation's own: labels, and how its configuration reaches the agent.
fn essence(documents: Vec<Value>) -> BTreeMap<(String, String), Value> {
    let mut found = BTreeMap::new();
    for mut object in documents {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        without(&mut object, "/metadata", &["labels"]);
        level(&mut object);
        match kind.as_str() {
            // `helm install --namespace` says the one, settings are compared apart, and `helm test` is Helm's.
            "Namespace" | "ConfigMap" | "Pod" => continue,
            "ServiceAccount" => {
                without(&mut object, "/metadata", &["namespace"]);
                // The Pod says it, and wins.
                without(&mut object, "", &["automountServiceAccountToken"]);
            }
            "ResourceQuota" => without(&mut object, "/metadata", &["namespace"]),
            "DaemonSet" => {
                without(&mut object, "/metadata", &["namespace"]);
                without(&mut object, "/spec", &["selector"]);
                without(&mut object, "/spec/template", &["metadata"]);
                without(&mut object, "/spec/template/spec/containers/0", &["env"]);
                // What holds without it.
                without(&mut object, "/spec/template/spec/initContainers/0/securityContext", &["privileged"]);
                without(&mut object, "/spec/template/spec/volumes/0/configMap", &["name"]);
            }
            _ => {}
        }
        assert!(found.insert((kind, name), object).is_none(), "twice");
    }
    found
}

/// The agent's environment, but for its node's name.
fn settings(manifests: &Manifests) -> BTreeMap<String, String> {
    let all = manifests.agent()["env"].as_array().expect("there are").iter();
    let said = all.filter_map(|one| Some((one["name"].as_str()?.to_owned(), one["value"].as_str()?.to_owned())));
    said.collect()
}

#[test]
fn the_chart_makes_what_the_overlay_makes() {
    let chart = Manifests::rendered(&template("warren", "warren-system", &NEEDED, &["--include-crds"]));
    let (overlay, cluster) = (overlay(), cluster());

    let (mut by_chart, mut by_overlay) = (settings(&chart), settings(&overlay));
    // The overlay has these in its file.
    let spec = &cluster["spec"];
    for (name, value) in [
        ("WARREN_OVERLAY_NETWORKS", spec["networks"][0].as_str()),
        ("WARREN_OVERLAY_ENFORCEMENT", spec["enforcement"].as_str()),
        ("WARREN_KUBERNETES_ENABLED", Some("true")),
    ] {
        assert_eq!(by_chart.remove(name).as_deref(), value, "{name}");
        assert_eq!(by_overlay.remove(name), None);
    }
    // What holds without them.
    assert_eq!(by_chart.remove("WARREN_OVERLAY_MODE").as_deref(), Some("pods"));
    assert_eq!(by_chart.remove("WARREN_NODE_CNI_DIR").as_deref(), Some("/etc/cni/net.d"));
    assert_eq!(by_chart, by_overlay);

    let by_chart = essence(chart.documents);
    let by_overlay = essence(overlay.documents.into_iter().chain([cluster]).collect());
    assert!(by_overlay.len() >= 14, "{:?}", by_overlay.keys());
    assert_eq!(by_chart.keys().collect::<Vec<_>>(), by_overlay.keys().collect::<Vec<_>>());
    for (what, object) in by_overlay {
        assert_eq!(by_chart[&what], object, "{what:?}");
    }
}

#[test]
fn rights_are_those_of_the_service_account_of_whatever_release() {
    let chart = Manifests::rendered(&template("mesh", "network", &NEEDED, &[]));
    let account = &chart.one("ServiceAccount")["metadata"]["name"];
    assert_eq!((account, &chart.pod()["serviceAccountName"]), (&json!("mesh"), &json!("mesh")));
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        let expected = json!({ "kind": "ServiceAccount", "name": "mesh", "namespace": "network" });
        assert_eq!(chart.one(kind)["subjects"][0], expected, "{kind}");
    }
    let held = &chart.named("ValidatingAdmissionPolicy", "warren-own-events")["spec"]["matchConditions"];
    assert!(held.to_string().contains("'system:serviceaccount:network:mesh'"), "{held}");
}

/// What is compared with the Node.
fn facts(manifests: &Manifests) -> &Value {
    let bound = manifests.documents.iter().filter(|one| one["spec"]["policyName"] == "warren-node-facts");
    assert_eq!(bound.count(), 1);
    &manifests.named("ValidatingAdmissionPolicy", "warren-node-facts")["spec"]
}

#[test]
fn prefixes_of_another_than_the_node_are_not_compared_with_the_nodes() {
    let of_prefix = |rule: &Value| rule["expression"].as_str().is_some_and(|text| text.contains("variables.given"));
    let overlay = overlay();
    let all = facts(&overlay)["validations"].as_array().expect("rules").iter().cloned();
    let (of_prefixes, others): (Vec<_>, Vec<_>) = all.partition(of_prefix);
    assert_eq!(of_prefixes.len(), 2);
    for source in ["calico", "cilium"] {
        let kustomized = Manifests::over("overlays/kubernetes", &[&format!("cidrs-{source}")]);
        for manifests in [&chart(&[&format!("cidrs={source}")]), &kustomized] {
            assert_eq!(value_of(manifests.agent(), "WARREN_NODE_CIDRS"), source);
            let rules = facts(manifests)["validations"].as_array().expect("rules");
            assert_eq!(rules[1..], others, "{source}: addresses and owners are compared all the same");
            let single = "!object.spec.cidr.endsWith(object.spec.cidr.contains(':') ? '/128' : '/32')";
            let rule = format!("variables.isOther || !variables.isBlock || {single}");
            assert_eq!(rules[0]["expression"], rule, "{source}: single addresses are refused");
            let roles = manifests.documents.iter().filter(|one| one["kind"] == "ClusterRole");
            assert_eq!(roles.count(), 2, "{source}");
        }
    }
    assert_eq!(facts(&chart(&["cidrs=flannel"])), facts(&overlay));
    let nothing = chart(&["kubernetes.compare=nothing"]);
    let policies = nothing.documents.iter().filter(|one| one["spec"]["failurePolicy"].is_string());
    assert_eq!(
        policies.map(|one| &one["metadata"]["name"]).collect::<Vec<_>>(),
        ["warren-own-objects", "warren-own-events"]
    );
}

#[test]
fn the_api_server_is_asked_at_the_address_that_is_given() {
    let with = |values: &[&str]| settings(&chart(values));
    let named = with(&["k8sServiceHost=192.0.2.1", "k8sServicePort=443"]);
    assert_eq!(named["WARREN_KUBERNETES_SERVER"], "https://192.0.2.1:443");
    assert_eq!(with(&["k8sServiceHost=2001:db8::1"])["WARREN_KUBERNETES_SERVER"], "https://[2001:db8::1]:6443");
    assert!(!with(&[]).contains_key("WARREN_KUBERNETES_SERVER"));

    // With another registry it is asked for prefixes alone, and is no registry by that.
    let asked = settings(&etcd(&["k8sServiceHost=192.0.2.1", "cidrs=calico"]));
    assert_eq!(asked["WARREN_KUBERNETES_SERVER"], "https://192.0.2.1:6443");
    assert_eq!(asked["WARREN_KUBERNETES_ENABLED"], "false");
    let told = settings(&etcd(&["k8sServiceHost=192.0.2.1"]));
    assert!(!told.keys().any(|name| name.starts_with("WARREN_KUBERNETES")));
}

/// What the agent says of the configuration that its Pod gives it.
#[track_caller]
fn taken(manifests: &Manifests) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("warren.toml").display().to_string();
    let text = manifests.one("ConfigMap")["data"]["warren.toml"].as_str().expect("a file");
    std::fs::write(&file, text).expect("written");
    let environment: Vec<String> = settings(manifests).iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut argv = vec!["env", "-i", "WARREN_NODE_NAME=node1"];
    argv.extend(environment.iter().map(String::as_str));
    argv.extend([program(), "check-config", &file]);
    checked(&argv, attempt(&argv))
}

#[test]
fn the_agent_takes_what_its_pod_is_given_and_knows_its_registry_by_it() {
    let named = chart(&["k8sServiceHost=2001:db8::1", "cidrs=cilium"]);
    for (manifests, registry) in [
        (overlay(), "registry: Kubernetes, as the Pod is told\n"),
        (chart(&[]), "registry: Kubernetes, as the Pod is told\n"),
        (named, "registry: Kubernetes at https://[2001:db8::1]:6443\n"),
        (etcd(&["etcd.secretName=", "k8sServiceHost=192.0.2.1", "cidrs=calico"]), "registry: etcd at "),
    ] {
        let said = taken(&manifests);
        assert!(said.contains(registry), "{registry:?} in {said}");
    }
}

#[test]
fn what_only_one_registry_needs_is_asked_of_nobody_else() {
    let etcd = Manifests::chart(&[]);
    for kind in ["WarrenCluster", "ValidatingAdmissionPolicy", "ClusterRole", "Role"] {
        assert!(!etcd.kinds().contains(&kind), "{kind}");
    }
    let kubernetes = chart(&[]);
    assert!(!kubernetes.kinds().contains(&"Job"));
    assert!(!kubernetes.pod()["volumes"].to_string().contains("secret"));
    for (values, named) in [
        (&["registry=kubernetes"][..], "networks"),
        (&["registry=kubernetes", REQUIRED[1], "kubernetes.compare=some"], "compare"),
        (&["registry=kubernetes", REQUIRED[1], "k8sServiceHost=https://192.0.2.1"], "k8sServiceHost"),
        (&["registry=kubernetes", REQUIRED[1], "k8sServicePort=0"], "k8sServicePort"),
    ] {
        let finished = template("warren", "warren-system", values, &[]);
        assert!(!finished.success() && finished.said().contains(named), "{values:?}: {}", finished.said());
    }
}
