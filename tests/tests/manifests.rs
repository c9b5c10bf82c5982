//! What a Pod of deploy/ may do, what it sees of the host, what it is asked. No cluster has a part in this.

#[path = "manifests/documented.rs"]
mod documented;
#[path = "manifests/kubernetes.rs"]
mod kubernetes;
#[path = "manifests/live.rs"]
mod live;
#[path = "manifests/openshift.rs"]
mod openshift;
#[path = "manifests/readme.rs"]
mod readme;

use serde_json::{Value, json};
use warren_tests::command::{attempt, checked, feed};
use warren_tests::manifests::{Manifests, REQUIRED, VERSIONS, helm, named, root, tool, value_of};

#[test]
fn what_the_api_would_not_take_is_noticed() {
    let text = std::fs::read_to_string(root().join("deploy/kubernetes/agent/daemonset.yaml")).expect("it is there");
    for (right, wrong) in [("hostNetwork: true", "hostNetworks: true"), ("periodSeconds: 2", "periodSeconds: often")] {
        assert!(text.contains(right));
        let (python, check) = (tool("venv/bin/python"), root().join("tests/manifests/check.py").display().to_string());
        let said = feed(&[&python, &check, VERSIONS[0]], &text.replace(right, wrong)).stdout;
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["faults"].as_array().map(Vec::len), Some(1), "{wrong}: {}", said["faults"]);
    }
}

/// The agent's Pod by both ways of installation.
fn both() -> [Manifests; 2] {
    [Manifests::with(&[]), Manifests::chart(&[])]
}

#[test]
fn the_agent_has_net_admin_and_nothing_else_of_root() {
    for manifests in both() {
        let expected = json!({
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": 0,
            "runAsGroup": 0,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
        });
        assert_eq!(manifests.agent()["securityContext"], expected);
        let pod = manifests.pod();
        assert_eq!(pod["securityContext"]["seccompProfile"], json!({ "type": "RuntimeDefault" }));
        assert_eq!(pod["automountServiceAccountToken"], false);
        for init in pod["initContainers"].as_array().expect("there is one") {
            let context = &init["securityContext"];
            assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{}", init["name"]);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
        }
        for absent in ["hostPID", "hostIPC", "shareProcessNamespace"] {
            assert!(pod[absent].is_null(), "{absent}");
        }
    }
}

#[test]
fn the_pod_starts_before_the_network_that_it_makes() {
    for manifests in both() {
        let pod = manifests.pod();
        assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&json!(true), &json!("Default")));
        assert_eq!(pod["priorityClassName"], "system-node-critical");
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
        assert_eq!(pod["nodeSelector"], json!({ "kubernetes.io/os": "linux" }));
        let update = &manifests.one("DaemonSet")["spec"]["updateStrategy"];
        assert_eq!(
            *update,
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } })
        );
    }
}

#[test]
fn a_quota_names_the_priority_of_the_pods_and_limits_nothing() {
    for manifests in both() {
        let (quota, class) = (&manifests.one("ResourceQuota")["spec"], &manifests.pod()["priorityClassName"]);
        let expected = json!({ "scopeName": "PriorityClass", "operator": "In", "values": [class] });
        assert_eq!(*quota, json!({ "scopeSelector": { "matchExpressions": [expected] } }));
    }
    assert!(!Manifests::chart(&["priorityClassName="]).kinds().contains(&"ResourceQuota"));
}

#[test]
fn probes_ask_this_host_alone_and_liveness_is_not_readiness() {
    for manifests in both() {
        let agent = manifests.agent();
        for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let expected = json!({ "host": "127.0.0.1", "port": 9587, "path": path });
            assert_eq!(agent[probe]["httpGet"], expected, "{probe}");
        }
        let times =
            |probe: &str| ["periodSeconds", "failureThreshold"].map(|key| agent[probe][key].as_u64().unwrap_or(1));
        let [period, failures] = times("livenessProbe");
        assert!(period * failures >= 60, "a busy node's agent is killed after {} s", period * failures);
        let [period, failures] = times("startupProbe");
        assert!(period * failures >= 60);
    }
}

