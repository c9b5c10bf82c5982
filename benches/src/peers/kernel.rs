//! What the kernel carries alone: the bare wire, and VXLAN. Neither protects anything.

use super::Tunnel;
use crate::Result;
use crate::world::World;

/// The wire itself, with the tunnel addresses on it.
pub(super) fn veth(world: &World) -> Result<Tunnel> {
    for number in world.numbers() {
        let pods = world.pod_route(number, &format!("via 10.77.0.{}", 3u8.saturating_sub(number)));
        world.node(number).ip(&format!("addr add 10.88.0.{number}/24 dev eth0\n{pods}"))?;
    }
    Ok(Tunnel::default())
}

/// VXLAN between the two nodes; on a device, or wherever routing rules lead.
pub(super) fn vxlan(world: &World, device: Option<&str>) -> Result<Tunnel> {
    let device = device.map(|device| format!(" dev {device}")).unwrap_or_default();
    for number in [1, 2] {
        let (other, mtu) = (3 - number, world.mtu);
        let pods = world.pod_route(number, &format!("via 10.88.0.{other}"));
        world.node(number).ip(&format!(
            "link add vxlan0 mtu {mtu} type vxlan id 42 local 10.77.0.{number} remote 10.77.0.{other} dstport 4789{device}\n\
             addr add 10.88.0.{number}/24 dev vxlan0\nlink set vxlan0 up\n{pods}"
        ))?;
    }
    Ok(Tunnel::default())
}
