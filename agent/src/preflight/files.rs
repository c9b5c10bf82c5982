//! Folders and files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Finding;

pub(super) fn state_dir(path: &Path) -> Finding {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            Finding::fatal(format!("{shown} is no folder"), "move it away, or set node.state_dir")
        }
        Ok(found) if found.permissions().mode() & 0o077 != 0 => Finding::warning(
            format!("the state folder {shown} is open to others (mode {:o})", found.permissions().mode() & 0o777),
            format!("chmod 0700 {shown}"),
        ),
        Ok(_) => Finding::fine(format!("state folder {shown}")),
        Err(_) => match path.ancestors().find(|ancestor| ancestor.exists()).map(fs::metadata) {
            Some(Ok(found)) if !found.permissions().readonly() => {
                Finding::fine(format!("state folder {shown} (to be made)"))
            }
            _ => Finding::fatal(
                format!("the state folder {shown} cannot be made"),
                "make it (mode 0700), or set node.state_dir",
            ),
        },
    }
}

/// Nothing to say about a key that is still to be made.
pub(super) fn key(path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let shown = path.display();
    Some(if mode & 0o077 == 0 {
        Finding::fine(format!("private key {shown}"))
    } else {
        Finding::fatal(
            format!("the private key {shown} is readable by others (mode {mode:o})"),
            format!("chmod 0600 {shown}; if others had access, replace it: `warren keygen`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("private.key");
        assert_eq!(key(&path), None);
        fs::write(&path, "secret").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("mode");
        let finding = key(&path).expect("it is there");
        assert!(
            finding.is_fatal() && finding.to_string().contains("chmod 0600") && !finding.to_string().contains("secret")
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        assert!(key(&path).expect("it is there").ok);
    }

    #[test]
    fn a_state_folder_open_to_others_is_a_warning_and_a_file_in_its_place_is_fatal() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        let finding = state_dir(folder.path());
        assert!(!finding.ok && !finding.is_fatal(), "{finding}");
        assert!(state_dir(&folder.path().join("new/deep")).ok);
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(state_dir(&file).is_fatal());
    }
}
