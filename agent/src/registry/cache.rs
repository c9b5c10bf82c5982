//! The last good mesh on disk, so that a node that boots while the store is down still joins its peers, and so that a
//! wiped store cannot hand a live CIDR to another node. It holds nothing secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use warren_overlay::mesh::{Ownership, Snapshot};

use crate::proven::Proven;

/// Larger than 5,000 records with their allocations.
const FILE_MAX: u64 = 64 << 20;
const FILE: &str = "mesh.json";

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// The last snapshot.
    pub snapshot: Option<Snapshot>,
    /// Who owned what.
    pub ownership: Ownership,
    /// With whom a tunnel has stood.
    #[serde(default)]
    pub proven: Proven,
    /// Which cluster's API server said this node's prefixes, where one is asked.
    #[serde(default)]
    pub api_server: Option<String>,
}

/// Why the file cannot be used. Never fatal: the agent starts without.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system said no.
    #[error("the remembered mesh {path} cannot be {action}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// Not what was written.
    #[error("the remembered mesh {path} is damaged ({cause}): it is ignored until the next write")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        cause: serde_json::Error,
    },
}

/// Reads and writes `mesh.json` in the state directory.
pub struct Cache;

impl Cache {
    /// Reads it; `None` when there is none.
    ///
    /// # Errors
    /// Unreadable or damaged files.
    pub fn load(state_dir: &Path) -> Result<Option<Cached>, CacheError> {
        let path = state_dir.join(FILE);
        let failed = |cause| CacheError::Io { path: path.clone(), action: "read", cause };
        let file = match File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        if file.metadata().map_err(failed)?.len() > FILE_MAX {
            return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        let text = fs::read(&path).map_err(failed)?;
        serde_json::from_slice(&text).map(Some).map_err(|cause| CacheError::Damaged { path, cause })
    }

    /// Writes it: beside, synced, renamed, the folder synced.
    ///
    /// # Errors
    /// A full or read-only disk.
    pub fn store(state_dir: &Path, cached: &Cached) -> Result<(), CacheError> {
        let path = state_dir.join(FILE);
        let failed = |cause| CacheError::Io { path: path.clone(), action: "written", cause };
        let draft = path.with_extension("new");
        let text = serde_json::to_vec(cached).map_err(|cause| failed(cause.into()))?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&draft, &path).map_err(failed)?;
        // Else a power loss may bring back what was there before, a cluster that was not strict yet.
        File::open(state_dir).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Cache::load(dir.path()).unwrap().is_none());
        let cached = Cached { snapshot: Some(Snapshot { revision: 7, ..Snapshot::default() }), ..Cached::default() };
        Cache::store(dir.path(), &cached).unwrap();
        assert_eq!(Cache::load(dir.path()).unwrap(), Some(cached));
        fs::write(dir.path().join(FILE), "{\"snap").unwrap();
        assert!(matches!(Cache::load(dir.path()), Err(CacheError::Damaged { .. })));
    }
}
