//! What preflight wants to know of the host's network before anything is written.

use std::collections::BTreeSet;
use std::path::Path;

use super::netlink::Netlink;
use super::{Host, HostError, Underlay};

/// The host's network as it is.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Kind of the device that has the name ours shall have; empty for hardware.
    pub device_kind: Option<String>,
    /// The devices that lead to other nodes, with this host's addresses there.
    pub underlay: Underlay,
}

/// Asks the kernel, on a thread of its own so that callers need no runtime and may be on one.
///
/// # Errors
/// When the kernel cannot be asked, has no policy routing, or a configured underlay device is missing.
pub fn survey(device: &str, underlay: Option<&BTreeSet<String>>) -> Result<Survey, HostError> {
    let task = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| HostError::Open { what: "an event loop", error })?;
        runtime.block_on(ask(device, underlay))
    };
    std::thread::scope(|scope| scope.spawn(task).join())
        .unwrap_or_else(|_| Err(HostError::Refused("the survey of the network ended early".into())))
}

async fn ask(device: &str, underlay: Option<&BTreeSet<String>>) -> Result<Survey, HostError> {
    // Nothing is written, so nothing is remembered.
    let host = Host::open(Path::new("/nonexistent"))?;
    let netlink: &Netlink = &host.netlink;
    netlink.rules().await?;
    let device_kind = netlink.link(device).await?.map(|link| link.kind);
    Ok(Survey { device_kind, underlay: host.discover(underlay).await? })
}
