//! What Cilium says of this node: the prefixes in its CiliumNode (cilium.io/v2), in the modes of its IPAM in which the node has
//! any (`cluster-pool`, `kubernetes`). Pure.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::object::Object;

/// Where the addresses come from instead: what of the specification says so, and the mode of the IPAM in words.
const OTHERS: [(&str, &str); 5] = [
    ("/eni", "ENI, of AWS"),
    ("/azure", "Azure"),
    ("/alibaba-cloud", "Alibaba Cloud"),
    ("/ipam/pools", "multi-pool"),
    // Of the others too, where nothing else says which.
    ("/ipam/pool", "addresses one by one (CRD, or a cloud's)"),
];

/// What is kept of a specification, which may list every address of the node.
pub(in crate::registry::kubernetes) fn kept(spec: &Value) -> Value {
    let is_there = |at: &str| match spec.pointer(at) {
        Some(Value::Object(fields)) => !fields.is_empty(),
        other => other.is_some_and(|other| !other.is_null()),
    };
    let other = OTHERS.iter().find(|(at, _)| is_there(at)).map(|(_, mode)| mode);
    json!({"podCIDRs": spec.pointer("/ipam/podCIDRs"), "other": other})
}

/// As [`kept`] leaves it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    other: Option<String>,
}

/// The node's prefixes, or why there are none.
pub(super) fn prefixes(node: Option<&Object>) -> Result<BTreeSet<IpNet>, String> {
    let instead =
        "use overlay.mode = \"nodes\" with node.cidrs = [], or list the prefixes in node.cidrs if this node has any";
    let Some(node) = node else {
        return Err("there is no CiliumNode of this node's name yet: Cilium makes it when its agent starts there, and node.name \
                    must be the Node's"
            .to_owned());
    };
    let name = &node.name;
    let Some(Kept { pod_cidrs, other }) = node.spec() else {
        return Err(format!("the CiliumNode {name:?} cannot be read: spec.ipam.podCIDRs is no list of prefixes"));
    };
    // Older versions put a prefix there in these modes too, and use it for nothing.
    if let Some(mode) = other {
        return Err(format!(
            "the CiliumNode {name:?} is of a mode of Cilium's IPAM that gives the node no prefix of its own ({mode}): {instead}"
        ));
    }
    let given = pod_cidrs.unwrap_or_default();
    if given.is_empty() {
        return Err(format!(
            "the CiliumNode {name:?} has no spec.ipam.podCIDRs: Cilium's operator gave it none yet, or its IPAM gives none; if it \
             stays so, {instead}"
        ));
    }
    let parse = |text: &String| match text.parse::<IpNet>() {
        Ok(cidr) if cidr.addr() == cidr.network() => Ok(cidr),
        _ => Err(format!("the CiliumNode {name:?} has {text:?} among its spec.ipam.podCIDRs, which is no prefix")),
    };
    given.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::object::Kind;
    use super::*;

    /// As Cilium's agent and operator write it.
    fn cilium_node(change: impl FnOnce(&mut Value)) -> Object {
        let mut value = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode",
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "generation": 4, "name": "a",
                "labels": {"kubernetes.io/hostname": "a"}, "resourceVersion": "2086",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "f1"}]},
            "spec": {
                "addresses": [{"ip": "192.0.2.1", "type": "InternalIP"}, {"ip": "10.0.2.236", "type": "CiliumInternalIP"}],
                "alibaba-cloud": {}, "azure": {}, "bootid": "6f", "encryption": {}, "eni": {},
                "health": {"ipv4": "10.0.2.67"}, "ingress": {},
                "ipam": {"podCIDRs": ["10.0.2.0/24", "fd00::200/120"], "pools": {}}},
            "status": {"alibaba-cloud": {}, "azure": {}, "eni": {}, "ipam": {"operator-status": {}}}});
        change(&mut value["spec"]);
        Object::read(Kind::CiliumNode, value).expect("it has a name")
    }

    #[test]
    fn the_pod_cidrs_of_the_cilium_node_are_the_nodes_prefixes() {
        let expected = ["10.0.2.0/24", "fd00::200/120"].map(|text| text.parse().expect("a prefix"));
        assert_eq!(prefixes(Some(&cilium_node(|_| {}))), Ok(expected.into()));
    }

    #[test]
    fn a_mode_that_gives_the_node_no_prefix_is_named_whatever_else_stands_there() {
        let many: serde_json::Map<_, _> = (0..=255).map(|last| (format!("10.80.17.{last}"), json!({}))).collect();
        for (at, key, value, mode) in [
            ("", "eni", json!({"vpc-id": "vpc-0b", "instance-type": "m5.large"}), "ENI"),
            ("", "azure", json!({"interface-name": "eth0"}), "Azure"),
            ("", "alibaba-cloud", json!({"instance-type": "ecs.g7"}), "Alibaba"),
            ("/ipam", "pool", Value::Object(many), "one by one"),
            ("/ipam", "pools", json!({"allocated": [{"pool": "default", "cidrs": ["10.0.3.0/27"]}]}), "multi-pool"),
        ] {
            let node = cilium_node(|spec| spec.pointer_mut(at).expect("there")[key] = value);
            let said = prefixes(Some(&node)).expect_err(mode);
            assert!(said.contains(mode) && said.contains("overlay.mode = \"nodes\""), "{said}");
        }
    }

    #[test]
    fn without_prefixes_nothing_is_guessed() {
        let with = |value: Value| cilium_node(|spec| spec["ipam"]["podCIDRs"] = value);
        for (node, words) in [
            (None, "no CiliumNode"),
            (Some(with(json!(null))), "none yet"),
            (Some(with(json!([]))), "none yet"),
            (Some(with(json!("10.0.2.0/24"))), "cannot be read"),
            (Some(with(json!([7]))), "cannot be read"),
            (Some(with(json!(["10.0.2.0/24", "ten"]))), "\"ten\""),
            (Some(with(json!(["10.0.2.1/24"]))), "\"10.0.2.1/24\""),
            (Some(cilium_node(|spec| *spec = json!(null))), "none yet"),
        ] {
            let said = prefixes(node.as_ref()).expect_err(words);
            assert!(said.contains(words), "{said}");
        }
    }
}
