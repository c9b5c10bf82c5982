//! OpenShift admits a Pod by constraints that its service account may use: each Pod of deploy/ has some, and none has more than it
//! asks for. No OpenShift has a part in this: what its constraints mean is here as its documentation has it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use warren_tests::manifests::{Manifests, REQUIRED, helm};

use crate::kubernetes::NEEDED;

/// Every Pod, with the name of whoever makes it.
fn pods(manifests: &Manifests) -> Vec<(String, &Value)> {
    let made = manifests.documents.iter().filter_map(|object| {
        let spec = match object["kind"].as_str()? {
            "Pod" => &object["spec"],
            "DaemonSet" | "Job" => &object["spec"]["template"]["spec"],
            _ => return None,
        };
        Some((object["metadata"]["name"].as_str()?.to_owned(), spec))
    });
    made.collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().filter_map(|key| pod[key].as_array()).flatten()
}

/// The kinds of volumes that it has, with its token.
fn volumes(pod: &Value) -> BTreeSet<&str> {
    let listed = pod["volumes"].as_array().into_iter().flatten().filter_map(Value::as_object);
    let kinds = listed.flat_map(|volume| volume.keys()).map(String::as_str).filter(|key| *key != "name");
    let token = (pod["automountServiceAccountToken"] != false).then_some("projected");
    kinds.chain(token).collect()
}

fn added(pod: &Value) -> BTreeSet<&str> {
    let lists = containers(pod).filter_map(|container| container["securityContext"]["capabilities"]["add"].as_array());
    lists.flatten().filter_map(Value::as_str).collect()
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a Pod asks for, by the names of the constraints' own fields.
fn asks(pod: &Value) -> Vec<&'static str> {
    let any = |of: &dyn Fn(&Value) -> bool| containers(pod).any(of);
    let asked = [
        ("allowHostNetwork", pod["hostNetwork"] == true),
        ("allowHostPorts", pod["hostNetwork"] == true && any(&|one| one["ports"].is_array())),
        ("allowHostDirVolumePlugin", volumes(pod).contains("hostPath")),
        ("allowPrivilegedContainer", any(&|one| one["securityContext"]["privileged"] == true)),
        ("allowPrivilegeEscalation", any(&|one| one["securityContext"]["allowPrivilegeEscalation"] != false)),
    ];
    asked.into_iter().filter_map(|(name, is)| is.then_some(name)).collect()
}

/// Why the constraints do not admit the Pod.
fn objections(scc: &Value, pod: &Value) -> Vec<String> {
    let refused = asks(pod).into_iter().filter(|name| scc[name] != true).map(str::to_owned);
    let capabilities = texts(&scc["allowedCapabilities"]);
    let beyond = added(pod).into_iter().filter(|name| !capabilities.contains(name)).map(str::to_owned);
    let kinds = texts(&scc["volumes"]);
    let unknown = volumes(pod).into_iter().filter(|kind| !kinds.contains(kind)).map(str::to_owned);
    let mut found: Vec<String> = refused.chain(beyond).chain(unknown).collect();
    for container in containers(pod) {
        let context = &container["securityContext"];
        let privileged = context["privileged"] == true;
        if context["readOnlyRootFilesystem"] != true {
            found.push(format!("{} writes to its image", container["name"]));
        }
        // What is left out is taken from the constraints, and the API refuses what is both privileged and confined.
        if privileged && context["allowPrivilegeEscalation"].is_null() && scc["defaultAllowPrivilegeEscalation"] != true
        {
            found.push(format!("{} is privileged, and kept from it", container["name"]));
        }
        if privileged && texts(&scc["requiredDropCapabilities"]).contains("ALL") {
            found.push(format!("{} is privileged, and loses its capabilities", container["name"]));
        }
    }
    if pod["securityContext"]["seccompProfile"]["type"] != "RuntimeDefault" {
        found.push("seccomp".to_owned());
    }
    if volumes(pod).contains("hostPath") && pod["securityContext"]["seLinuxOptions"]["type"] != "spc_t" {
        found.push("the host's folders have labels that it may not touch".to_owned());
    }
    found
}

