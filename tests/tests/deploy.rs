//! What deploy/ has beside the agent's Pod, and what the pages say of it: the recipe of the image, the removal. No container engine
//! and no cluster has a part in this.

use serde_json::json;
use warren_tests::command::{Finished, attempt};
use warren_tests::manifests::{Manifests, named, root};

/// A script of deploy/image/ in a shell, with these variables.
fn shell(variables: &[&str], script: &str) -> Finished {
    let folder = root().join("deploy/image").display().to_string();
    attempt(
        &[&["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"], variables, &["sh", "-euc", script, &folder]].concat(),
    )
}

#[test]
fn each_builder_asks_debian_for_a_compiler_that_debian_has_there() {
    // As apt-cache says of bookworm's archives for both: no cross compiler from a platform to itself.
    for (builder, wanted, packages) in [
        ("amd64", "amd64", "gcc libc6-dev"),
        ("arm64", "arm64", "gcc libc6-dev"),
        ("amd64", "arm64", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
        ("arm64", "amd64", "gcc-x86-64-linux-gnu libc6-dev-amd64-cross"),
    ] {
        let variables = [format!("BUILDARCH={builder}"), format!("TARGETARCH={wanted}")];
        let said =
            shell(&variables.each_ref().map(String::as_str), ". $0/platform.sh; echo $target, $compiler, $packages");
        let cpu = if wanted == "amd64" { "x86_64" } else { "aarch64" };
        let expected = format!("{cpu}-unknown-linux-gnu, {cpu}-linux-gnu-gcc, {packages}\n");
        assert_eq!(said.stdout, expected, "{builder} for {wanted}: {}", said.said());
    }
    let other = shell(&["BUILDARCH=amd64", "TARGETARCH=s390x"], ". $0/platform.sh");
    assert!(other.status.code() == Some(64) && other.stderr.contains("'s390x'"), "{}", other.said());
}

/// As the image of Debian 12 has it.
const SOURCES: &str = "Types: deb\n# http://snapshot.debian.org/archive/debian/20250520T000000Z\nURIs: http://deb.debian.org/debian\n\
    Suites: bookworm bookworm-updates\nComponents: main\n\nTypes: deb\nURIs: http://deb.debian.org/debian-security\n\
    Suites: bookworm-security\nComponents: main\n";

/// Where apt would look after that, and how the script ended.
fn pinned(snapshot: &str, sources: &str) -> (Vec<String>, Finished) {
    let folder = tempfile::tempdir().expect("a folder");
    let (list, settings) = (folder.path().join("sources.list.d"), folder.path().join("apt.conf.d"));
    [&list, &settings].into_iter().for_each(|folder| std::fs::create_dir(folder).expect("made"));
    let list = list.join("debian.sources");
    std::fs::write(&list, sources).expect("written");
    let apt = format!("APT={}", folder.path().display());
    let said = shell(&[&apt, &format!("SNAPSHOT={snapshot}")], "sh -eu $0/snapshot.sh \"$SNAPSHOT\" $APT");
    let text = std::fs::read_to_string(&list).expect("it stays");
    let places = text.lines().filter_map(|line| line.strip_prefix("URIs: "));
    (places.map(str::to_owned).collect(), said)
}

#[test]
fn a_snapshot_pins_every_archive_or_the_build_ends() {
    let (places, said) = pinned("20261101T000000Z", SOURCES);
    let expected = ["debian", "debian-security"]
        .map(|name| format!("http://snapshot.debian.org/archive/{name}/20261101T000000Z/"));
    assert!(said.success() && places == expected, "{places:?} {}", said.said());
    let (places, said) = pinned("", SOURCES);
    assert!(said.success() && places[0] == "http://deb.debian.org/debian", "{places:?} {}", said.said());
    for (snapshot, sources) in [
        ("yesterday", SOURCES),
        ("20261101T000000Z", "URIs: http://mirror.example/debian\n"),
        ("20261101T000000Z/../x", SOURCES),
    ] {
        let (places, said) = pinned(snapshot, sources);
        assert!(!said.success() && !places.iter().any(|place| place.contains(snapshot)), "{snapshot}: {}", said.said());
    }
}

#[test]
fn the_recipe_of_the_image_uses_these_scripts_in_each_of_its_stages() {
    let recipe = std::fs::read_to_string(root().join("deploy/Dockerfile")).expect("it is there");
    let of = |part: &str| recipe.matches(part).count();
    assert_eq!((of("\nFROM "), of("apt-get update;"), of("snapshot.sh \"${SNAPSHOT:-}\"")), (2, 2, 2));
    assert_eq!((of("ARG SNAPSHOT"), of(". /image/platform.sh"), of("$packages")), (2, 2, 1));
    assert!(recipe.contains("ARG BUILDARCH\nARG TARGETARCH\n"));
}

#[test]
fn the_drop_in_for_network_manager_sets_nothing_that_another_file_may_have_set() {
    let file = std::fs::read_to_string(root().join("deploy/networkmanager/90-warren.conf")).expect("it is there");
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["[device-warren]", "match-device=interface-name:warren*", "managed=0"]);
    let page = std::fs::read_to_string(root().join("docs/config.md")).expect("it is there");
    assert!(page.contains("| `\"warren0\"` | `WARREN_OVERLAY_DEVICE` |"), "the device has another name");
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/kubernetes.md")).expect("it is there")
}

