//! Which devices lead to other nodes, and which addresses this node has there: at start, and whenever the host changes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use warren_overlay::mesh::Cluster;

use super::Control;
use crate::config::{Cidrs, Config};
use crate::host::Underlay;

impl Control {
    /// Looks again; true when devices or addresses changed. A device is never given up while it exists: it may only be
    /// without an address for the moment, and the guard must not blink.
    pub(super) async fn look_at_underlay(&mut self) -> bool {
        let Ok(found) = self.host.discover(self.config.underlay.devices.as_ref()).await else { return false };
        let overlay = overlay_networks(&self.config, Some(&self.cluster()), &self.mesh.own_cidrs);
        self.gateways.clone_from(&found.gateways);
        let named: BTreeSet<_> = found.devices.keys().cloned().collect();
        let underlay = without_pods(&self.config, &overlay, found);
        let mut devices: BTreeSet<_> = underlay.devices.keys().cloned().collect();
        let stays = |device: &&String| !named.contains(*device) && Path::new("/sys/class/net").join(device).exists();
        devices.extend(self.underlay_devices.iter().filter(stays).cloned());
        let addresses = node_addresses(&self.config, &underlay);
        let moved = !addresses.is_empty() && addresses != self.node_addresses;
        if moved {
            tracing::info!(before = ?self.node_addresses, now = ?addresses, "this node's addresses changed");
            self.node_addresses = addresses;
        }
        if devices != self.underlay_devices {
            tracing::info!(before = ?self.underlay_devices, now = ?devices, "the underlay devices changed");
            self.underlay_devices = devices;
            return true;
        }
        moved
    }
}

/// As configured, or what the underlay devices have.
pub(crate) fn node_addresses(config: &Config, underlay: &Underlay) -> BTreeSet<IpAddr> {
    config.node.addresses.clone().unwrap_or_else(|| underlay.addresses())
}

/// Where Pods live, as far as it is known.
pub(crate) fn overlay_networks(config: &Config, cluster: Option<&Cluster>, own: &BTreeSet<IpNet>) -> Vec<IpNet> {
    let listed = match &config.node.cidrs {
        Cidrs::Listed(cidrs) => cidrs.clone(),
        Cidrs::Auto { .. } | Cidrs::Kubernetes => BTreeSet::new(),
    };
    let networks = cluster.iter().flat_map(|cluster| &cluster.networks).chain(&config.overlay.networks);
    networks.chain(&listed).chain(own).copied().collect()
}

/// The underlay without the devices on which Pods live: those that have none of the node's addresses, where these are
/// given, or only addresses of the overlay. The guard would cut the Pods off.
pub(crate) fn without_pods(config: &Config, overlay: &[IpNet], mut underlay: Underlay) -> Underlay {
    if config.underlay.devices.is_some() {
        return underlay;
    }
    underlay.devices.retain(|_, device| match &config.node.addresses {
        Some(own) => !device.addresses.is_disjoint(own),
        None if device.addresses.is_empty() => true,
        None => device.addresses.iter().any(|address| !overlay.iter().any(|network| network.contains(address))),
    });
    underlay
}
