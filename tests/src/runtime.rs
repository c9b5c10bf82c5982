//! Pods by a CNI's real plugins: the first configuration of a node's folder, its chain run as container runtimes run it.

use std::cell::Cell;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::agent::program;
use crate::command::{self, Finished};
use crate::namespace::Namespace;
use crate::{Node, Pod, Settings, eventually};

/// Where Debian has the plugins (`containernetworking-plugins`).
const PLUGINS: &str = "/usr/lib/cni";
/// The plugin of ours, beside the agent.
const GATE: &str = "warren-gate";

/// What a runtime has of a node: the folders of configurations and of plugins.
#[derive(Debug)]
pub struct Runtime {
    namespace: String,
    folder: PathBuf,
    /// Sandboxes so far: each has an identity of its own, as plugins expect.
    sandboxes: Cell<u32>,
}

/// A Pod's network, as plugins are told of it.
#[derive(Clone, Copy, Debug)]
struct Sandbox<'a> {
    namespace: &'a str,
    number: u32,
}

/// A plugin said no: which one, and what.
#[derive(Debug)]
pub struct Refused {
    /// Its `type`.
    pub plugin: String,
    /// Its error object.
    pub said: Value,
}

impl Refused {
    /// It is the gate, which asks the runtime to try again.
    pub fn by_gate(&self) -> bool {
        self.plugin == GATE && self.said["code"] == 11
    }
}

impl Runtime {
    /// The node's, with every plugin and no configuration.
    pub fn of(node: &Node) -> Self {
        let (namespace, folder) = (node.namespace().name().to_owned(), node.folder().to_owned());
        let runtime = Self { namespace, folder, sandboxes: Cell::new(0) };
        for folder in [runtime.net_d(), runtime.bin(), runtime.folder.join("var")] {
            std::fs::create_dir_all(folder).expect("the node's folder is ours");
        }
        let ours = PathBuf::from(program()).with_file_name(GATE);
        let theirs = std::fs::read_dir(PLUGINS).expect("containernetworking-plugins is installed").flatten();
        for plugin in theirs.map(|entry| entry.path()).chain([ours]) {
            let link = runtime.bin().join(plugin.file_name().expect("a file has a name"));
            std::os::unix::fs::symlink(plugin, link).expect("the folder was empty");
        }
        runtime
    }

    /// The folder of configurations.
    pub fn net_d(&self) -> PathBuf {
        self.folder.join("net.d")
    }

    /// The folder of plugins.
    pub fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Has the agent know both folders, and put this into the first.
    pub fn ask(&self, settings: &mut Settings, key: &str) {
        settings
            .text("node", "cni_dir", self.net_d().display())
            .text("cni", "bin_dir", self.bin().display())
            .set("cni", key, true);
    }

    /// Every configuration, in the order of names.
    pub fn configurations(&self) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(self.net_d()).expect("it is there").flatten();
        let named = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
        let lists = named.filter(|(name, _)| name.ends_with(".conflist"));
        let mut all: Vec<_> =
            lists.filter_map(|(name, path)| Some((name, std::fs::read_to_string(path).ok()?))).collect();
        all.sort();
        all
    }

    /// Tries as a kubelet does, until the Pod is added; fails the test when anybody but the gate refuses it.
    #[track_caller]
    pub fn until_added(&self, name: &str) -> Pod {
        eventually(20, "the Pod is added", || match self.add(name) {
            Err(refused) if !refused.by_gate() => panic!("{refused:?}"),
            added => added.ok(),
        })
    }

    /// Adds a Pod; when a plugin refuses, everything is taken back, as runtimes do.
    #[track_caller]
    pub fn add(&self, name: &str) -> Result<Pod, Refused> {
        let pod = Namespace::create(&format!("{}-{name}", self.namespace));
        self.sandboxes.set(self.sandboxes.get() + 1);
        let sandbox = Sandbox { namespace: pod.name(), number: self.sandboxes.get() };
        let mut result = Value::Null;
        for plugin in self.chain() {
            let finished = self.call("ADD", &plugin, &result, sandbox);
            let said = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| json!(finished.said()));
            if !finished.success() {
                self.delete(sandbox);
                return Err(Refused { plugin: plugin["type"].as_str().unwrap_or_default().to_owned(), said });
            }
            result = said;
        }
        Ok(Pod::attached(pod, addresses(&result)))
    }

    #[track_caller]
    fn delete(&self, sandbox: Sandbox<'_>) {
        for plugin in self.chain().iter().rev() {
            let finished = self.call("DEL", plugin, &Value::Null, sandbox);
            assert!(finished.success(), "{} does not let a Pod go: {}", plugin["type"], finished.said());
        }
    }

    /// Runs the gate alone.
    #[track_caller]
    pub fn gate(&self, command: &str, before: &Value) -> Finished {
        let plugin = json!({ "type": GATE, "name": "lab", "cniVersion": "1.0.0" });
        self.call(command, &plugin, before, Sandbox { namespace: "none", number: 0 })
    }

    /// The plugins of the first configuration, as each is told of itself.
    fn chain(&self) -> Vec<Value> {
        let all = self.configurations();
        let (name, text) = all.first().expect("a runtime without a configuration adds no Pod");
        let list: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        let plugins = list["plugins"].as_array().expect("a list of plugins").iter().cloned();
        let told = plugins.map(|mut plugin| {
            plugin["name"] = list["name"].clone();
            plugin["cniVersion"] = list["cniVersion"].clone();
            plugin
        });
        told.collect()
    }

    #[track_caller]
    fn call(&self, command: &str, plugin: &Value, before: &Value, sandbox: Sandbox<'_>) -> Finished {
        let mut plugin = plugin.clone();
        if !before.is_null() {
            plugin["prevResult"] = before.clone();
        }
        let program = self.bin().join(plugin["type"].as_str().expect("a plugin has a type")).display().to_string();
        // What plugins keep below /var/lib, each node has for itself.
        let var = self.folder.join("var");
        let own = format!("mount --bind {} /var/lib && exec {program}", var.display());
        let variables = [
            format!("CNI_COMMAND={command}"),
            format!("CNI_CONTAINERID={}-{}", sandbox.namespace, sandbox.number),
            format!("CNI_NETNS=/run/netns/{}", sandbox.namespace),
            "CNI_IFNAME=eth0".to_owned(),
            format!("CNI_PATH={}", self.bin().display()),
        ];
        let mut argv = vec!["ip", "netns", "exec", &self.namespace, "unshare", "-m", "env"];
        argv.extend(variables.iter().map(String::as_str));
        argv.extend(["sh", "-ec", &own]);
        command::feed(&argv, &plugin.to_string())
    }
}

/// What a result says that the Pod has.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let texts = ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
    texts.collect()
}
