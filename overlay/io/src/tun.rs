//! The TUN device: opened and configured by tun-rs, read and written here, since whole superpackets pass.
//!
//! Every frame starts with a vnet header of [`VNET_HDR_LEN`] bytes (include/uapi/linux/virtio_net.h), also on kernels that
//! refuse offloads: there the header is made up here and never reaches the kernel.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};

use tun_rs::{DeviceBuilder, SyncDevice};

/// Length of `struct virtio_net_hdr_v1_hash_tunnel`. Kernels before 6.17 know its first ten bytes only, and skip the rest.
pub const VNET_HDR_LEN: usize = 24;
/// The largest frame: vnet header and a 64 KiB packet.
pub const FRAME_MAX: usize = VNET_HDR_LEN + 65_536;

// include/uapi/linux/if_tun.h
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;
const TUN_F_UDP_TUNNEL_GSO: libc::c_ulong = 0x80;
const TUN_F_UDP_TUNNEL_GSO_CSUM: libc::c_ulong = 0x100;

/// What to open.
#[derive(Clone, Debug)]
pub struct TunConfig {
    /// Device name, at most 15 bytes.
    pub name: String,
    /// Inner MTU, bytes.
    pub mtu: u16,
    /// Queues, one per worker; at least 1.
    pub queues: usize,
    /// Take TCP superpackets from the kernel.
    pub tso: bool,
    /// Take UDP superpackets from the kernel (Linux 6.2), with `tso` also those inside of UDP tunnels (Linux 6.17).
    pub uso: bool,
}

/// An open device: its queues and the offloads that the kernel granted.
pub struct Tun {
    /// One per worker.
    pub queues: Vec<TunQueue>,
    /// TCP segmentation offload is on.
    pub tso: bool,
    /// UDP segmentation offload is on.
    pub uso: bool,
}

/// One queue of the device. One thread reads it, any may write; the device goes when its last queue is dropped.
pub struct TunQueue {
    device: SyncDevice,
    vnet: bool,
}

impl Tun {
    /// Opens the device, non-blocking, with as many of the wanted offloads as the kernel has.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN or without access to /dev/net/tun; `EBUSY` when the name is taken.
    pub fn open(config: &TunConfig) -> io::Result<Self> {
        if is_held(&config.name) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let first = Self::build(config, true).or_else(|error| match error.raw_os_error() {
            // The kernel knows no vnet header or none of the offloads.
            Some(libc::EINVAL | libc::ENOTTY) => Self::build(config, false),
            _ => Err(error),
        })?;
        let vnet = first.tcp_gso();
        let mut devices = vec![first];
        while devices.len() < config.queues.max(1) {
            devices.push(devices[0].try_clone()?);
        }
        let queues: Vec<_> = devices.into_iter().map(|device| TunQueue { device, vnet }).collect();
        for queue in &queues {
            set_nonblocking(queue.as_raw_fd())?;
        }
        if vnet {
            set_header_len(&queues[0])?;
        }
        let (tso, uso) = if vnet { grant_offloads(&queues[0], config)? } else { (false, false) };
        Ok(Self { queues, tso, uso })
    }

    fn build(config: &TunConfig, offload: bool) -> io::Result<SyncDevice> {
        DeviceBuilder::new()
            .name(config.name.as_str())
            .mtu(config.mtu)
            .multi_queue(true)
            .packet_information(false)
            .offload(offload)
            .enable(false)
            .build_sync()
    }
}

/// A device with several queues lets any program attach one more, which would take its share of the packets. One that
/// does not persist (`IFF_PERSIST`, include/uapi/linux/if_tun.h) exists only while somebody holds it.
fn is_held(name: &str) -> bool {
    const IFF_PERSIST: u32 = 0x0800;
    let flags = std::fs::read_to_string(format!("/sys/class/net/{name}/tun_flags")).unwrap_or_default();
    let flags = flags.trim().strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
    flags.is_some_and(|flags| flags & IFF_PERSIST == 0)
}

impl TunQueue {
    /// Reads one frame into `buf` (at least [`FRAME_MAX`] bytes): vnet header, then packet. Gives the frame's length.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is empty.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        if self.vnet {
            return self.device.recv(buf);
        }
        let (header, packet) = buf.split_at_mut(VNET_HDR_LEN);
        header.fill(0);
        Ok(VNET_HDR_LEN + self.device.recv(packet)?)
    }

    /// Writes one frame given in parts, the first of which is the vnet header alone. At most 1024 parts.
    ///
    /// # Errors
    /// What the kernel says; `EINVAL` for a superpacket that it does not take.
    pub fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let parts = if self.vnet { parts } else { parts.get(1..).unwrap_or_default() };
        // SAFETY: `IoSlice` has the layout of `iovec` (std guarantees it), the parts outlive the call,
        // the count is the slice's length, and the descriptor is open as long as `self.device`.
        let written = unsafe { libc::writev(self.as_raw_fd(), parts.as_ptr().cast(), parts.len() as libc::c_int) };
        if written < 0 { Err(io::Error::last_os_error()) } else { Ok(written as usize) }
    }

    /// Whether the kernel takes frames like this one: it looks at the header first and then at the device, which must not be
    /// up yet (`tun_get_user`, drivers/net/tun.c), so that nothing arrives anywhere.
    pub fn would_take(&self, frame: &[u8]) -> bool {
        let Some((header, packet)) = frame.split_at_checked(VNET_HDR_LEN) else { return false };
        let sent = self.send(&[IoSlice::new(header), IoSlice::new(packet)]);
        sent.map_or_else(|error| error.raw_os_error() == Some(libc::EIO), |_| true)
    }

    /// Whether an error of [`Self::recv`] means that the device is gone, deleted under us (`EBADFD`, drivers/net/tun.c).
    pub fn is_gone(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EBADFD))
    }

    /// True when the kernel takes and gives vnet headers, so that superpackets may be written.
    pub fn has_vnet(&self) -> bool {
        self.vnet
    }
}

impl AsRawFd for TunQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

/// Asks for less and less until the kernel agrees. The mask belongs to the device, not to the queue.
fn grant_offloads(queue: &TunQueue, config: &TunConfig) -> io::Result<(bool, bool)> {
    let tcp = if config.tso { TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN } else { 0 };
    let udp = if config.uso { TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6 } else { 0 };
    let tunnels = tcp | udp | TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM;
    // The kernel writes what it says of tunnels in little endian whatever the machine is, the rest as the machine is.
    let both = tcp != 0 && udp != 0 && cfg!(target_endian = "little");
    if both && set_offloads(queue, tunnels).is_ok() || udp != 0 && set_offloads(queue, tcp | udp).is_ok() {
        return Ok((config.tso, true));
    }
    if tcp != 0 && set_offloads(queue, tcp).is_ok() {
        return Ok((true, false));
    }
    set_offloads(queue, 0)?;
    Ok((false, false))
}

/// The length belongs to the device, not to the queue.
fn set_header_len(queue: &TunQueue) -> io::Result<()> {
    let len = VNET_HDR_LEN as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads an int, which lives through the call; the descriptor is open.
    let rc = unsafe { libc::ioctl(queue.as_raw_fd(), TUNSETVNETHDRSZ, &raw const len) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_offloads(queue: &TunQueue, mask: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes an integer argument, no pointer; the descriptor is open.
    let rc = unsafe { libc::ioctl(queue.as_raw_fd(), TUNSETOFFLOAD, mask) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: fcntl with F_GETFL and F_SETFL takes and gives integers; the descriptor is open.
    let rc = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
