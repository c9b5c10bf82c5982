//! The guard's rules as `nft` takes them (libnftables-json(5)). Pure.
//!
//! ```text
//! prerouting  -300   before NAT: what comes in in clear
//! postrouting  300   after NAT: what would go out in clear
//! egress             the same once more for what passes the hooks of IP by; what traffic control redirects skips this
//!                    hook too, and is left to the filter beside these rules
//! prerouting  -150   what came in by the device is remembered, answers to it are marked
//! output      -150   the same for this host's own answers, but not for our own datagrams: they stay out of the device;
//!                    and for what Pods say to other nodes where IPVS has routed it
//! forward     -150   MSS clamp
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use warren_overlay::mesh::Enforcement;

use super::super::plan::{in_overlay, node_addresses, overlay_prefixes};
use super::TABLE;
use super::membership::aggregate;
use super::wanted::Wanted;
use crate::config::Mode;
use crate::host::Desired;

/// `{"inet": …, "netdev": …, "traffic_control": …}`: two transactions, and the filters beside them.
pub(super) fn build(desired: &Desired, wanted: &Wanted) -> Value {
    json!({
        "inet": transaction(inet(desired)),
        "netdev": transaction(netdev(desired, &wanted.devices)),
        "traffic_control": wanted,
    })
}

fn transaction(commands: Vec<Value>) -> Value {
    json!({ "nftables": commands })
}

/// The same rules after whatever is in our place was deleted.
pub(super) fn from_scratch(family: &str, mut ruleset: Value) -> Value {
    if let Some(commands) = ruleset.get_mut("nftables").and_then(Value::as_array_mut) {
        commands.splice(0..0, [add_table(family), delete_table(family)]);
    }
    ruleset
}

/// Deletes our table of this family.
pub(super) fn deletion(family: &str) -> Value {
    transaction(vec![delete_table(family)])
}

fn add_table(family: &str) -> Value {
    json!({ "add": { "table": { "family": family, "name": TABLE } } })
}

fn delete_table(family: &str) -> Value {
    json!({ "delete": { "table": { "family": family, "name": TABLE } } })
}

fn inet(desired: &Desired) -> Vec<Value> {
    let rules = Rules { family: "inet", desired };
    let mut commands = rules.frame();
    for (chain, kind, hook, priority) in [
        ("prerouting", "filter", "prerouting", -300),
        ("postrouting", "filter", "postrouting", 300),
        ("arrivals", "filter", "prerouting", -150),
        ("answers", "route", "output", -150),
        ("clamp", "filter", "forward", -150),
    ] {
        commands.push(rules.hook(chain, kind, hook, priority, None));
    }
    let devices: Vec<_> = desired.underlay_devices.iter().collect();
    if !devices.is_empty() {
        // Most of what passes these hooks is not on an underlay device: one comparison, and it is through.
        for (chain, key, way) in [("prerouting", "iifname", Way::In), ("postrouting", "oifname", Way::Out)] {
            commands.push(rules.rule(chain, vec![other_than(key, &devices), json!({ "accept": null })]));
            commands.extend(rules.clear(chain, way));
        }
    }
    commands.extend(rules.own_datagrams());
    commands.extend(rules.answers());
    commands.extend(rules.astray());
    commands.extend(rules.clamp());
    commands
}

/// Egress hooks belong to devices, one chain each.
fn netdev(desired: &Desired, devices: &[String]) -> Vec<Value> {
    let rules = Rules { family: "netdev", desired };
    let mut commands = rules.frame();
    for (number, device) in devices.iter().enumerate() {
        let chain = format!("egress{number}");
        commands.push(rules.hook(&chain, "filter", "egress", 0, Some(device)));
        commands.extend(rules.clear(&chain, Way::Out));
    }
    commands
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

struct Rules<'a> {
    family: &'static str,
    desired: &'a Desired,
}

