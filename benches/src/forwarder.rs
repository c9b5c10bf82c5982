//! The ceiling: one TUN, one UDP socket, one fixed peer, superpackets both ways, no cryptography. See FORWARDER.md.
//!
//! A thread for each direction. Datagrams have the shape of WireGuard's data message: 16 bytes of header, the packet,
//! 16 bytes where the tag would be. There is no handshake, replay window, source check or timer, so nothing that
//! protects its traffic; it exists to be measured against, and is frozen: it changes only to correct a fault.

mod checksum;
mod inbound;
mod layout;
mod outbound;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Bytes before the packet: type, receiver index, counter.
const HEADER_LEN: usize = 16;
/// Bytes behind the packet, where an AEAD would leave its tag.
const TAG_LEN: usize = 16;
/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h).
const VNET_LEN: usize = 10;
const VNET_NEEDS_CSUM: u8 = 1;
const VNET_TCPV4: u8 = 1;
const VNET_TCPV6: u8 = 4;
const VNET_UDP_L4: u8 = 5;
/// Most segments in one call (UDP_MAX_SEGMENTS before Linux 6.9).
const SEGMENTS_MAX: usize = 64;
/// Most bytes in one call (UDP over IPv4).
const TRAIN_MAX: usize = 65_507;
/// TCP (IANA protocol numbers).
const TCP: u8 = 6;
/// UDP.
const UDP: u8 = 17;

/// What to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the TUN device, which is made.
    pub device: String,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// The local UDP address.
    pub listen: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
}

/// Forwards until something fails.
///
/// # Errors
/// The first refusal of the kernel that is not about one packet.
pub fn run(options: &Options) -> io::Result<()> {
    let device = Arc::new(
        DeviceBuilder::new()
            .name(&options.device)
            .mtu(options.mtu)
            .packet_information(false)
            .offload(true)
            .build_sync()?,
    );
    let socket = Arc::new(open_socket(options)?);
    device.set_nonblocking(true)?;
    let sender = {
        let (device, socket) = (Arc::clone(&device), Arc::clone(&socket));
        thread::Builder::new().name("outbound".into()).spawn(move || outbound::run(&device, &socket))?
    };
    inbound::run(&device, &socket)?;
    sender.join().unwrap_or_else(|_| Err(io::Error::other("the outbound thread panicked")))
}

fn open_socket(options: &Options) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(options.listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&options.listen.into())?;
    socket.connect(&options.peer.into())?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    setsockopt(&socket, sockopt::SndBufForce, &(8 << 20))?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    Ok(socket.into())
}

/// Waits until the device has a packet.
fn wait_readable(device: &SyncDevice) -> io::Result<()> {
    match poll(&mut [PollFd::new(device.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// True for refusals that concern one packet or pass: the peer is not there yet, the device is down, a queue is full.
fn passes(error: &io::Error) -> bool {
    use nix::libc::{EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE, ENETUNREACH, ENOBUFS};
    let of_one_packet = [EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE, ENETUNREACH, ENOBUFS];
    error.raw_os_error().is_some_and(|code| of_one_packet.contains(&code))
}
