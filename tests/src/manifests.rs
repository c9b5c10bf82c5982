//! The manifests of deploy/, rendered by `kubectl kustomize` and `helm template`, valid by the Kubernetes API's schemas.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{Finished, attempt, checked, feed};

/// The oldest that is supported, and a newer one.
pub const VERSIONS: [&str; 2] = ["1.30", "1.34"];
/// What the chart cannot do without.
pub const REQUIRED: [&str; 2] = ["etcd.endpoints={https://192.0.2.5:2379}", "overlay.networks={10.42.0.0/16}"];

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A tool that `scripts/manifest-tools.sh` installs.
pub fn tool(name: &str) -> String {
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| root().join("target"), PathBuf::from);
    let path = target.join("manifests").join(name);
    assert!(path.exists(), "no {}: run scripts/manifest-tools.sh", path.display());
    path.display().to_string()
}

/// What was rendered, valid.
#[derive(Debug)]
pub struct Manifests {
    /// All of them, in their order.
    pub documents: Vec<Value>,
    /// Kinds of other projects, which no schema here knows.
    pub unknown: Vec<String>,
}

impl Manifests {
    /// Reads what was rendered; fails the test when the API would not take it.
    #[track_caller]
    pub fn read(yaml: &str) -> Self {
        Self::checked(yaml, &VERSIONS)
    }

    /// Reads what was rendered, in a fraction of the time, where another test asks whether the API would take it.
    #[track_caller]
    pub fn unchecked(finished: &Finished) -> Self {
        assert!(finished.success(), "{}", finished.said());
        Self::checked(&finished.stdout, &[])
    }

    #[track_caller]
    fn checked(yaml: &str, versions: &[&str]) -> Self {
        let (python, check) = (tool("venv/bin/python"), root().join("tests/manifests/check.py").display().to_string());
        let argv = [&[python.as_str(), check.as_str()], versions].concat();
        let said: Value = serde_json::from_str(&checked(&argv, feed(&argv, yaml))).expect("JSON");
        assert_eq!(said["faults"], json!([]), "not what the API takes");
        let words = said["unknown"].as_array().expect("a list").iter().filter_map(Value::as_str);
        Self {
            unknown: words.map(str::to_owned).collect(),
            documents: said["documents"].as_array().expect("a list").clone(),
        }
    }

    /// Renders a folder by `kubectl kustomize`.
    #[track_caller]
    pub fn kustomize(folder: &Path) -> Self {
        let argv = [&tool("bin/kubectl"), "kustomize", &folder.display().to_string()];
        Self::read(&checked(&argv, attempt(&argv)))
    }

    /// The overlay for etcd with these components.
    #[track_caller]
    pub fn with(components: &[&str]) -> Self {
        Self::over("overlays/etcd", components)
    }

    /// A kustomization over a folder of deploy/kubernetes, with these components.
    #[track_caller]
    pub fn over(below: &str, components: &[&str]) -> Self {
        let mut text = format!("resources: [DEPLOY/{below}]\ncomponents:\n");
        components.iter().for_each(|name| _ = writeln!(text, "  - DEPLOY/components/{name}"));
        Self::kustomization(&text, &[])
    }

    /// A kustomization of somebody's own, in which DEPLOY stands for deploy/kubernetes, with files beside it.
    #[track_caller]
    pub fn kustomization(text: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().canonicalize().expect("it is there");
        let up = "../".repeat(here.components().count() - 1);
        let deploy = format!("{up}{}", root().join("deploy/kubernetes").display().to_string().trim_start_matches('/'));
        let text = text.replace("DEPLOY", &deploy);
        for (name, text) in files.iter().copied().chain([("kustomization.yaml", text.as_str())]) {
            std::fs::write(here.join(name), text).expect("written");
        }
        Self::kustomize(&here)
    }

    /// The chart with these values, and what it cannot do without.
    #[track_caller]
    pub fn chart(values: &[&str]) -> Self {
        Self::rendered(&helm(&[&REQUIRED, values].concat()))
    }

    /// What a command that renders said.
    #[track_caller]
    pub fn rendered(finished: &Finished) -> Self {
        assert!(finished.success(), "{}", finished.said());
        Self::read(&finished.stdout)
    }

    /// The only one of its kind.
    #[track_caller]
    pub fn one(&self, kind: &str) -> &Value {
        let all: Vec<_> = self.documents.iter().filter(|document| document["kind"] == kind).collect();
        assert_eq!(all.len(), 1, "one {kind} in {:?}", self.kinds());
        all[0]
    }

    /// The one of that kind and name.
    #[track_caller]
    pub fn named(&self, kind: &str, name: &str) -> &Value {
        let mut all = self.documents.iter().filter(|one| one["kind"] == kind);
        all.find(|one| one["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name} in {:?}", self.kinds()))
    }

    /// All kinds, in the order of the manifests.
    pub fn kinds(&self) -> Vec<&str> {
        self.documents.iter().filter_map(|document| document["kind"].as_str()).collect()
    }

    /// The agent's Pod.
    #[track_caller]
    pub fn pod(&self) -> &Value {
        &self.one("DaemonSet")["spec"]["template"]["spec"]
    }

    /// The agent's container.
    #[track_caller]
    pub fn agent(&self) -> &Value {
        named(&self.pod()["containers"], "agent")
    }
}

/// `helm template` with these values.
pub fn helm(values: &[&str]) -> Finished {
    template("warren", "warren-system", values, &[])
}

/// `helm template` of a release of that name in that namespace, with these values and flags.
pub fn template(name: &str, namespace: &str, values: &[&str], flags: &[&str]) -> Finished {
    let (helm, chart) = (tool("bin/helm"), root().join("deploy/helm/warren").display().to_string());
    let mut argv = vec![helm.as_str(), "template", name, chart.as_str(), "--namespace", namespace];
    argv.extend(["--kube-version", "1.30.0"]);
    argv.extend(flags);
    values.iter().for_each(|value| argv.extend(["--set", value]));
    attempt(&argv)
}

/// The item of that name.
#[track_caller]
pub fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().into_iter().flatten().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// The value of a variable of a container's environment.
#[track_caller]
pub fn value_of<'a>(container: &'a Value, variable: &str) -> &'a Value {
    &named(&container["env"], variable)["value"]
}
