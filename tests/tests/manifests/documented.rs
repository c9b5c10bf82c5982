//! What docs/kubernetes.md tells people to write and to run, as it stands there.

use serde_json::json;
use warren_tests::command::attempt;
use warren_tests::manifests::{Manifests, named, root, tool, value_of};

fn page() -> String {
    std::fs::read_to_string(root().join("docs/kubernetes.md")).expect("the page is there")
}

/// Where the page has the checkout.
const ABOVE: &str = "../warren/deploy/kubernetes";

/// The page's one kustomization over this.
fn told(over: &str) -> String {
    let page = page();
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let found: Vec<_> = blocks.filter(|block| block.contains(&format!("resources: [{ABOVE}/{over}]"))).collect();
    assert_eq!(found.len(), 1, "{over}");
    found[0].lines().map(|line| line.strip_prefix("   ").unwrap_or(line).to_owned() + "\n").collect()
}

/// The page's kustomization over an overlay, with components.
fn own(overlay: &str, components: &[&str]) -> Manifests {
    let (text, shown) = (told("overlays/kubernetes"), "components: []");
    assert!(text.contains(shown), "{text}");
    let list: Vec<String> = components.iter().map(|name| format!("{ABOVE}/components/{name}")).collect();
    let text = text.replace("overlays/kubernetes", overlay).replace(shown, &format!("components: {}", json!(list)));
    let file = "[overlay]\nnetworks = [\"10.99.0.0/16\"]\n";
    Manifests::kustomization(&text.replace(ABOVE, "DEPLOY"), &[("warren.toml", file)])
}

#[test]
fn the_removal_on_openshift_is_a_kustomization_that_renders() {
    let manifests = Manifests::kustomization(&told("cleanup").replace(ABOVE, "DEPLOY"), &[]);
    assert_eq!(manifests.pod()["serviceAccountName"], "warren-cleanup");
    assert_eq!(named(&manifests.pod()["initContainers"], "cleanup")["image"], "registry.example/warren:0.1.0");
}

#[test]
fn a_kustomization_over_either_overlay_has_the_last_word() {
    for overlay in ["overlays/etcd", "overlays/kubernetes"] {
        let manifests = own(overlay, &["nodes-mode", "gate", "monitoring", "openshift", "privileged-init"]);
        assert_eq!(value_of(manifests.agent(), "WARREN_NODE_CIDRS"), "[]", "{overlay}: the overlay's own won");
        assert_eq!(value_of(manifests.agent(), "WARREN_OVERLAY_MODE"), "nodes", "{overlay}");
        assert_eq!(value_of(manifests.agent(), "WARREN_CNI_GATE"), "true", "{overlay}");
        assert_eq!(value_of(manifests.agent(), "WARREN_METRICS_LISTEN"), "$(HOST_IP):9586", "{overlay}");
        named(&manifests.pod()["initContainers"], "sysctl");
        assert_eq!(manifests.agent()["image"], "registry.example/warren:0.1.0");
        let name = named(&manifests.pod()["volumes"], "config")["configMap"]["name"].as_str().expect("a name");
        let file = &manifests.named("ConfigMap", name)["data"]["warren.toml"];
        assert!(file.as_str().is_some_and(|text| text.contains("10.99.0.0/16")), "{overlay}: {file}");
    }
}

#[test]
fn the_commands_that_install_the_chart_render_it() {
    let page = page();
    let lines: Vec<&str> = page.lines().map(str::trim).collect();
    let mut installed = 0;
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("helm install ")) {
        let end = lines[at..].iter().position(|line| !line.ends_with('\\')).expect("it ends");
        let command = lines[at..=at + end].join("\n");
        let told = format!("cd '{}' && {}", root().display(), command.replace("helm install", "\"$0\" template"));
        let manifests = Manifests::unchecked(&attempt(&["bash", "-euc", &told, &tool("bin/helm")]));
        assert_eq!(manifests.agent()["image"], "registry.example/warren:0.1.0");
        assert_eq!(value_of(manifests.agent(), "WARREN_OVERLAY_NETWORKS"), "10.244.0.0/16");
        installed += 1;
    }
    assert_eq!(installed, 2, "one for each registry");
}
