//! Which prefixes the host's CNI gave to this node, as the files say that CNIs leave on every node; and watching them.
//!
//! Reads only, and never guesses: a CNI that gives a node no prefix of its own, or does not say it in a file, is named, and
//! the node has none. What only the API server knows (Node.spec.podCIDRs, Calico's blocks, Cilium's nodes) is asked by
//! `registry::kubernetes::prefixes`, not here. Another file is another [`Source`], looked for in [`look`].

mod conflist;
mod given;
mod subnet_env;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::cni::{configurations, read};
use conflist::Silent;
pub use given::Given;
pub use watch::run;

/// Where CNIs put their configuration, unless `node.cni_dir` says otherwise.
pub const CNI_DIR: &str = "/etc/cni/net.d";
/// Where Flannel says what it gave, unless `node.flannel_file` says otherwise.
pub const FLANNEL_FILE: &str = "/run/flannel/subnet.env";

/// Who is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Whichever of the others is there.
    Any,
    /// The ranges of host-local in the CNI's configuration.
    Cni,
    /// Flannel's `subnet.env`.
    Flannel,
    /// `spec.podCIDRs` of the Node.
    Kubernetes,
    /// Calico's block affinities.
    Calico,
    /// The CiliumNode.
    Cilium,
}

impl Source {
    /// Whether only the API server knows.
    pub fn is_remote(self) -> bool {
        matches!(self, Self::Kubernetes | Self::Calico | Self::Cilium)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "auto",
            Self::Cni => "cni",
            Self::Flannel => "flannel",
            Self::Kubernetes => "kubernetes",
            Self::Calico => "calico",
            Self::Cilium => "cilium",
        })
    }
}

/// A source, with the places where it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Where {
    /// Who is believed.
    pub source: Source,
    /// Holds the CNI's configuration.
    pub cni_dir: PathBuf,
    /// Flannel's file.
    pub flannel_file: PathBuf,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// At least one; none where the API server says that this node has none yet. Files take nothing away.
    pub given: Given,
    /// The file, or the objects, that say so.
    pub from: String,
    /// Whose API server says so, where one does.
    pub cluster: Option<String>,
    /// What of this node's addresses is not among them, and what to do.
    pub lacking: Option<String>,
}

impl Found {
    fn by(path: &Path, cidrs: BTreeSet<IpNet>) -> Self {
        Self {
            given: Given { cidrs, ..Given::default() },
            from: path.display().to_string(),
            cluster: None,
            lacking: None,
        }
    }
}

/// What the files say now.
///
/// # Errors
/// One sentence: what, where, what to do.
pub fn look(place: &Where) -> Result<Found, String> {
    let flannel = || flannel(&place.flannel_file);
    match place.source {
        Source::Cni => cni(&place.cni_dir).map_err(|nothing| nothing.to_string()),
        Source::Flannel => flannel(),
        Source::Any => match cni(&place.cni_dir) {
            Ok(found) => Ok(found),
            Err(Nothing::Silent(_, Silent::Flannel)) => flannel(),
            Err(nothing @ Nothing::Silent(..)) => Err(nothing.to_string()),
            // Flannel may have its configuration elsewhere, as k3s does.
            Err(nothing) => flannel().map_err(|also| format!("{nothing}; and {also}")),
        },
        Source::Kubernetes | Source::Calico | Source::Cilium => {
            Err(format!("the API server has not said yet which prefixes are this node's (\"{}\")", place.source))
        }
    }
}

/// Why a CNI's configuration gives no prefix.
enum Nothing {
    None(PathBuf),
    Unreadable(PathBuf, io::Error),
    Silent(PathBuf, Silent),
}

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(folder) => write!(
                f,
                "{} holds no CNI configuration yet (*.conflist, *.conf, *.json): it is looked for until there is one; \
                 node.cni_dir names another folder",
                folder.display()
            ),
            Self::Unreadable(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            Self::Silent(path, why) => write!(f, "{}: {why}", path.display()),
        }
    }
}

/// The first configuration by name, which is the one that container runtimes use; those that Warren writes aside.
fn cni(folder: &Path) -> Result<Found, Nothing> {
    let path = first(folder)?;
    let text = read(&path).map_err(|error| Nothing::Unreadable(path.clone(), error))?;
    match conflist::prefixes(&text) {
        Ok(cidrs) => Ok(Found::by(&path, cidrs)),
        Err(silent) => Err(Nothing::Silent(path, silent)),
    }
}

fn first(folder: &Path) -> Result<PathBuf, Nothing> {
    let all = configurations(folder).map_err(|error| Nothing::Unreadable(folder.to_owned(), error))?;
    all.into_iter().next().ok_or_else(|| Nothing::None(folder.to_owned()))
}

fn flannel(path: &Path) -> Result<Found, String> {
    let shown = path.display();
    let text = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!(
                "{shown} is not there yet: Flannel writes it when it has a subnet, and it is looked for"
            ));
        }
        text => text.map_err(|error| format!("{shown} cannot be read: {error}"))?,
    };
    let cidrs = subnet_env::prefixes(&text).map_err(|what| format!("{shown}: {what}"))?;
    Ok(Found::by(path, cidrs))
}

#[cfg(test)]
mod tests;
