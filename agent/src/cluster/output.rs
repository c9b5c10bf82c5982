//! A file for a secret: new, readable by its owner alone, and gone again unless it was written.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// An empty file that is ours.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    /// `None` once it is written.
    file: Option<File>,
}

impl Output {
    /// Makes the file before anything else is done, since what goes into it may exist only once.
    ///
    /// # Errors
    /// When it exists, or cannot be made.
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                format!("{} exists and is not overwritten: remove it, or give another --output", path.display())
            }
            _ => format!("{} cannot be made: {error}", path.display()),
        })?;
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }

    /// Writes it, to the disk.
    ///
    /// # Errors
    /// What the system says; the file is removed then.
    pub(super) fn write(mut self, text: &str) -> Result<(), String> {
        let write = |file: &mut File| -> io::Result<()> {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        if let Some(file) = &mut self.file {
            write(file).map_err(|error| format!("{} cannot be written: {error}", self.path.display()))?;
        }
        self.file = None;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.is_some() {
            // There is nothing in it, or half of it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
