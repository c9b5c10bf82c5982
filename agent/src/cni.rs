//! What Warren puts into the folder of the node's CNI configurations: `warren-gate` behind the plugins of the CNI, and, for
//! nodes without a CNI, a network. Everything is a file of its own, looked at again and again, and gone by `warren cleanup`.
//!
//! No file of a CNI is ever changed: the gate stands in a copy that comes before the CNI's own file by name, and follows
//! it. A CNI that writes its file anew when the node boots, as most do, does not take the gate out by that.

mod chain;
mod folder;
mod network;
mod written;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

pub use folder::{configurations, read};
pub use network::Network;

use crate::gate::PLUGIN;
use folder::{GATE_FILE, NETWORK_FILE};
use written::Written;

/// Where container runtimes look for plugins, unless `cni.bin_dir` says otherwise.
pub const BIN_DIR: &str = "/opt/cni/bin";

/// What there shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Holds the configurations.
    pub folder: PathBuf,
    /// Holds the plugins.
    pub plugins: PathBuf,
    /// Holds the list of what was written there.
    pub state_dir: PathBuf,
    /// Whether Pods wait for the guard.
    pub gate: bool,
    /// The network of a node without a CNI.
    pub network: Option<Network>,
}

impl Wanted {
    /// Brings the folder in line; gives what keeps it from being so, one sentence each. The guard must stand.
    pub fn keep(&self) -> Vec<String> {
        let of = |key: &'static str| move |why: String| format!("{key}: {why}");
        let network = self.keep_network().err().map(of("cni.install"));
        let gate = self.keep_gate().err().map(of("cni.gate"));
        network.into_iter().chain(gate).collect()
    }

    fn keep_network(&self) -> Result<(), String> {
        let path = self.folder.join(NETWORK_FILE);
        let Some(network) = &self.network else { return self.take_back(&path, is_our_network(&path)) };
        if network.cidrs.is_empty() {
            return Err(
                "this node has no prefix yet: node.cidrs must list it, or be [] or \"auto\" with etcd".to_owned()
            );
        }
        if path.exists() && !is_our_network(&path) {
            return Err(format!("{} is somebody else's, and is left alone: remove or rename it", path.display()));
        }
        if let Some(other) = configurations(&self.folder).map_err(|error| unreadable(&self.folder, &error))?.first() {
            let there = if path.exists() { "" } else { ", and none is made" };
            let (other, path) = (other.display(), path.display());
            return Err(format!("{other} is another CNI's{there}: remove it, or set cni.install = false ({path})"));
        }
        self.runs(network::PLUGINS.into_iter().chain(self.gate.then_some(PLUGIN)))?;
        let text = network::configuration(network, self.gate)?;
        self.write(&path, &text, 0o644)
    }

    fn keep_gate(&self) -> Result<(), String> {
        let path = self.folder.join(GATE_FILE);
        if !self.gate {
            return self.take_back(&path, true);
        }
        let Some(source) = self.source()? else {
            return match path.exists() {
                true => Err(format!("the CNI's configuration is gone; {} holds what it said last", path.display())),
                false => Err(format!("{} holds no CNI configuration yet; it is looked for", self.folder.display())),
            };
        };
        let shown = source.display();
        let text = read(&source).map_err(|error| unreadable(&source, &error))?;
        if chain::has_gate(&text) {
            return self.take_back(&path, true);
        }
        if source < path {
            return Err(format!(
                "{shown} comes before {GATE_FILE} by name, and so counts: rename it, or put {PLUGIN} into it"
            ));
        }
        let gated = chain::with_gate(&text).map_err(|why| format!("{shown}: {why}"))?;
        self.runs([PLUGIN])?;
        self.write(&path, &gated, folder::mode(&source))
    }

    /// The configuration that counts, but for the copy.
    fn source(&self) -> Result<Option<PathBuf>, String> {
        let ours = self.folder.join(NETWORK_FILE);
        let others = configurations(&self.folder).map_err(|error| unreadable(&self.folder, &error))?;
        Ok(others.into_iter().chain(ours.exists().then_some(ours)).min())
    }

