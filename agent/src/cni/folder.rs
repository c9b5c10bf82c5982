//! The folder of the node's CNI configurations: what is there, and the files of ours in it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The CNI's own configuration with the gate in it: first by name, which is the one that runtimes take.
pub(super) const GATE_FILE: &str = "00-warren-gate.conflist";
/// The network of nodes that have no CNI.
pub(super) const NETWORK_FILE: &str = "10-warren.conflist";
/// No configuration is longer.
const FILE_MAX: u64 = 1 << 20;

/// Other people's configurations, as runtimes order them: the first is the one that counts.
///
/// # Errors
/// When the folder cannot be read; one that is not there is empty.
pub fn configurations(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    let is_configuration = |path: &PathBuf| {
        let end = path.extension().and_then(|end| end.to_str());
        matches!(end, Some("conflist" | "conf" | "json"))
    };
    let is_ours = |path: &PathBuf| [GATE_FILE, NETWORK_FILE].iter().any(|ours| path.ends_with(ours));
    paths.retain(|path| is_configuration(path) && !is_ours(path));
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if is_file(&path)? {
            files.push(path);
        }
    }
    Ok(files)
}

/// A link that leads out of what is mounted here counts for the runtime, which sees where: not to be passed over.
fn is_file(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_file()),
        Err(_) if fs::symlink_metadata(path).is_err() => Ok(false),
        Err(error) => Err(io::Error::new(error.kind(), format!("{} is a link to nowhere: {error}", path.display()))),
    }
}

/// The whole file.
///
/// # Errors
/// When it cannot be read, or is no configuration by its size.
pub fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    fs::read_to_string(path)
}

/// Writes a file unless it is so already; true when it was not. At once, since runtimes watch the folder; the draft has a
/// name that they do not read.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    if read(path).is_ok_and(|found| found == text) {
        if self::mode(path) != mode {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        return Ok(false);
    }
    let draft = draft(path);
    let mut file = File::create(&draft)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path).map(|()| true)
}

fn draft(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Removes a file, and its draft if a crash left one; false when there was none.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    let _ = fs::remove_file(draft(path));
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        // A folder that cannot be written is no failure where there is nothing to remove.
        Err(_) if !path.exists() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who may read it.
pub(super) fn mode(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o777)
}

/// The programs that are not in the runtime's folder, of those that a chain names.
pub(super) fn lacking<'a>(folder: &Path, programs: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let runs = |name: &&str| {
        fs::metadata(folder.join(name)).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    programs.into_iter().filter(|name| !runs(name)).collect()
}
