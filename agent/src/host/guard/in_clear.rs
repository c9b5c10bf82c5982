//! Counts by prefix what passes in clear while enforcement is `permissive`. A table of its own, beside the guard's and
//! behind it: it only counts, so nothing in it can let a packet pass or hold one up, and the guard stands without it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use nftables::helper::{DEFAULT_NFT, get_current_ruleset_raw};
use serde_json::{Value, json};

use super::run;
use crate::host::HostError;

/// Its name, in the family `inet`.
const TABLE: &str = "warren_in_clear";
/// Sets: this way, this family.
const SETS: [(&str, bool); 4] = [("in4", false), ("in6", true), ("out4", false), ("out6", true)];

/// Packets by prefix: received, sent.
pub(in crate::host) type Counted = BTreeMap<IpNet, (u64, u64)>;

/// What is to be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    devices: BTreeSet<String>,
    prefixes: BTreeSet<IpNet>,
}

/// The table of this process.
#[derive(Debug, Default)]
pub(in crate::host) struct InClear {
    /// What was loaded; `None` before the first time: who knows what an earlier agent left.
    loaded: Option<Wanted>,
}

impl InClear {
    /// Counts these prefixes on these devices from now on, and no others. Those that stay keep their counts; without a
    /// prefix there is no table. A kernel that cannot is no failure of the guard: the next call tries again.
    pub(in crate::host) fn apply(&mut self, devices: &BTreeSet<String>, prefixes: BTreeSet<IpNet>) {
        let wanted = Wanted { devices: devices.clone(), prefixes: apart(prefixes) };
        if self.loaded.as_ref() == Some(&wanted) {
            return;
        }
        match self.load(&wanted) {
            Ok(()) => self.loaded = Some(wanted),
            Err(error) => {
                tracing::warn!(%error, "what passes in clear is not counted by node");
                self.loaded = None;
            }
        }
    }

    fn load(&self, wanted: &Wanted) -> Result<(), HostError> {
        if wanted.prefixes.is_empty() || wanted.devices.is_empty() {
            return run(&json!({ "nftables": [table("add"), table("delete")] }));
        }
        match &self.loaded {
            Some(loaded) if !loaded.prefixes.is_empty() && loaded.devices == wanted.devices => {
                run(&changes(&loaded.prefixes, &wanted.prefixes)).or_else(|_| run(&whole(wanted)))
            }
            _ => run(&whole(wanted)),
        }
    }

    /// What was counted. When somebody removed the table it is made anew by the next [`Self::apply`].
    pub(in crate::host) fn counted(&mut self) -> Counted {
        if self.loaded.as_ref().is_none_or(|loaded| loaded.prefixes.is_empty() || loaded.devices.is_empty()) {
            return Counted::new();
        }
        let listed = list();
        if listed.is_none() {
            self.loaded = None;
        }
        listed.as_ref().map(read).unwrap_or_default()
    }
}

/// Removes the table; names it if it was there.
pub(super) fn remove() -> Result<Option<String>, HostError> {
    if list().is_none() {
        return Ok(None);
    }
    run(&json!({ "nftables": [table("delete")] }))?;
    Ok(Some(format!("nftables table inet {TABLE}")))
}

/// The table as the kernel has it; `None` when it is not there.
fn list() -> Option<Value> {
    let listed = get_current_ruleset_raw(DEFAULT_NFT, ["list", "table", "inet", TABLE]);
    serde_json::from_str(&listed.ok()?).ok()
}

/// Without those inside another: the sets know no overlaps.
fn apart(prefixes: BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let mut apart: BTreeSet<IpNet> = BTreeSet::new();
    // In order, a prefix comes right before those inside of it.
    for prefix in prefixes {
        if !apart.last().is_some_and(|last| last.contains(&prefix)) {
            apart.insert(prefix);
        }
    }
    apart
}

fn table(action: &str) -> Value {
    json!({ action: { "table": { "family": "inet", "name": TABLE } } })
}

/// The whole table in the place of whatever is there.
fn whole(wanted: &Wanted) -> Value {
    let mut commands = vec![table("add"), table("delete"), table("add")];
    for (set, v6) in SETS {
        let kind = if v6 { "ipv6_addr" } else { "ipv4_addr" };
        commands.push(json!({ "add": { "set": {
            "family": "inet", "table": TABLE, "name": set, "type": kind, "flags": ["interval"],
            "stmt": [{ "counter": null }],
        } } }));
    }
    commands.extend(elements("add", &wanted.prefixes));
    // Behind the guard, which drops what must not pass.
    for (chain, hook, priority, key, field, sets) in [
        ("arrivals", "prerouting", -299, "iifname", "saddr", ["in4", "in6"]),
        ("departures", "postrouting", 301, "oifname", "daddr", ["out4", "out6"]),
    ] {
        commands.push(json!({ "add": { "chain": {
            "family": "inet", "table": TABLE, "name": chain, "type": "filter", "hook": hook, "prio": priority,
            "policy": "accept",
        } } }));
        for (set, protocol) in sets.into_iter().zip(["ip", "ip6"]) {
            let device = equal(json!({ "meta": { "key": key } }), json!({ "set": wanted.devices }));
            let address = json!({ "payload": { "protocol": protocol, "field": field } });
            let expressions = [device, equal(address, json!(format!("@{set}")))];
            commands.push(json!({ "add": { "rule": {
                "family": "inet", "table": TABLE, "chain": chain, "expr": expressions,
            } } }));
        }
    }
    json!({ "nftables": commands })
}