    /// A runtime refuses every Pod while a plugin of the chain is missing.
    fn runs(&self, programs: impl IntoIterator<Item = &'static str>) -> Result<(), String> {
        let lacking = folder::lacking(&self.plugins, programs);
        if lacking.is_empty() {
            return Ok(());
        }
        let (names, folder) = (lacking.join(", "), self.plugins.display());
        Err(format!("{folder} lacks {names}, and without it no Pod would start: copy it there, or set cni.bin_dir"))
    }

    /// Removes what this agent wrote; another one's, on the same host, is not its to touch.
    fn take_back(&self, path: &Path, ours: bool) -> Result<(), String> {
        let written = Written::of(&self.state_dir);
        let listed = written.files().map_err(|error| unreadable(written.path(), &error))?;
        if !ours || !listed.contains(path) {
            return Ok(());
        }
        withdraw(path)?;
        written.strike(path).map_err(|error| unwritable(written.path(), &error))
    }

    fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), String> {
        let (shown, written) = (path.display(), Written::of(&self.state_dir));
        written.add(path).map_err(|error| unwritable(written.path(), &error))?;
        let written = folder::write(path, text, mode);
        if written.map_err(|error| format!("{shown} cannot be written: {error}: is the folder mounted read-only?"))? {
            tracing::info!(file = %shown, "wrote the CNI's configuration");
        }
        Ok(())
    }
}

/// Removes what is ours, and names it. The gate must be gone before the guard is, or no Pod would start.
///
/// # Errors
/// When something that is ours cannot be seen or removed, or when somebody else's configuration has the gate in it.
pub fn remove(folder: &Path, state_dir: &Path) -> Result<Vec<String>, String> {
    let written = Written::of(state_dir);
    let listed = written.files().map_err(|error| unreadable(written.path(), &error))?;
    let mut folders = BTreeSet::from([folder]);
    for path in &listed {
        folders.insert(path.parent().filter(|folder| folder.is_dir()).ok_or_else(|| unseen(path, &written))?);
    }
    folders.into_iter().try_for_each(refuse_gates_of_others)?;
    let usual = [GATE_FILE, NETWORK_FILE].map(|name| folder.join(name));
    let mut removed = Vec::new();
    for path in listed.iter().cloned().chain(usual) {
        if !path.ends_with(NETWORK_FILE) || is_our_network(&path) {
            removed.extend(withdraw(&path)?);
        }
        written.strike(&path).map_err(|error| unwritable(written.path(), &error))?;
    }
    Ok(removed)
}

fn refuse_gates_of_others(folder: &Path) -> Result<(), String> {
    let others = configurations(folder).map_err(|error| unreadable(folder, &error))?;
    let Some(path) = others.iter().find(|path| read(path).is_ok_and(|text| chain::has_gate(&text))) else {
        return Ok(());
    };
    let path = path.display();
    Err(format!("{path} has {PLUGIN} in it, and without the guard no Pod would start: take it out there first"))
}

fn unseen(path: &Path, written: &Written) -> String {
    let (path, list) = (path.display(), written.path().display());
    format!(
        "{path} was written by the agent ({list}), and its folder is not seen from here: mount it; the file must go before \
         the guard, or no Pod would start. If the folder itself is gone, remove the list"
    )
}

fn withdraw(path: &Path) -> Result<Option<String>, String> {
    let shown = path.display();
    match folder::remove(path) {
        Ok(true) => {
            tracing::info!(file = %shown, "removed the CNI's configuration");
            Ok(Some(format!("file {shown}")))
        }
        Ok(false) => Ok(None),
        Err(error) => Err(format!("{shown} cannot be removed: {error}: remove it by hand, before the guard goes")),
    }
}

fn is_our_network(path: &Path) -> bool {
    read(path).is_ok_and(|text| chain::name(&text).as_deref() == Some(network::NAME))
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be written: {error}", path.display())
}

#[cfg(test)]
mod tests;