#[test]
fn the_pod_sees_of_the_host_what_it_needs_and_the_cnis_files_read_only() {
    for manifests in both() {
        let pod = manifests.pod();
        let mut paths = Vec::new();
        for volume in pod["volumes"].as_array().expect("there are") {
            let Some(path) = volume["hostPath"]["path"].as_str() else { continue };
            let mount = manifests.agent()["volumeMounts"].as_array().into_iter().flatten();
            let mount = mount.clone().find(|mount| mount["name"] == volume["name"]).expect("mounted");
            assert_eq!(mount["mountPath"], path);
            paths.push((path, volume["hostPath"]["type"].as_str().expect("said"), mount["readOnly"] == true));
        }
        paths.sort_unstable();
        let expected = [
            ("/dev/net/tun", "CharDevice", false),
            ("/etc/cni/net.d", "DirectoryOrCreate", true),
            ("/run/flannel", "DirectoryOrCreate", true),
            ("/run/warren", "DirectoryOrCreate", false),
            ("/var/lib/warren", "DirectoryOrCreate", false),
        ];
        assert_eq!(paths, expected);
        let secret = &named(&pod["volumes"], "etcd")["secret"];
        assert_eq!(secret["defaultMode"], 0o400, "the agent refuses a key that others can read");
    }
}

#[test]
fn every_variable_is_one_that_the_agent_knows() {
    let page = std::fs::read_to_string(root().join("docs/config.md")).expect("the page is there");
    let components = ["nodes-mode", "privileged-init", "openshift", "gate", "install-cni"];
    let chart = Manifests::chart(&[
        "cni.gate=true",
        "settings.underlay\\.port=4567",
        "settings.overlay\\.exempt_ports={22,6443}",
    ]);
    for manifests in [Manifests::with(&components), chart] {
        for variable in manifests.agent()["env"].as_array().expect("there are") {
            let name = variable["name"].as_str().expect("a name");
            assert!(!name.starts_with("WARREN_") || page.contains(&format!("`{name}`")), "{name} is no key");
        }
    }
}

#[test]
fn components_change_what_they_are_for() {
    let plain = Manifests::with(&[]);
    assert_eq!(value_of(plain.agent(), "WARREN_NODE_CIDRS"), "auto");
    assert!(plain.unknown.is_empty(), "{:?}", plain.unknown);

    let nodes = Manifests::with(&["nodes-mode"]);
    assert_eq!(value_of(nodes.agent(), "WARREN_OVERLAY_MODE"), "nodes");
    assert_eq!(value_of(nodes.agent(), "WARREN_NODE_CIDRS"), "[]");

    let init = Manifests::with(&["privileged-init"]);
    assert_eq!(named(&init.pod()["initContainers"], "sysctl")["securityContext"]["privileged"], true);
    assert_eq!(init.agent()["securityContext"], plain.agent()["securityContext"], "the agent itself stays as it was");

    let openshift = Manifests::with(&["openshift"]);
    assert_eq!(openshift.unknown, ["SecurityContextConstraints"]);
    let scc = openshift.one("SecurityContextConstraints");
    assert_eq!(scc["allowedCapabilities"], openshift.agent()["securityContext"]["capabilities"]["add"]);
    assert_eq!((&scc["allowPrivilegedContainer"], &scc["allowHostNetwork"]), (&json!(false), &json!(true)));
    assert_eq!(openshift.pod()["securityContext"]["seLinuxOptions"], json!({ "type": "spc_t" }));
    let subject = &openshift.one("RoleBinding")["subjects"][0];
    assert_eq!((&subject["name"], &subject["namespace"]), (&json!("warren"), &json!("warren-system")));
    let asks = Manifests::with(&["openshift", "cidrs-calico"]);
    assert_eq!(asks.pod()["automountServiceAccountToken"], true);
    let volumes = asks.pod()["volumes"].as_array().expect("there are some").iter().filter_map(Value::as_object);
    let kinds = volumes.flat_map(|volume| volume.keys()).filter(|key| *key != "name").map(String::as_str);
    let scc = asks.one("SecurityContextConstraints");
    for kind in kinds.chain(["projected"]) {
        assert!(scc["volumes"].as_array().is_some_and(|allowed| allowed.contains(&json!(kind))), "{kind}");
    }
}

