//! `warren import …`: another program's configuration as ours. Reads one file and writes a folder; touches no device and asks
//! nobody.

mod wg_quick;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::say;
use crate::config;

/// More bytes than such a file has.
const FILE_MAX: u64 = 4 << 20;

/// Whose configuration.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// A file of wg-quick: writes a configuration for the same host, with the same key and peers.
    WgQuick {
        /// The file, as /etc/wireguard/wg0.conf.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Folder for warren.toml, private.key and preshared keys; what is there already is not overwritten.
        #[arg(long, value_name = "FOLDER")]
        output: PathBuf,
    },
}

/// A file to write; all have mode 0600.
struct Draft {
    name: String,
    text: Zeroizing<String>,
}

/// Writes the folder, and says what did not fit.
///
/// # Errors
/// What is wrong, where, and what to do; never a key.
pub fn run(command: &Command) -> Result<u8, String> {
    let Command::WgQuick { file, output } = command;
    let folder = std::path::absolute(output).map_err(|error| format!("--output {}: {error}", output.display()))?;
    let text = read(file)?;
    let imported = wg_quick::import(&text, &folder).map_err(|error| format!("{}:{error}", file.display()))?;
    write(&folder, &imported.drafts)?;
    let written = folder.join("warren.toml");
    for note in &imported.notes {
        say(format_args!("not carried over: {note}"));
    }
    config::load(&written).map_err(|error| format!("it was written, and needs your hand: {error}"))?;
    let file = written.display();
    say(format_args!(
        "{file} is written and valid; next are `warren preflight --config {file}` and `warren up --config {file}`"
    ));
    Ok(0)
}

fn read(file: &Path) -> Result<Zeroizing<String>, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
    if fs::metadata(file).map_err(failed)?.len() > FILE_MAX {
        return Err(format!("{} is larger than any file of wg-quick", file.display()));
    }
    fs::read_to_string(file).map(Zeroizing::new).map_err(failed)
}

/// All or nothing of what is there is known before anything is written.
fn write(folder: &Path, drafts: &[Draft]) -> Result<(), String> {
    let paths: Vec<_> = drafts.iter().map(|draft| folder.join(&draft.name)).collect();
    if let Some(there) = paths.iter().find(|path| path.exists()) {
        return Err(format!("{} is there already: give another --output", there.display()));
    }
    let failed = |path: &Path, error: std::io::Error| format!("{} cannot be written: {error}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(folder, error))?;
    for (path, draft) in paths.iter().zip(drafts) {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(draft.text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| failed(path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
