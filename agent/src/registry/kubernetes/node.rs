//! What its Node says of this node: the prefixes that it was given, and the addresses that it shows. Of the host itself this
//! asks nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use warren_overlay::record::{NodeName, Record};

use super::object::Kind;
use super::store::Store;

#[derive(Deserialize)]
struct NodeSpec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<IpNet>>,
    addresses: BTreeSet<IpAddr>,
}

/// What of a Node is kept as its specification. Addresses count as far as they are written as a record writes them: the API
/// server compares texts.
pub(super) fn as_spec(spec: &Value, node: &Value) -> Value {
    let all = node.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    let texts = all.filter_map(|one| one.get("address")?.as_str());
    let parsed = texts.filter_map(|text| Some((text, text.parse::<IpAddr>().ok()?)));
    let same = parsed.filter(|(text, address)| address.to_string() == *text);
    let addresses: BTreeSet<_> = same.map(|(_, address)| address).collect();
    json!({"podCIDRs": spec.get("podCIDRs").and_then(Value::as_array), "addresses": addresses})
}

impl Store {
    /// The Pod CIDRs that Kubernetes gave to the node; `None` without a Node.
    pub(super) fn pod_cidrs(&self, node: &NodeName) -> Option<Vec<IpNet>> {
        let NodeSpec { pod_cidrs, .. } = self.get(Kind::Node, node.as_str())?.spec()?;
        Some(pod_cidrs.iter().flatten().map(IpNet::trunc).collect())
    }

    /// The record with those addresses alone that its Node shows, as the API server demands. Where there is no Node, the
    /// host says for itself.
    pub(super) fn shown(&self, mut record: Record) -> Record {
        if let Some(node) = self.get(Kind::Node, record.name.as_str()) {
            let shown = node.spec().map_or_else(BTreeSet::new, |NodeSpec { addresses, .. }| addresses);
            record.addresses.retain(|address| shown.contains(address));
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_addresses_count_that_the_api_server_would_find_in_a_record() {
        let shown = ["192.0.2.1", "a.example", "2001:DB8::1", "2001:db8::2", "192.0.2.1"];
        let shown: Vec<_> = shown.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let node = json!({"status": {"addresses": shown}});
        let read = as_spec(&json!({"podCIDRs": ["10.1.0.0/24"], "taints": []}), &node);
        assert_eq!(read, json!({"podCIDRs": ["10.1.0.0/24"], "addresses": ["192.0.2.1", "2001:db8::2"]}));
        let odd = as_spec(&json!(7), &json!({"status": {"addresses": [7, {"address": 7}]}}));
        assert_eq!(odd, json!({"podCIDRs": null, "addresses": []}));
    }
}