/// The constraints that a service account may use: named in them, or by a role.
fn usable<'a>(manifests: &'a Manifests, account: &str) -> Vec<&'a Value> {
    let user = json!(format!("system:serviceaccount:warren-system:{account}"));
    let subject = json!({ "kind": "ServiceAccount", "name": account, "namespace": "warren-system" });
    let bindings = manifests.documents.iter().filter(|one| texts_of(&one["subjects"]).contains(&&subject));
    let roles: Vec<&Value> = bindings
        .filter(|one| one["metadata"]["namespace"] == "warren-system")
        .map(|one| manifests.named("Role", one["roleRef"]["name"].as_str().expect("a role")))
        .collect();
    let of_kind = manifests.documents.iter().filter(|one| one["kind"] == "SecurityContextConstraints");
    let may = |scc: &&Value| {
        texts_of(&scc["users"]).contains(&&user)
            || roles.iter().flat_map(|role| texts_of(&role["rules"])).any(|rule| {
                rule["resources"][0] == "securitycontextconstraints"
                    && rule["verbs"] == json!(["use"])
                    && texts_of(&rule["resourceNames"]).contains(&&scc["metadata"]["name"])
            })
    };
    of_kind.filter(may).collect()
}

fn texts_of(list: &Value) -> Vec<&Value> {
    list.as_array().into_iter().flatten().collect()
}

/// Every Pod is admitted, by constraints that allow nothing which no Pod under them asks for.
#[track_caller]
fn assert_admits(what: &str, manifests: &Manifests, expected: usize) {
    let pods = pods(manifests);
    assert_eq!(pods.len(), expected, "{what}");
    for (name, pod) in &pods {
        let account = pod["serviceAccountName"].as_str().unwrap_or_else(|| panic!("{what}: {name} has no account"));
        manifests.named("ServiceAccount", account);
        let found = usable(manifests, account);
        assert_eq!(found.len(), 1, "{what}: constraints for {name}");
        assert_eq!(objections(found[0], pod), Vec::<String>::new(), "{what}: {name}");
        let under = || pods.iter().filter(|(_, other)| other["serviceAccountName"] == pod["serviceAccountName"]);
        let asked: BTreeSet<_> = under().flat_map(|(_, pod)| asks(pod)).collect();
        for (field, value) in found[0].as_object().into_iter().flatten().filter(|(field, _)| field.starts_with("allow"))
        {
            assert!(*value != true || asked.contains(field.as_str()), "{what}: {field}, for nothing");
        }
        let added: BTreeSet<_> = under().flat_map(|(_, pod)| added(pod)).collect();
        let privileged = found[0]["allowPrivilegedContainer"] == true;
        assert!(privileged || texts(&found[0]["allowedCapabilities"]) == added, "{what}: {name}");
    }
}

#[test]
fn every_pod_is_admitted_by_constraints_that_allow_no_more_than_it_asks_for() {
    for overlay in ["overlays/etcd", "overlays/kubernetes"] {
        assert_admits(overlay, &Manifests::over(overlay, &["openshift", "gate"]), 1);
    }
    let chart = |values: &[&str]| Manifests::unchecked(&helm(&[&["openshift.enabled=true"], values].concat()));
    // The agent, `helm test`; and with etcd the Job.
    assert_admits("etcd", &chart(&REQUIRED), 3);
    assert_admits("kubernetes", &chart(&NEEDED), 2);
    assert_admits("privileged", &chart(&[&NEEDED[..], &["privileged=true", "privilegedInit=true"]].concat()), 2);
}

#[test]
fn the_removal_is_admitted_when_the_agents_and_what_admitted_them_are_gone() {
    let manifests = Manifests::over("cleanup", &["openshift-cleanup"]);
    assert_admits("cleanup", &manifests, 1);
    let agents = Manifests::over("overlays/etcd", &["openshift"]);
    for object in &manifests.documents {
        let same =
            |other: &Value| other["kind"] == object["kind"] && other["metadata"]["name"] == object["metadata"]["name"];
        assert!(
            !agents.documents.iter().any(same),
            "it goes with the agents: {} {}",
            object["kind"],
            object["metadata"]
        );
    }
}

#[test]
fn what_admits_the_job_is_there_before_it_and_gone_with_it() {
    let chart = Manifests::unchecked(&helm(&[&REQUIRED[..], &["openshift.enabled=true"]].concat()));
    let annotations = |kind: &str, name: &str| chart.named(kind, name)["metadata"]["annotations"].clone();
    let weight =
        |of: &Value| of["helm.sh/hook-weight"].as_str().map_or(0, |text| text.parse::<i32>().expect("a number"));
    let job = annotations("Job", "warren-cluster-init");
    for kind in ["ServiceAccount", "SecurityContextConstraints"] {
        let before = annotations(kind, "warren-cluster-init");
        assert_eq!(before["helm.sh/hook"], job["helm.sh/hook"], "{kind}");
        assert!(weight(&before) < weight(&job), "{kind}");
        assert_eq!(before["helm.sh/hook-delete-policy"], job["helm.sh/hook-delete-policy"], "{kind}");
    }
}
