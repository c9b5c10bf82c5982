//! The real CNI plugins of Debian's containernetworking-plugins, driven as a container runtime drives them: environment,
//! configuration on standard input, the result of one handed to the next, and all of it backwards at the end (CNI
//! specification 1.0, "Execution Protocol").

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::command;
use crate::namespace::Namespace;
use crate::{Node, Pod};

/// Where Debian puts them.
const PLUGINS: &str = "/usr/lib/cni";
/// The newest version that they speak.
const VERSION: &str = "1.0.0";

/// A port of the node that leads to a port of the Pod.
#[derive(Clone, Copy, Debug)]
pub struct HostPort {
    /// On the node.
    pub host: u16,
    /// In the Pod.
    pub pod: u16,
}

/// A network configuration as it stands in `/etc/cni/net.d`.
#[derive(Clone, Debug)]
pub struct Conflist {
    name: String,
    plugins: Vec<Value>,
}

/// What a runtime keeps of a Pod until it is gone.
#[derive(Debug)]
pub struct Attached {
    /// The Pod with the addresses that the plugins gave to it.
    pub pod: Pod,
    result: Value,
    ports: Value,
}

impl Conflist {
    /// One of these plugins, in this order.
    pub fn new(name: &str, plugins: impl IntoIterator<Item = Value>) -> Self {
        Self { name: name.to_owned(), plugins: plugins.into_iter().collect() }
    }

    /// Writes it where an agent looks for it; the folder.
    pub fn write(&self, node: &Node) -> PathBuf {
        let folder = node.folder().join("net.d");
        std::fs::create_dir_all(&folder).expect("the node's folder is ours");
        let text = json!({ "cniVersion": VERSION, "name": self.name, "plugins": self.plugins }).to_string();
        std::fs::write(folder.join(format!("10-{}.conflist", self.name)), text).expect("the folder was just made");
        folder
    }

    /// Adds a Pod: every plugin in turn, each with the result of the one before.
    #[track_caller]
    pub fn add(&self, node: &Node, ports: &[HostPort]) -> Attached {
        let sandbox = node.sandbox();
        let ports = mappings(ports);
        let call = Call { conflist: self, node, sandbox: &sandbox, ports: &ports };
        let result = self.plugins.iter().fold(Value::Null, |result, plugin| {
            let said = call.plugin("ADD", plugin, &result);
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{plugin} says no JSON ({error}): {said}"))
        });
        let pod = Pod::attached(sandbox, addresses(&result));
        Attached { pod, result, ports }
    }

    /// Runs the plugins for a Pod that somebody else attached, whose result they are given.
    #[track_caller]
    pub fn chain(&self, node: &Node, pod: &Pod, ports: &[HostPort]) {
        let ports = mappings(ports);
        let ips: Value = pod.addresses().iter().map(|at| json!({ "address": IpNet::from(*at) })).collect();
        let call = Call { conflist: self, node, sandbox: pod.namespace(), ports: &ports };
        for plugin in &self.plugins {
            call.plugin("ADD", plugin, &json!({ "cniVersion": VERSION, "ips": ips }));
        }
    }

    /// Takes a Pod away again: every plugin, the last one first.
    #[track_caller]
    pub fn del(&self, node: &Node, attached: &Attached) {
        let call = Call { conflist: self, node, sandbox: attached.pod.namespace(), ports: &attached.ports };
        for plugin in self.plugins.iter().rev() {
            call.plugin("DEL", plugin, &attached.result);
        }
    }
}

/// One Pod's calls.
struct Call<'a> {
    conflist: &'a Conflist,
    node: &'a Node,
    sandbox: &'a Namespace,
    ports: &'a Value,
}

impl Call<'_> {
    #[track_caller]
    fn plugin(&self, verb: &str, plugin: &Value, previous: &Value) -> String {
        let name = plugin["type"].as_str().expect("a plugin has a type");
        let program = Path::new(PLUGINS).join(name);
        assert!(program.is_file(), "{} is missing: run scripts/setup.sh test", program.display());
        let sandbox = self.sandbox.name();
        let environment = [
            format!("CNI_COMMAND={verb}"),
            format!("CNI_CONTAINERID={sandbox}"),
            format!("CNI_NETNS=/run/netns/{sandbox}"),
            "CNI_IFNAME=eth0".to_owned(),
            format!("CNI_PATH={PLUGINS}"),
        ];
        let program = program.display().to_string();
        let words: Vec<&str> =
            ["env"].into_iter().chain(environment.iter().map(String::as_str)).chain([program.as_str()]).collect();
        let argv = self.node.namespace().argv(&words);
        command::checked(&argv, command::feed(&argv, &self.configuration(plugin, previous).to_string()))
    }

    /// What the plugin reads: its own part, the network's name, the result so far, and what it said it can do.
    fn configuration(&self, plugin: &Value, previous: &Value) -> Value {
        let mut configuration = plugin.clone();
        configuration["cniVersion"] = VERSION.into();
        configuration["name"] = self.conflist.name.clone().into();
        if !previous.is_null() {
            configuration["prevResult"] = previous.clone();
        }
        if plugin["capabilities"]["portMappings"] == true {
            configuration["runtimeConfig"] = json!({ "portMappings": self.ports });
        }
        configuration
    }
}

/// Ports as a runtime hands them on: each by both protocols.
fn mappings(ports: &[HostPort]) -> Value {
    let by = |protocol: &'static str| {
        ports.iter().map(move |port| json!({ "hostPort": port.host, "containerPort": port.pod, "protocol": protocol }))
    };
    by("tcp").chain(by("udp")).collect()
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    ips.filter_map(address).collect()
}

/// The address management of every one of them: `host-local` with the node's prefixes, its files in the node's folder.
pub fn host_local(node: &Node, routes: &[&str]) -> Value {
    let ranges: Value = node.cidrs().iter().map(|cidr| json!([{ "subnet": cidr.to_string() }])).collect();
    let routes: Value = routes.iter().map(|route| json!({ "dst": route })).collect();
    json!({ "type": "host-local", "dataDir": node.folder().join("ipam"), "ranges": ranges, "routes": routes })
}

/// Host ports.
pub fn portmap() -> Value {
    json!({ "type": "portmap", "capabilities": { "portMappings": true } })
}

/// Default routes of the versions of IP that the node's Pods speak.
pub fn default_routes(node: &Node) -> Vec<&'static str> {
    node.cidrs().iter().map(|cidr| if cidr.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" }).collect()
}
