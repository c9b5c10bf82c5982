//! Removes every trace of Warren from the host, also when no agent runs or ever ran.

use super::netlink::Netlink;
use super::plan::TABLES;
use super::{HostError, apply, rule};
use crate::counted::counted;

/// Rules, routes and the device; names what was there.
pub(super) async fn routing(netlink: &Netlink, device: &str, table: u32) -> Result<Vec<String>, HostError> {
    let mut removed = Vec::new();
    let ours: Vec<_> = netlink.rules().await?.into_iter().filter(rule::is_ours).collect();
    if !ours.is_empty() {
        removed.push(counted(ours.len(), "rule"));
    }
    for message in ours {
        netlink.delete_rule(message).await?;
    }
    for table in table..table + TABLES {
        let ours: Vec<_> = netlink.routes(table).await?.into_iter().filter(apply::is_ours).collect();
        if !ours.is_empty() {
            removed.push(format!("{} in table {table}", counted(ours.len(), "route")));
        }
        for message in ours {
            netlink.delete_route(message).await?;
        }
    }
    if let Some(link) = netlink.link(device).await?.filter(|link| link.kind == "tun") {
        netlink.delete_link(&link).await?;
        removed.push(format!("device {device}"));
    }
    Ok(removed)
}