#[test]
fn the_gate_and_the_network_are_written_where_the_runtime_looks_and_name_no_plugin_that_is_not_there() {
    let kustomized = Manifests::with(&["gate", "install-cni"]);
    let chart = Manifests::chart(&["cni.gate=true", "cni.install=true"]);
    for manifests in [&kustomized, &chart] {
        let agent = manifests.agent();
        for variable in ["WARREN_CNI_GATE", "WARREN_CNI_INSTALL"] {
            assert_eq!(value_of(agent, variable), "true");
        }
        assert_eq!(named(&agent["volumeMounts"], "cni")["readOnly"], false);
        let plugins = named(&agent["volumeMounts"], "cni-bin");
        assert_eq!((&plugins["mountPath"], &plugins["readOnly"]), (&json!("/opt/cni/bin"), &json!(true)));
        let init = named(&manifests.pod()["initContainers"], "gate");
        assert_eq!(init["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(init["volumeMounts"], json!([{ "name": "cni-bin", "mountPath": "/opt/cni/bin" }]));
        let host = &named(&manifests.pod()["volumes"], "cni-bin")["hostPath"];
        assert_eq!(host["path"], "/opt/cni/bin");
    }
    let script = |manifests: &Manifests| named(&manifests.pod()["initContainers"], "gate")["command"].clone();
    assert_eq!(script(&kustomized), script(&chart), "the two ways of installation differ");

    let elsewhere = Manifests::chart(&["cni.gate=true", "cni.binDir=/var/lib/rancher/k3s/data/cni"]);
    assert_eq!(value_of(elsewhere.agent(), "WARREN_CNI_BIN_DIR"), "/var/lib/rancher/k3s/data/cni");
    assert!(!elsewhere.pod().to_string().contains("/opt/cni/bin"));
}

#[test]
fn the_gate_is_replaced_at_once_also_while_it_runs() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let [image, host] = folders.each_ref().map(|folder| folder.path().display().to_string());
    std::fs::write(format!("{image}/warren-gate"), "new").expect("written");
    std::fs::write(format!("{host}/warren-gate"), "old").expect("written");
    let manifests = Manifests::with(&["gate"]);
    let command = &named(&manifests.pod()["initContainers"], "gate")["command"];
    let words: Vec<String> = command
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|word| word.replace("/usr/local/bin", &image).replace("/opt/cni/bin", &host))
        .collect();
    let running = std::fs::File::open(format!("{host}/warren-gate")).expect("it is there");
    let argv: Vec<&str> = words.iter().map(String::as_str).collect();
    checked(&argv, attempt(&argv));
    assert_eq!(std::fs::read_to_string(format!("{host}/warren-gate")).expect("it is there"), "new");
    assert_eq!(std::io::read_to_string(running).expect("still there"), "old", "the file was written over");
    assert_eq!(std::fs::read_dir(&host).expect("a folder").count(), 1, "something stayed");
}

#[test]
fn the_privileged_step_sets_what_is_missing_and_leaves_the_rest() {
    let manifests = [Manifests::with(&["privileged-init"]), Manifests::chart(&["privilegedInit=true"])];
    let scripts = manifests.each_ref().map(|manifests| {
        let sysctl = named(&manifests.pod()["initContainers"], "sysctl");
        sysctl["command"]
            .as_array()
            .and_then(|words| words.last())
            .and_then(Value::as_str)
            .expect("a script")
            .to_owned()
    });
    assert_eq!(scripts[0], scripts[1], "the two ways of installation differ");
    let proc = tempfile::tempdir().expect("a folder");
    let write = |name: &str, value: &str| {
        let path = proc.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, format!("{value}\n")).expect("written");
    };
    let before = [
        ("ipv4/ip_forward", "0", "1"),
        ("ipv4/conf/default/rp_filter", "1", "2"),
        ("ipv6/conf/all/forwarding", "0", "1"),
        ("ipv6/conf/all/accept_ra", "1", "1"),
        ("ipv6/conf/eth0/accept_ra", "1", "2"),
        ("ipv6/conf/eth1/accept_ra", "0", "0"),
    ];
    before.iter().for_each(|(name, value, _)| write(name, value));
    let script = scripts[0].replace("/proc/sys/net", &proc.path().display().to_string());
    let argv = ["sh", "-euc", &script];
    checked(&argv, attempt(&argv));
    for (name, _, after) in before {
        let found = std::fs::read_to_string(proc.path().join(name)).expect("still there");
        assert_eq!(found.trim(), after, "{name}");
    }
}

