//! Somebody else's firewall that refuses to forward. An accept of ours cannot overrule another chain's drop, so it is
//! found and reported, never worked around.

use std::collections::BTreeSet;

use ipnet::IpNet;
use nftables::helper::{DEFAULT_NFT, get_current_ruleset_raw};
use serde_json::Value;

use super::guard::TABLE;

/// Chains that drop what is forwarded unless told otherwise, and do not mention the overlay: one sentence each.
pub fn refusing(device: &str, networks: &BTreeSet<IpNet>) -> Vec<String> {
    let Some(listed) = list(&["list", "chains"]) else { return Vec::new() };
    let objects = listed["nftables"].as_array().into_iter().flatten().filter_map(|object| object.get("chain"));
    let dropping =
        objects.filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop" && chain["table"] != TABLE);
    dropping.filter(|chain| !mentions(chain, device, networks)).map(|chain| remedy(chain, device)).collect()
}

/// Does the table know of us? Its author then has decided.
fn mentions(chain: &Value, device: &str, networks: &BTreeSet<IpNet>) -> bool {
    let (Some(family), Some(table)) = (chain["family"].as_str(), chain["table"].as_str()) else { return false };
    let text = list(&["list", "table", family, table]).map(|table| table.to_string()).unwrap_or_default();
    let network = |net: &IpNet| text.contains(&format!("\"{}\"", net.network()));
    text.contains(&format!("\"{device}\"")) || networks.iter().any(network)
}

fn remedy(chain: &Value, device: &str) -> String {
    let name = |key: &str| chain[key].as_str().unwrap_or("?").to_owned();
    let (family, table, chain) = (name("family"), name("table"), name("name"));
    format!(
        "the chain {family} {table} {chain} drops forwarded packets (Docker, ufw and others set this): accept \
         `-i {device}` and `-o {device}` there, for Docker: `iptables -I DOCKER-USER -i {device} -j ACCEPT` and \
         `iptables -I DOCKER-USER -o {device} -j ACCEPT`"
    )
}

fn list(arguments: &[&str]) -> Option<Value> {
    serde_json::from_str(&get_current_ruleset_raw(DEFAULT_NFT, arguments.iter().copied()).ok()?).ok()
}
