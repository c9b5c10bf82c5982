//! The guard on disk, so that it can be loaded after a reboot before there is a network, an agent or a registry.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::clsact::Filters;
use super::{HostError, load};

/// Name of the file in the state folder.
const FILE: &str = "guard.json";

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Loads the guard that was saved last; `false` when there is none. For the unit that runs before the network.
///
/// # Errors
/// When the file cannot be read, or `nft` refuses it.
pub fn load_saved(state_dir: &Path) -> Result<bool, HostError> {
    let file = path(state_dir);
    if !file.exists() {
        return Ok(false);
    }
    let (ruleset, _) = read(state_dir).ok_or_else(|| {
        HostError::Refused(format!("{} is damaged: start the agent once, it writes it anew", file.display()))
    })?;
    // A file of an older agent has no filters.
    if let Some(Ok(wanted)) = ruleset.get("traffic_control").cloned().map(serde_json::from_value) {
        Filters::default().apply(&wanted, true);
    }
    load(&ruleset)?;
    Ok(true)
}

/// What was loaded and how it was listed; `None` when there is nothing usable.
pub(super) fn read(state_dir: &Path) -> Option<(Value, Value)> {
    let text = fs::read(path(state_dir)).ok()?;
    let mut saved: Value = serde_json::from_slice(&text).ok()?;
    // Without these rules nft would take the file, load nothing and say nothing.
    saved.pointer("/ruleset/inet/nftables").and_then(Value::as_array).filter(|rules| !rules.is_empty())?;
    Some((saved.get_mut("ruleset")?.take(), saved.get_mut("listing")?.take()))
}

/// Atomically: a torn file would leave a rebooting node without its guard.
pub(super) fn write(state_dir: &Path, ruleset: &Value, listing: &Value) -> Result<(), HostError> {
    let target = path(state_dir);
    let write = || {
        fs::create_dir_all(state_dir)?;
        let draft = target.with_extension("new");
        let mut file = fs::File::create(&draft)?;
        file.write_all(json!({ "ruleset": ruleset, "listing": listing }).to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &target)
    };
    write().map_err(|error| HostError::State { path: target.clone(), error })
}

pub(super) fn remove(state_dir: &Path) -> Option<String> {
    let file = path(state_dir);
    fs::remove_file(&file).ok().map(|()| format!("file {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_rules_is_damaged_and_not_a_guard_that_guards_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for ruleset in [json!(null), json!({}), json!({ "inet": null }), json!({ "inet": { "nftables": [] } })] {
            write(dir.path(), &ruleset, &json!([])).unwrap();
            assert!(read(dir.path()).is_none(), "{ruleset}");
            assert!(load_saved(dir.path()).is_err(), "{ruleset}");
        }
        assert!(!load_saved(&dir.path().join("elsewhere")).unwrap());
    }
}