impl Rules<'_> {
    /// Table, counters and sets, filled; counts survive.
    fn frame(&self) -> Vec<Value> {
        let family = self.family;
        let mut commands =
            vec![add_table(family), json!({ "flush": { "table": { "family": family, "name": TABLE } } })];
        for name in ["refused", "passed"] {
            commands.push(json!({ "add": { "counter": { "family": family, "table": TABLE, "name": name } } }));
        }
        for v6 in [false, true] {
            for (name, elements) in self.sets(v6) {
                let set = json!({
                    "family": family, "table": TABLE, "name": format!("{name}{}", number(v6)),
                    "type": if v6 { "ipv6_addr" } else { "ipv4_addr" }, "flags": ["interval"],
                });
                commands.push(json!({ "add": { "set": set } }));
                commands.push(json!({ "flush": { "set": set } }));
                if !elements.is_empty() {
                    let mut filled = set.clone();
                    filled["elem"] = elements.into();
                    commands.push(json!({ "add": { "element": filled } }));
                }
            }
        }
        commands
    }

    fn sets(&self, v6: bool) -> [(&'static str, Vec<Value>); 5] {
        let desired = self.desired;
        let proven_nodes = desired.proven_nodes.iter().map(|address| IpNet::from(*address)).collect();
        let routes = self.family == "inet" && desired.mode == Mode::Pods;
        let peers = if routes { peers(desired) } else { BTreeSet::new() };
        let in_nodes = |set| if desired.mode == Mode::Nodes { elements(set, v6) } else { Vec::new() };
        [
            ("overlay", elements(&overlay_prefixes(desired), v6)),
            ("proven", elements(&desired.proven_cidrs, v6)),
            ("nodes", in_nodes(&node_addresses(desired))),
            ("proven_nodes", in_nodes(&proven_nodes)),
            ("peers", elements(&peers, v6)),
        ]
    }

    fn hook(&self, name: &str, kind: &str, hook: &str, priority: i32, device: Option<&str>) -> Value {
        let mut chain = json!({
            "family": self.family, "table": TABLE, "name": name, "type": kind, "hook": hook, "prio": priority,
            "policy": "accept",
        });
        if let Some(device) = device {
            chain["dev"] = device.into();
        }
        json!({ "add": { "chain": chain } })
    }

    fn rule(&self, chain: &str, expressions: Vec<Value>) -> Value {
        json!({ "add": { "rule": { "family": self.family, "table": TABLE, "chain": chain, "expr": expressions } } })
    }

    /// What is in clear on an underlay device and should not be; other devices' packets never come here.
    fn clear(&self, chain: &str, way: Way) -> Vec<Value> {
        let mut rules = Vec::new();
        for v6 in [false, true] {
            for (set, verdict) in self.verdicts(way) {
                for field in ["saddr", "daddr"] {
                    let set = format!("@{set}{}", number(v6));
                    let mut expressions = vec![compare_address(v6, field, &set)];
                    expressions.extend(verdict.clone());
                    rules.push(self.rule(chain, expressions));
                }
            }
            if self.desired.mode == Mode::Nodes {
                rules.extend(self.between_nodes(chain, way, v6));
            }
        }
        rules
    }

    /// In `permissive` only pairs that had a tunnel are held to it; the rest is counted.
    fn verdicts(&self, way: Way) -> Vec<(&'static str, Vec<Value>)> {
        match self.desired.enforcement {
            Enforcement::Strict => vec![("overlay", vec![counted("refused"), json!({ "drop": null })])],
            Enforcement::Permissive => {
                vec![("proven", vec![counted("refused"), json!({ "drop": null })]), ("overlay", self.passing(way))]
            }
        }
    }

    /// Counted once: the egress hook only sees what postrouting counted before.
    fn passing(&self, way: Way) -> Vec<Value> {
        if way == Way::Out && self.family == "netdev" {
            return vec![json!({ "accept": null })];
        }
        vec![counted("passed"), json!({ "accept": null })]
    }

    fn between_nodes(&self, chain: &str, way: Way, v6: bool) -> Vec<Value> {
        let nodes = format!("@nodes{}", number(v6));
        let pair = ["saddr", "daddr"].map(|field| compare_address(v6, field, &nodes));
        let rule = |more: Vec<Value>| self.rule(chain, pair.iter().cloned().chain(more).collect());
        let accept = json!({ "accept": null });
        let own = if way == Way::Out { "sport" } else { "dport" };
        let mut rules = vec![rule(vec![compare_port("udp", own, json!(self.desired.port)), accept.clone()])];
        for range in &self.desired.exempt_ports {
            let ports = json!({ "range": [range.start(), range.end()] });
            for protocol in ["tcp", "udp"] {
                for field in ["sport", "dport"] {
                    rules.push(rule(vec![compare_port(protocol, field, ports.clone()), accept.clone()]));
                }
            }
        }
        if v6 {
            // Without neighbour discovery the underlay itself is dead (RFC 4861).
            let types = json!({ "set": ["nd-neighbor-solicit", "nd-neighbor-advert", "nd-router-solicit", "nd-router-advert"] });
            let field = json!({ "payload": { "protocol": "icmpv6", "field": "type" } });
            rules.push(rule(vec![matches(field, types), accept]));
        }
        let refuse = vec![counted("refused"), json!({ "drop": null })];
        if self.desired.enforcement == Enforcement::Strict {
            rules.push(rule(refuse));
            return rules;
        }
        for field in ["saddr", "daddr"] {
            let proven = compare_address(v6, field, &format!("@proven_nodes{}", number(v6)));
            rules.push(rule([proven].into_iter().chain(refuse.clone()).collect()));
        }
        rules.push(rule(self.passing(way)));
        rules
    }

    /// The tunnel does not carry what leaves by its one port. Where a peer seems to be inside of the overlay the routes would
    /// have it so (lanes with ports of their own are not told apart); and a
    /// Pod that its node masquerades could make our datagrams look like answers to it. Not counted: none was in clear, and
    /// the agent counts a datagram that it may not send.
    fn own_datagrams(&self) -> [Value; 2] {
        let (device, port) = (json!(self.desired.device), compare_port("udp", "sport", json!(self.desired.port)));
        let inside = vec![compare("oifname", device), port.clone(), json!({ "drop": null })];
        [inside, vec![port, json!({ "accept": null })]].map(|rule| self.rule("answers", rule))
    }

    /// Who came in by the device is answered by it: the connection carries the mark bit, its answers get it.
    fn answers(&self) -> Vec<Value> {
        let mark = self.desired.mark;
        let (ct, meta) = (json!({ "ct": { "key": "mark" } }), json!({ "meta": { "key": "mark" } }));
        let direction = |name: &str| matches(json!({ "ct": { "key": "direction" } }), json!(name));
        let set = |key: &Value| json!({ "mangle": { "key": key, "value": { "|": [key, mark] } } });
        let remembered = json!({ "match": { "op": "==", "left": { "&": [ct, mark] }, "right": mark } });
        let answer = vec![direction("reply"), remembered, set(&meta)];
        vec![
            self.rule(
                "arrivals",
                vec![compare("iifname", json!(self.desired.device)), direction("original"), set(&ct)],
            ),
            self.rule("arrivals", answer.clone()),
            self.rule("answers", answer),
        ]
    }

    /// What IPVS has translated it routes by its destination alone, and so past the rule for what Pods say to another
    /// node. Marked, it is routed once more, by the tables of answers: before anybody masquerades it, and the guard sees a
    /// node. In mode `nodes` a node's address is found whoever asks.
    fn astray(&self) -> Vec<Value> {
        if self.desired.mode == Mode::Nodes {
            return Vec::new();
        }
        let (meta, device) = (json!({ "meta": { "key": "mark" } }), json!(self.desired.device));
        let set = json!({ "mangle": { "key": meta, "value": { "|": [meta, self.desired.mark] } } });
        let outside = json!({ "match": { "op": "!=", "left": { "meta": { "key": "oifname" } }, "right": device } });
        let rule = |v6: bool| {
            let [from, to] = [("saddr", "overlay"), ("daddr", "peers")]
                .map(|(field, set)| compare_address(v6, field, &format!("@{set}{}", number(v6))));
            self.rule("answers", vec![outside.clone(), from, to, set.clone()])
        };
        [false, true].map(rule).into()
    }

    /// TCP learns the tunnel's MTU from the first packet, whatever becomes of ICMP. Of all others one byte is looked at.
    fn clamp(&self) -> Vec<Value> {
        let flags = json!({ "payload": { "protocol": "tcp", "field": "flags" } });
        let syn = json!({ "match": { "op": "in", "left": flags, "right": "syn" } });
        let option = json!({ "tcp option": { "name": "maxseg", "field": "size" } });
        let clamp = json!({ "mangle": { "key": option, "value": { "rt": { "key": "mtu" } } } });
        let by = |key| compare(key, json!(self.desired.device));
        ["oifname", "iifname"].map(|key| self.rule("clamp", vec![syn.clone(), by(key), clamp.clone()])).into()
    }
}