fn equal(left: Value, right: Value) -> Value {
    json!({ "match": { "op": "==", "left": left, "right": right } })
}

/// From these prefixes to those; what overlaps goes before what comes.
fn changes(from: &BTreeSet<IpNet>, to: &BTreeSet<IpNet>) -> Value {
    let gone = from.difference(to).copied().collect();
    let new = to.difference(from).copied().collect();
    json!({ "nftables": elements("delete", &gone).into_iter().chain(elements("add", &new)).collect::<Vec<_>>() })
}

fn elements(action: &str, prefixes: &BTreeSet<IpNet>) -> Vec<Value> {
    let of = |(set, v6): (&str, bool)| {
        let prefixes = prefixes.iter().filter(|net| net.addr().is_ipv6() == v6);
        let elements: Vec<_> =
            prefixes.map(|net| json!({ "prefix": { "addr": net.network(), "len": net.prefix_len() } })).collect();
        let element = json!({ "family": "inet", "table": TABLE, "name": set, "elem": elements });
        (!elements.is_empty()).then(|| json!({ action: { "element": element } }))
    };
    SETS.into_iter().filter_map(of).collect()
}

/// The counts in a listing (libnftables-json(5)): elements are prefixes, or addresses where they are that long.
fn read(listing: &Value) -> Counted {
    let mut counted = Counted::new();
    let objects = listing["nftables"].as_array().into_iter().flatten();
    for set in objects.filter_map(|object| object.get("set")) {
        let inbound = set["name"].as_str().is_some_and(|name| name.starts_with("in"));
        for element in set["elem"].as_array().into_iter().flatten().filter_map(|element| element.get("elem")) {
            let Some(prefix) = prefix(&element["val"]) else { continue };
            let packets = element["counter"]["packets"].as_u64().unwrap_or(0);
            let (received, sent) = counted.entry(prefix).or_default();
            *(if inbound { received } else { sent }) += packets;
        }
    }
    counted
}

fn prefix(value: &Value) -> Option<IpNet> {
    if let Some(address) = value.as_str() {
        return Some(IpNet::from(address.parse::<std::net::IpAddr>().ok()?));
    }
    let length = u8::try_from(value["prefix"]["len"].as_u64()?).ok()?;
    IpNet::new(value["prefix"]["addr"].as_str()?.parse().ok()?, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_inside_another_prefix_is_counted_there() {
        let given = nets(&["10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.2.0.0/16", "fd00::/16", "fd00:1::/32"]);
        assert_eq!(apart(given), nets(&["10.1.0.0/16", "10.2.0.0/16", "fd00::/16"]));
    }

    #[test]
    fn only_what_differs_is_written_and_what_goes_goes_first() {
        let changes = changes(&nets(&["10.1.0.0/16", "10.3.0.0/16"]), &nets(&["10.1.2.0/24", "10.3.0.0/16"]));
        let text: Vec<_> = changes["nftables"].as_array().unwrap().iter().map(ToString::to_string).collect();
        let actions: Vec<_> = text.iter().map(|text| text.contains("\"delete\"")).collect();
        assert_eq!(actions, [true, true, false, false], "{text:?}");
        assert!(text.iter().all(|text| !text.contains("10.3.0.0")), "{text:?}");
    }

    #[test]
    fn a_listing_is_read_both_ways_and_both_versions_of_ip() {
        let element = |value: Value, packets: u64| json!({ "elem": { "val": value, "counter": { "packets": packets, "bytes": 1 } } });
        let prefix = |address: &str, length: u8| json!({ "prefix": { "addr": address, "len": length } });
        let listing = json!({ "nftables": [
            { "metainfo": {} },
            { "set": { "name": "in4", "elem": [element(prefix("10.1.0.0", 16), 5), element(json!("192.0.2.1"), 7)] } },
            { "set": { "name": "out4", "elem": [element(prefix("10.1.0.0", 16), 6)] } },
            { "set": { "name": "out6", "elem": [element(prefix("fd00::", 16), 8), element(json!({ "range": ["a", "b"] }), 9)] } },
            { "set": { "name": "in6" } },
        ] });
        let expected = [("10.1.0.0/16", (5, 6)), ("192.0.2.1/32", (7, 0)), ("fd00::/16", (0, 8))];
        let expected: Counted = expected.into_iter().map(|(net, counts)| (net.parse().unwrap(), counts)).collect();
        assert_eq!(read(&listing), expected);
    }
}