#[test]
fn a_removal_runs_on_every_node_with_the_rights_of_the_agent() {
    let manifests = Manifests::kustomize(&root().join("deploy/kubernetes/cleanup"));
    let (cleanup, agent) = (named(&manifests.pod()["initContainers"], "cleanup"), Manifests::with(&[]));
    assert_eq!(cleanup["args"][0], "cleanup");
    assert_eq!(cleanup["securityContext"], agent.agent()["securityContext"]);
    assert_eq!(manifests.pod()["tolerations"], agent.pod()["tolerations"]);
    let cni = named(&cleanup["volumeMounts"], "cni");
    assert_eq!((&cni["mountPath"], &cni["readOnly"]), (&json!("/etc/cni/net.d"), &Value::Null), "the gate cannot go");
    assert_eq!(manifests.one("DaemonSet")["metadata"]["namespace"], "warren-system");
}

#[test]
fn the_namespace_allows_what_the_pod_needs() {
    let manifests = Manifests::with(&[]);
    let labels = &manifests.one("Namespace")["metadata"]["labels"];
    for level in ["enforce", "audit", "warn"] {
        assert_eq!(labels[format!("pod-security.kubernetes.io/{level}")], "privileged");
    }
}

#[test]
fn the_charts_values_reach_the_agent_as_settings() {
    let chart = Manifests::chart(&[
        "overlay.mode=nodes",
        "cidrs=flannel",
        "cniConfDir=/var/lib/rancher/k3s/agent/etc/cni/net.d",
        "settings.underlay\\.port=4567",
        "settings.overlay\\.table=51840000",
        "settings.overlay\\.exempt_ports={22,2379-2380}",
        "overlay.networks={10.42.0.0/16,fd42::/48}",
    ]);
    let agent = chart.agent();
    for (variable, value) in [
        ("WARREN_OVERLAY_MODE", "nodes"),
        ("WARREN_NODE_CIDRS", "flannel"),
        ("WARREN_NODE_CNI_DIR", "/var/lib/rancher/k3s/agent/etc/cni/net.d"),
        ("WARREN_UNDERLAY_PORT", "4567"),
        ("WARREN_OVERLAY_TABLE", "51840000"),
        ("WARREN_OVERLAY_EXEMPT_PORTS", "22,2379-2380"),
        ("WARREN_OVERLAY_NETWORKS", "10.42.0.0/16,fd42::/48"),
        ("WARREN_OVERLAY_ENFORCEMENT", "permissive"),
        ("WARREN_ETCD_ENDPOINTS", "https://192.0.2.5:2379"),
        ("WARREN_ETCD_KEY_FILE", "/etc/warren-etcd/tls.key"),
    ] {
        assert_eq!(value_of(agent, variable), value, "{variable}");
    }
    assert_eq!(named(&agent["ports"], "tunnel")["containerPort"], 4567);
    assert_eq!(named(&agent["volumeMounts"], "cni")["mountPath"], "/var/lib/rancher/k3s/agent/etc/cni/net.d");
}