#[test]
fn a_removal_waits_on_all_nodes_and_does_not_end_with_what_it_removes() {
    let manifests = Manifests::kustomize(&root().join("deploy/kubernetes/cleanup"));
    let cleanup = named(&manifests.pod()["initContainers"], "cleanup");
    assert_eq!(cleanup["args"], json!(["cleanup", "--wait", "--config", "/dev/null"]));
    let rolled = &manifests.one("DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
    assert_eq!(rolled, "100%", "one node after the other is an outage");
    let page = page();
    let (_, removal) = page.split_once("\n## Uninstall\n").expect("the section");
    let mut rest = removal;
    for step in [
        "cluster enforce permissive",
        "apply -k deploy/kubernetes/cleanup",
        "delete daemonset warren",
        "rollout status daemonset/warren-cleanup",
        "helm uninstall",
        "delete -k my-overlay",
        "delete crd",
        "delete namespace warren-system",
    ] {
        rest =
            rest.split_once(step).unwrap_or_else(|| panic!("{step}: not there, or before what has to be done first")).1;
    }
}

#[test]
fn the_page_removes_every_kind_that_an_installation_leaves_outside_of_its_namespace() {
    let page = page();
    let (_, removal) = page.split_once("\n## Uninstall\n").expect("the section");
    let removal = removal.split_once("\n## ").map_or(removal, |(section, _)| section);
    let manifests = Manifests::kustomize(&root().join("deploy/kubernetes/overlays/kubernetes"));
    let outside =
        |one: &&serde_json::Value| one["metadata"]["namespace"] != "warren-system" && one["kind"] != "Namespace";
    let mut seen = 0;
    for one in manifests.documents.iter().filter(outside) {
        let (kind, name) = (one["kind"].as_str().expect("a kind"), one["metadata"]["name"].as_str().expect("a name"));
        assert!(name.contains("warren"), "{kind} {name}: `grep warren` does not find it");
        let shown = match kind {
            "CustomResourceDefinition" => removal.contains(name) && removal.contains("get crd,"),
            other => removal.contains(&other.to_lowercase()),
        };
        assert!(shown, "{kind} {name} is not looked for");
        seen += 1;
    }
    assert!(seen >= 9, "{seen}: three definitions, two roles with their bindings, two policies with theirs");
}

#[test]
fn the_page_about_probes_shows_those_of_the_pod() {
    let page = std::fs::read_to_string(root().join("docs/health.md")).expect("it is there");
    let example = page.split("```").find_map(|block| block.strip_prefix("yaml\n")).expect("an example");
    let manifests = Manifests::with(&[]);
    for probe in ["livenessProbe", "readinessProbe"] {
        let (_, rest) = example.split_once(&format!("{probe}:\n")).expect("shown");
        let lines = rest.lines().take_while(|line| line.starts_with(' ')).filter(|line| !line.contains('{'));
        let shown: Vec<_> = lines.filter_map(|line| line.trim().split_once(": ")).collect();
        assert_eq!(shown.len(), 3, "{probe}: {shown:?}");
        for (key, value) in shown {
            assert_eq!(manifests.agent()[probe][key].to_string(), value, "{probe}: {key}");
        }
    }
}
