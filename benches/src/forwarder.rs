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

#[cfg(test)]
mod tests {
    use super::layout::Layout;
    use super::{TCP, UDP, checksum, inbound, outbound};

    fn superpacket(v6: bool, protocol: u8, payload: usize) -> Vec<u8> {
        let transport = if protocol == TCP { 32 } else { 8 };
        let mut header =
            if v6 { vec![0x60, 0, 0, 0, 0, 0, protocol, 64] } else { vec![0x45, 0, 0, 0, 0xff, 0xfe, 0x40, 0] };
        header.extend(if v6 {
            (0..32).collect::<Vec<u8>>()
        } else {
            vec![64, protocol, 0, 0, 10, 88, 0, 1, 10, 88, 0, 2]
        });
        let ip = header.len();
        header.resize(ip + transport, 1);
        if protocol == TCP {
            header[ip + 4..ip + 8].copy_from_slice(&0xffff_ff00u32.to_be_bytes());
            header[ip + 12..ip + 14].copy_from_slice(&[0x80, 0x18]);
        }
        header.extend((0..payload).map(|n| (n * 7 / 3) as u8));
        header
    }

    fn segments(packet: &[u8], segment: usize) -> Vec<Vec<u8>> {
        let layout = Layout::of(packet).unwrap();
        let (header, payload) = packet.split_at(layout.headers);
        let write = |(number, slice): (usize, &[u8])| {
            let mut out = vec![0; layout.headers];
            outbound::write_headers(&mut out, header, payload, segment, layout, number);
            out.extend_from_slice(slice);
            out
        };
        payload.chunks(segment).enumerate().map(write).collect()
    }

    #[test]
    fn what_is_cut_has_right_checksums_and_comes_together_again() {
        for (v6, protocol) in [(false, TCP), (true, TCP), (false, UDP), (true, UDP)] {
            let packet = superpacket(v6, protocol, 5000);
            let parts = segments(&packet, 1368);
            assert_eq!(parts.len(), 4);
            for part in &parts {
                let layout = Layout::of(part).unwrap();
                let sum = checksum::sum(&part[layout.ip..]) + layout.pseudo(part, part.len() - layout.ip);
                assert_eq!(checksum::fold(sum), [0xff, 0xff], "transport checksum, IPv6 {v6}, protocol {protocol}");
                assert!(v6 || checksum::fold(checksum::sum(&part[..20])) == [0xff, 0xff], "IPv4 header checksum");
            }
            let mut run = inbound::Run::start(&parts[0]).unwrap();
            assert!(parts[1..].iter().all(|part| run.take(part)));
            let whole = run.whole();
            let headers = Layout::of(&packet).unwrap().headers;
            assert_eq!(whole[headers..], packet[headers..]);
            assert_eq!(whole.len(), packet.len());
            let flags = headers - 19;
            assert!(protocol != TCP || whole[flags] == packet[flags], "ACK and PSH are there again");
        }
    }

    #[test]
    fn a_segment_out_of_order_does_not_continue_the_run() {
        let parts = segments(&superpacket(false, TCP, 5000), 1368);
        let mut run = inbound::Run::start(&parts[0]).unwrap();
        assert!(!run.take(&parts[2]));
        assert!(run.take(&parts[1]));
    }

    #[test]
    fn fragments_and_nonsense_have_no_layout() {
        let mut packet = superpacket(false, TCP, 100);
        packet[6] = 0x20;
        assert_eq!(Layout::of(&packet), None);
        let packet = superpacket(true, UDP, 100);
        assert!((0..48).all(|len| Layout::of(&packet[..len]).is_none()));
    }
}