#[test]
fn the_cluster_is_set_up_before_the_first_agent_and_changed_only_when_told() {
    let args = |values: &[&str]| -> Vec<String> {
        let chart = Manifests::chart(values);
        let job = chart.one("Job");
        assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade");
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
        container["args"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let first = args(&[]);
    for word in ["init", "--network=10.42.0.0/16", "--permissive", "--endpoints=https://192.0.2.5:2379"] {
        assert!(first.iter().any(|arg| arg == word), "{word} in {first:?}");
    }
    assert!(!first.iter().any(|arg| arg == "--change"));
    let strict = args(&["overlay.enforcement=strict", "etcd.init.change=true"]);
    assert!(strict.iter().any(|arg| arg == "--change") && !strict.iter().any(|arg| arg == "--permissive"));
    assert!(!Manifests::chart(&["etcd.init.enabled=false"]).kinds().contains(&"Job"));
}

#[test]
fn wrong_values_are_refused_with_their_names() {
    for (values, named) in [
        (&["overlay.networks={10.42.0.0/16}"][..], "endpoints"),
        (&["etcd.endpoints={https://192.0.2.5:2379}"], "networks"),
        (&["overlay.mod=nodes"], "mod"),
        (&["overlay.mode=node"], "mode"),
        (&["cidrs=weave"], "cidrs"),
        (&["cni.gates=true"], "gates"),
        (&["settings.overley\\.mtu=1400"], "overley"),
        (&["image.digest=sha256:12"], "digest"),
        (&["updateStrategy.maxUnavailable=0"], "maxUnavailable"),
    ] {
        let required =
            if values.len() == 1 && named == "endpoints" || named == "networks" { &[][..] } else { &REQUIRED };
        let finished = helm(&[required, values].concat());
        assert!(!finished.success() && finished.said().contains(named), "{values:?}: {}", finished.said());
    }
}

#[test]
fn a_digest_wins_over_a_tag_and_the_charts_version_is_the_default() {
    let image = |values: &[&str]| Manifests::chart(values).agent()["image"].as_str().expect("an image").to_owned();
    assert_eq!(image(&["image.repository=example.org/warren"]), "example.org/warren:0.1.0");
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let told = format!("image.digest={digest}");
    assert_eq!(image(&[&told, "image.tag=1.2.3"]), format!("warren@{digest}"));
}

#[test]
fn without_a_store_there_is_no_secret_and_no_job() {
    let finished = helm(&["registry=static", "config=[[peer]]\nname = \"b\""]);
    assert!(finished.success(), "{}", finished.said());
    let chart = Manifests::read(&finished.stdout);
    assert!(!chart.kinds().contains(&"Job"));
    assert!(!chart.pod()["volumes"].to_string().contains("secret"));
    let text = chart.one("ConfigMap")["data"]["warren.toml"].as_str().expect("a file");
    assert!(text.contains("[[peer]]\nname = \"b\""), "{text}");
}

#[test]
fn with_the_api_server_as_registry_the_pod_has_a_token_and_asks_for_its_nodes_prefixes() {
    let manifests = Manifests::kustomize(&root().join("deploy/kubernetes/overlays/kubernetes"));
    assert!(manifests.unknown.is_empty(), "{:?}", manifests.unknown);
    let (pod, etcd) = (manifests.pod(), Manifests::with(&[]));
    assert_eq!((&pod["automountServiceAccountToken"], &pod["serviceAccountName"]), (&json!(true), &json!("warren")));
    assert_eq!(value_of(manifests.agent(), "WARREN_NODE_CIDRS"), "kubernetes");
    let env = manifests.agent()["env"].to_string();
    assert!(
        !env.contains("WARREN_NODE_ADDRESSES"),
        "a host has more than its Node shows, and is guarded on all: {env}"
    );
    assert_eq!(manifests.agent()["securityContext"], etcd.agent()["securityContext"]);
    let bound = manifests.one("ClusterRoleBinding");
    assert_eq!(
        bound["subjects"][0],
        json!({ "kind": "ServiceAccount", "name": "warren", "namespace": "warren-system" })
    );
    assert!(manifests.kinds().contains(&"CustomResourceDefinition"), "{:?}", manifests.kinds());
}

#[test]
fn who_has_the_api_server_say_its_prefixes_gets_a_token_and_the_rules_for_that_alone() {
    for source in ["kubernetes", "calico", "cilium"] {
        let kustomized = Manifests::with(&[&format!("cidrs-{source}")]);
        let chart = Manifests::chart(&[&format!("cidrs={source}")]);
        let rules = [&kustomized, &chart].map(|manifests| {
            let (pod, role) = (manifests.pod(), manifests.one("ClusterRole"));
            assert_eq!(pod["automountServiceAccountToken"], true, "{source}");
            assert_eq!(value_of(manifests.agent(), "WARREN_NODE_CIDRS"), source);
            let binding = manifests.one("ClusterRoleBinding");
            assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
            let (subject, namespace) = (&binding["subjects"][0], &manifests.one("ServiceAccount")["metadata"]);
            assert_eq!(
                (&subject["name"], &subject["namespace"]),
                (&pod["serviceAccountName"], &json!("warren-system"))
            );
            assert_eq!(namespace["name"], subject["name"]);
            role["rules"].clone()
        });
        assert_eq!(rules[0], rules[1], "{source}: the two ways of installation differ");
    }
    assert!(!Manifests::chart(&[]).kinds().contains(&"ClusterRole"));
}