/// Other nodes' own addresses, to which Pods' packets go by the device and no other way: the tables of answers end in
/// nothing, and in `permissive` a node that was never reached is reached in clear.
fn peers(desired: &Desired) -> BTreeSet<IpNet> {
    let others = desired.peer_addresses.keys().filter(|address| !desired.node_addresses.contains(address));
    let sealed =
        |address: &&IpAddr| desired.enforcement == Enforcement::Strict || desired.proven_nodes.contains(address);
    let others = others.filter(|address| !in_overlay(desired, address)).filter(sealed);
    others.map(|address| IpNet::from(*address)).collect()
}

fn number(v6: bool) -> u8 {
    if v6 { 6 } else { 4 }
}

fn counted(name: &str) -> Value {
    json!({ "counter": name })
}

fn matches(left: Value, right: Value) -> Value {
    json!({ "match": { "op": "==", "left": left, "right": right } })
}

fn compare(key: &str, right: Value) -> Value {
    matches(json!({ "meta": { "key": key } }), right)
}

/// The name of the device is none of these.
fn other_than(key: &str, devices: &[&String]) -> Value {
    let right = if let [device] = devices { json!(device) } else { json!({ "set": devices }) };
    json!({ "match": { "op": "!=", "left": { "meta": { "key": key } }, "right": right } })
}

fn compare_address(v6: bool, field: &str, set: &str) -> Value {
    let protocol = if v6 { "ip6" } else { "ip" };
    matches(json!({ "payload": { "protocol": protocol, "field": field } }), json!(set))
}

fn compare_port(protocol: &str, field: &str, right: Value) -> Value {
    matches(json!({ "payload": { "protocol": protocol, "field": field } }), right)
}

/// Prefixes of one family that do not overlap, as the kernel's interval sets want them.
fn elements(nets: &BTreeSet<IpNet>, v6: bool) -> Vec<Value> {
    let prefix = |net: &IpNet| json!({ "prefix": { "addr": net.network(), "len": net.prefix_len() } });
    aggregate(nets, v6).iter().map(prefix).collect()
}
