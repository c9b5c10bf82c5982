//! A volume as a kubelet keeps it for a Pod, of a Secret or a service account: its files are links into a folder, and
//! all of them change at once when another folder takes that one's place.

use std::cell::Cell;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::secret::write_secret;
use crate::{ApiServer, Node};

/// Files of a node that are mounted into its agent's container.
#[derive(Debug)]
pub struct Volume {
    folder: PathBuf,
    /// How often it was written.
    written: Cell<u32>,
}

impl Volume {
    /// One with these files.
    pub fn new(node: &Node, name: &str, files: &[(&str, &str)]) -> Self {
        let volume = Self { folder: node.folder().join(name), written: Cell::new(0) };
        std::fs::create_dir_all(&volume.folder).expect("the node's folder is ours");
        volume.write(files);
        volume
    }

    /// What a Pod with this token gets of its service account.
    pub fn service_account(node: &Node, api: &ApiServer, token: &str) -> Self {
        let volume = Self::new(node, "service-account", &[]);
        volume.renew(api, token);
        volume
    }

    /// Puts another token there, as a kubelet does long before the last one ends.
    pub fn renew(&self, api: &ApiServer, token: &str) {
        let authority = std::fs::read_to_string(api.authority().ca_file()).expect("it was drawn");
        self.write(&[("ca.crt", &authority), ("namespace", "warren-system"), ("token", token)]);
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Replaces all of its files at once.
    fn write(&self, files: &[(&str, &str)]) {
        let (last, now) = (self.written.get(), self.written.get() + 1);
        let own = self.folder.join(format!("..{now}"));
        std::fs::create_dir(&own).expect("the folder is ours");
        for (name, text) in files {
            write_secret(&own.join(name), text);
            std::fs::set_permissions(own.join(name), PermissionsExt::from_mode(0o400)).expect("the file is ours");
            // There already, but for the first time.
            let _ = symlink(format!("..data/{name}"), self.folder.join(name));
        }
        let (new, data) = (self.folder.join("..data_tmp"), self.folder.join("..data"));
        symlink(format!("..{now}"), &new).and_then(|()| std::fs::rename(new, data)).expect("the folder is ours");
        let _ = std::fs::remove_dir_all(self.folder.join(format!("..{last}")));
        self.written.set(now);
    }
}
