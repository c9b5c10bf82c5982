//! Which devices lead to other nodes, and which addresses this node has there: at start, and whenever the host changes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use warren_overlay::mesh::Cluster;

use super::Control;
use crate::config::Config;
use crate::host::Underlay;

impl Control {
    /// Looks again; true when devices, addresses or where VXLAN ends changed. A device is never given up while it exists: it may only be
    /// without an address for the moment, and the guard must not blink.
    pub(super) async fn look_at_underlay(&mut self) -> bool {
        let Ok(found) = self.host.discover(self.config.underlay.devices.as_ref()).await else { return false };
        let overlay = overlay_networks(&self.config, Some(&self.cluster()), &self.mesh.own_cidrs);
        self.gateways.clone_from(&found.gateways);
        let vxlan_changed = self.vxlan != found.vxlan;
        self.vxlan.clone_from(&found.vxlan);
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
        moved | vxlan_changed
    }
}

/// As configured, or what the underlay devices have.
pub(crate) fn node_addresses(config: &Config, underlay: &Underlay) -> BTreeSet<IpAddr> {
    config.node.addresses.clone().unwrap_or_else(|| underlay.addresses())
}

/// Where Pods live, as far as it is known.
pub(crate) fn overlay_networks(config: &Config, cluster: Option<&Cluster>, own: &BTreeSet<IpNet>) -> Vec<IpNet> {
    let listed = config.node.cidrs.known();
    let networks = cluster.iter().flat_map(|cluster| &cluster.networks).chain(&config.overlay.networks);
    networks.chain(&listed).chain(own).copied().collect()
}

/// The underlay without the devices on which Pods live: those that have only addresses of the overlay. The guard would cut the
/// Pods off. Which addresses are given as the node's makes no difference: packets in clear take any way out.
pub(crate) fn without_pods(config: &Config, overlay: &[IpNet], mut underlay: Underlay) -> Underlay {
    if config.underlay.devices.is_some() {
        return underlay;
    }
    let is_outside = |address: &IpAddr| !overlay.iter().any(|network| network.contains(address));
    underlay.devices.retain(|_, device| device.addresses.is_empty() || device.addresses.iter().any(is_outside));
    underlay
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::UnderlayDevice;

    fn device(addresses: &[&str]) -> UnderlayDevice {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        UnderlayDevice { mtu: 1500, addresses }
    }

    #[test]
    fn the_guard_watches_every_way_out_whichever_addresses_are_given() {
        let text = "[node]\nname = \"a\"\naddresses = [\"192.0.2.1\"]\n";
        let config = crate::config::parse(text, Path::new("w.toml")).unwrap();
        let found = [
            ("eth0", device(&["192.0.2.1"])),
            ("eth1", device(&["198.51.100.1"])),
            ("ppp0", device(&[])),
            ("pods", device(&["10.42.1.1"])),
        ];
        let devices = found.map(|(name, device)| (name.to_owned(), device)).into();
        let underlay = Underlay { devices, ..Underlay::default() };
        let guarded = without_pods(&config, &["10.42.0.0/16".parse().unwrap()], underlay);
        assert_eq!(guarded.devices.keys().collect::<Vec<_>>(), ["eth0", "eth1", "ppp0"]);
        assert_eq!(node_addresses(&config, &guarded), ["192.0.2.1".parse().unwrap()].into());
    }
}
