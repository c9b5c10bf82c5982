//! What this agent wrote into the folder of somebody else, listed beside its own state. What is not listed is not its to
//! take away, whatever the name; what is listed must be gone before the guard is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A JSON list of paths, in the agent's state folder.
const FILE: &str = "cni-files.json";

/// The list.
pub(super) struct Written(PathBuf);

impl Written {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self(state_dir.join(FILE))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn files(&self) -> io::Result<BTreeSet<PathBuf>> {
        match fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            read => Ok(serde_json::from_slice(&read?)?),
        }
    }

    /// Before the file is written: a crash in between costs nothing.
    pub(super) fn add(&self, file: &Path) -> io::Result<()> {
        let mut files = self.files()?;
        if files.insert(file.to_owned()) { self.store(&files) } else { Ok(()) }
    }

    /// After the file was removed.
    pub(super) fn strike(&self, file: &Path) -> io::Result<()> {
        let mut files = self.files()?;
        if files.remove(file) { self.store(&files) } else { Ok(()) }
    }

    fn store(&self, files: &BTreeSet<PathBuf>) -> io::Result<()> {
        if files.is_empty() {
            return fs::remove_file(&self.0);
        }
        let draft = self.0.with_extension("new");
        let mut file = fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec(files)?)?;
        file.sync_all()?;
        fs::rename(&draft, &self.0)
    }
}
