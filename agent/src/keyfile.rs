//! The private key on disk: made once, readable by its owner alone, never replaced silently.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use warren_crypto::{KeyError, PresharedKey, PrivateKey};
use zeroize::Zeroizing;

/// More bytes than any key file holds.
const FILE_MAX: u64 = 4096;

/// Why a key file cannot be used. Never carries its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system said no.
    #[error("the key file {path} cannot be {action}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// Others could have read it.
    #[error(
        "the key file {path} is readable by others (mode {mode:o}): `chmod 600 {path}`, and make a new key if others had access"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else could change it.
    #[error(
        "the key file {path} belongs to user {owner}: `chown root {path}`, and make a new key if others had access"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Larger than any key: read in part, it could pass for another one.
    #[error("the key file {path} is longer than {FILE_MAX} bytes: it holds something else; name the file with the key")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It holds no key.
    #[error(
        "the key file {path} is damaged ({cause}): restore it, or move it away to get a new key (peers then see a new node key)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        cause: KeyError,
    },
}

/// Reads the key, or makes one when there is no file.
///
/// # Errors
/// Exposed, damaged or unreadable files; they are left as they are.
pub fn load_or_create(path: &Path) -> Result<PrivateKey, KeyFileError> {
    match read(path) {
        Err(KeyFileError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => create(path),
        Err(error) => Err(error),
        Ok(text) => text.parse().map_err(|cause| KeyFileError::Damaged { path: path.to_owned(), cause }),
    }
}

/// Reads a preshared key; the same rules, but none is ever made.
///
/// # Errors
/// As [`load_or_create`], and when there is no file.
pub fn load_preshared(path: &Path) -> Result<PresharedKey, KeyFileError> {
    read(path)?.parse().map_err(|cause| KeyFileError::Damaged { path: path.to_owned(), cause })
}

fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |cause| KeyFileError::Io { path: path.clone(), action, cause }
}

/// Whether a file that others read for us (a client key, a password) is there, and for its owner alone. Links are
/// followed: a mounted secret is one.
///
/// # Errors
/// Exposed or unreadable files.
pub fn check_secret(path: &Path) -> Result<(), KeyFileError> {
    let found = fs::metadata(path).map_err(failed(path, "read"))?;
    hold(path, &found)
}

/// Not a pipe or device, ours or root's, and nobody else's to read.
fn hold(path: &Path, found: &fs::Metadata) -> Result<(), KeyFileError> {
    let mode = found.mode() & 0o777;
    if !found.is_file() {
        return Err(failed(path, "read")(io::Error::other("it is no regular file")));
    }
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    let own = nix::unistd::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != own {
        return Err(KeyFileError::Foreign { path: path.to_owned(), owner: found.uid() });
    }
    Ok(())
}

fn read(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    // A pipe would wait for a writer: not opened for waiting, and refused below.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(failed(path, "read"))?;
    hold(path, &file.metadata().map_err(failed(path, "read"))?)?;
    // One byte more than allowed tells; room for it from the start leaves no copy behind.
    let mut text = Zeroizing::new(String::with_capacity(FILE_MAX as usize + 1));
    (&mut file).take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed(path, "read"))?;
    if text.len() as u64 > FILE_MAX {
        return Err(KeyFileError::TooLong { path: path.to_owned() });
    }
    Ok(text)
}

/// Written beside and renamed, so that a crash leaves a whole file or none.
fn create(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir, "created"))?;
    let key = PrivateKey::generate();
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed(&draft, "written"))?;
    file.write_all(key.to_base64().as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .map_err(failed(&draft, "written"))?;
    // A hard link fails where a rename would replace a key that somebody made meanwhile.
    fs::hard_link(&draft, path).map_err(failed(path, "written"))?;
    let _ = fs::remove_file(&draft);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir, "synced"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_ever_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/private.key");
        let first = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().public_key(), first.public_key());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private.key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_create(&path), Err(KeyFileError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private.key");
        fs::write(&path, "c2VjcmV0").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::Damaged { .. }));
        assert!(!error.to_string().contains("c2VjcmV0"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "c2VjcmV0");
    }

    #[test]
    fn a_file_longer_than_any_key_is_refused_and_not_read_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private.key");
        let key = PrivateKey::generate().to_base64();
        let write = |length: usize| {
            fs::write(&path, format!("{:<length$}", key.as_str())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(4096);
        load_or_create(&path).unwrap();
        write(4097);
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyFileError::TooLong { .. }));
        assert!(!error.to_string().contains(key.as_str()));
        assert!(matches!(load_preshared(&path), Err(KeyFileError::TooLong { .. })));
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private.key");
        load_or_create(&dir.path().join("real.key")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("real.key"), &path).unwrap();
        assert!(matches!(load_or_create(&path), Err(KeyFileError::Io { .. })));
    }

    #[test]
    fn a_pipe_is_refused_without_waiting_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private.key");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(load_or_create(&path).unwrap_err().to_string().contains("no regular file"));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        assert!(check_secret(&path).is_err());
        fs::write(&path, "hunter2").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(check_secret(&path), Err(KeyFileError::Exposed { mode: 0o604, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        check_secret(&path).unwrap();
    }
}
