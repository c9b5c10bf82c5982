//! The guard: nftables rules that outlive the process. On underlay devices, both directions, no packet from or to an
//! overlay prefix in clear; in mode `nodes` nor between node addresses. Removed by `warren cleanup` only.
//!
//! Beside the rules stands a filter of traffic control on each of these devices: it sees what traffic control redirects
//! past every hook of nftables (eBPF host routing does).
//!
//! Whether what is loaded is still what was loaded is told by comparing the kernel's listing with the one taken right
//! after loading, counters and handles aside.

mod cbpf;
mod clsact;
mod in_clear;
mod listed;
mod membership;
mod message;
mod program;
mod request;
mod ruleset;
mod saved;
mod standing;
mod wanted;

use nftables::helper::{DEFAULT_ARGS, DEFAULT_NFT, NftablesError, apply_ruleset_raw, get_current_ruleset_raw};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clsact::Filters;
pub(in crate::host) use in_clear::InClear;
pub(in crate::host) use message::concerns_guard;
use request::Kernel;
pub use saved::load_saved;
pub use standing::{Lacking, lacking};
use wanted::Wanted;

use super::{Desired, HostError};
use crate::status::GuardStatus;

/// Name of our tables, in the families `inet` and `netdev`.
pub const TABLE: &str = "warren";

/// What was loaded, and how the kernel listed it then.
pub(super) struct Guard {
    state_dir: PathBuf,
    loaded: Option<Loaded>,
    filters: Filters,
    /// The devices with egress hooks and their numbers.
    devices: Vec<(String, u32)>,
}

/// What somebody may have changed since the guard was last looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    pub(super) nftables: bool,
    pub(super) traffic_control: bool,
}

struct Loaded {
    ruleset: Value,
    listing: Value,
}

impl Guard {
    pub(super) fn new(state_dir: &Path) -> Self {
        let loaded = saved::read(state_dir).map(Loaded::from);
        Self { state_dir: state_dir.to_owned(), loaded, filters: Filters::default(), devices: Vec::new() }
    }

    /// Loads what `desired` asks for unless it is there; gives the number of writes. Unless somebody `touched` it, what
    /// was seen loaded still is.
    pub(super) fn apply(&mut self, desired: &Desired, touched: Touched) -> Result<u32, HostError> {
        let devices = present(&desired.underlay_devices)?;
        let wanted = Wanted::of(desired, devices.iter().map(|(name, _)| name.clone()).collect());
        // A device that was made anew under its old name has lost its egress hooks.
        let anew = std::mem::replace(&mut self.devices, devices.clone()) != devices;
        // The rules come last: whoever finds them knows that the rest was at least tried; what failed was said.
        let writes = self.filters.apply(&wanted, touched.traffic_control || anew);
        Ok(writes + self.rules(ruleset::build(desired, &wanted), touched.nftables || anew)?)
    }

    /// Where the guard does not see what traffic control redirects, one sentence each.
    pub(super) fn gaps(&self) -> &[String] {
        self.filters.gaps()
    }

    fn rules(&mut self, ruleset: Value, touched: bool) -> Result<u32, HostError> {
        let still = |loaded: &Loaded| !touched || list() == loaded.listing;
        let intact = |loaded: &Loaded| loaded.ruleset == ruleset && is_loaded(&loaded.listing) && still(loaded);
        if self.loaded.as_ref().is_some_and(intact) {
            return Ok(0);
        }
        load(&ruleset)?;
        let listing = list();
        if !is_loaded(&listing) {
            return Err(HostError::Nft("nft took the rules but does not list them".to_owned()));
        }
        saved::write(&self.state_dir, &ruleset, &listing)?;
        self.loaded = Some(Loaded { ruleset, listing });
        Ok(1)
    }
}

impl From<(Value, Value)> for Loaded {
    fn from((ruleset, listing): (Value, Value)) -> Self {
        Self { ruleset, listing }
    }
}

/// Egress hooks hang on devices that exist; each with its number.
fn present(wanted: &BTreeSet<String>) -> Result<Vec<(String, u32)>, HostError> {
    let devices = Kernel::open().and_then(|kernel| kernel.devices());
    let devices = devices.map_err(|error| HostError::Open { what: "the list of devices", error })?;
    let mut present: Vec<_> = devices.into_iter().map(|device| (device.name, device.index)).collect();
    present.retain(|(name, _)| wanted.contains(name));
    present.sort_unstable();
    Ok(present)
}

/// The egress hooks, which older kernels lack; then the rest, in one transaction.
fn load(ruleset: &Value) -> Result<(), HostError> {
    let part = |name: &str| ruleset.get(name).cloned().unwrap_or_default();
    let egress = part("netdev");
    if let Err(error) = run(&ruleset::from_scratch("netdev", egress)) {
        tracing::warn!(%error, "no egress hook: packets that pass the hooks of IP by are not seen by the guard");
    }
    run(&part("inet")).or_else(|_| {
        // Somebody put something else in our place: clear it in the same transaction.
        run(&ruleset::from_scratch("inet", part("inet")))
    })
}

fn run(ruleset: &Value) -> Result<(), HostError> {
    apply_ruleset_raw(&ruleset.to_string(), DEFAULT_NFT, DEFAULT_ARGS)
        .map(drop)
        .map_err(|error| HostError::Nft(reason(error)))
}

fn reason(error: NftablesError) -> String {
    match error {
        NftablesError::NftExecution { inner, .. } => format!("nft cannot be run: {inner}; install nftables"),
        NftablesError::NftFailed { stderr, .. } => stderr.lines().take(3).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Our tables as the kernel has them, without what changes by itself.
fn list() -> Value {
    let tables = ["inet", "netdev"].map(|family| normal(raw(family)));
    Value::Array(tables.into())
}

/// A listing that failed looks like a table that is not there: both mean that nothing is known to guard.
fn is_loaded(listing: &Value) -> bool {
    listing.get(0).is_some_and(Value::is_object)
}

fn raw(family: &str) -> Value {
    let listed = get_current_ruleset_raw(DEFAULT_NFT, ["list", "table", family, TABLE]);
    listed.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Without handles, counts and the version of `nft`.
fn normal(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let volatile = |key: &str| matches!(key, "handle" | "packets" | "bytes" | "metainfo");
            map.into_iter().filter(|(key, _)| !volatile(key)).map(|(key, value)| (key, normal(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(normal).collect(),
        other => other,
    }
}

/// What the guard counted since it was loaded.
pub(super) fn counters() -> GuardStatus {
    let tables = ["inet", "netdev"].map(raw);
    let sum = |name: &str| tables.iter().map(|table| count(table, name)).sum::<u64>();
    let refused = sum("refused") + clsact::dropped();
    GuardStatus { active: tables[0].is_object(), refused, passed: sum("passed") }
}

fn count(table: &Value, name: &str) -> u64 {
    let objects = table.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let counters = objects.filter_map(|object| object.get("counter"));
    counters.filter(|counter| counter["name"] == name).filter_map(|counter| counter["packets"].as_u64()).sum()
}

/// Removes our tables, our filters and what is on disk; names what was there.
pub(super) fn remove(state_dir: &Path) -> Result<Vec<String>, HostError> {
    let mut removed = Vec::new();
    for family in ["inet", "netdev"].into_iter().filter(|family| raw(family).is_object()) {
        run(&ruleset::deletion(family))?;
        removed.push(format!("nftables table {family} {TABLE}"));
    }
    removed.extend(in_clear::remove()?);
    removed.extend(clsact::remove()?);
    removed.extend(saved::remove(state_dir));
    Ok(removed)
}
