//! The underlay sockets: one per worker on one port, dual-stack where the host has IPv6, with trains of equal datagrams
//! in one system call (UDP_SEGMENT, UDP_GRO). How they are sent is in `send`,
//! how received in `receive`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::cmsg;
use crate::steer;

/// Most datagrams in one train (kernel UDP_MAX_SEGMENTS before 6.9).
pub const SEGMENTS_MAX: usize = 64;
/// Most bytes in one train (UDP over IPv4).
pub const TRAIN_MAX: usize = 65_507;
/// Wanted socket buffers: 10 Gb/s for about 6 ms.
const SOCKET_BUFFER: usize = 8 << 20;

/// What to bind.
#[derive(Clone, Copy, Debug)]
pub struct UdpConfig {
    /// UDP port, the same for all workers.
    pub port: u16,
    /// Sockets, one per worker.
    pub sockets: usize,
    /// Send trains in one call.
    pub gso: bool,
    /// Receive trains in one call.
    pub gro: bool,
    /// SO_MARK on every datagram, when not zero.
    pub mark: u32,
}

/// Equal datagrams (the last may be shorter) for one destination.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// Local address to send from; `None`: the kernel chooses.
    pub from: Option<IpAddr>,
    /// Length of each datagram but the last.
    pub segment: usize,
    /// The datagrams, one after the other.
    pub payload: &'a [u8],
}

impl Train<'_> {
    pub(crate) fn is_several(&self) -> bool {
        self.payload.len() > self.segment
    }
}

/// What came of a send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams that the kernel refused.
    pub lost: usize,
    /// Of these, larger than the interface takes.
    pub too_big: usize,
    /// The local address is gone: forget it.
    pub source_gone: bool,
    /// The destination or its device takes no trains: send singly for a while.
    pub segmentation_refused: bool,
}

/// Equal datagrams that came from one source.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Where from.
    pub from: SocketAddr,
    /// Our address that they came to.
    pub to: Option<IpAddr>,
    /// Bytes in the buffer.
    pub len: usize,
    /// Length of each datagram but the last; never 0.
    pub segment: usize,
}

/// One worker's socket. One thread uses it for receiving; any may send.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    pub(crate) v6: bool,
    gso: bool,
    gro: bool,
}

/// Binds the sockets of all workers and attaches the steering program.
///
/// # Errors
/// `AddrInUse` when anybody holds the port, another agent included.
pub fn bind(config: &UdpConfig) -> io::Result<Vec<UdpSocket>> {
    let v6 = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
        .is_ok_and(|socket| socket.set_only_v6(false).is_ok())
        && probe(config.port, true).map_or_else(|error| error.kind() == io::ErrorKind::AddrInUse, |()| true);
    probe(config.port, v6)?;
    let sockets = (0..config.sockets.max(1)).map(|_| UdpSocket::open(config, v6)).collect::<io::Result<Vec<_>>>()?;
    if sockets.len() > 1 {
        steer::attach(sockets[0].as_raw_fd(), sockets.len() as u32)?;
    }
    Ok(sockets)
}

/// SO_REUSEPORT would let a second agent take half of our datagrams, so the port is tried without it first.
fn probe(port: u16, v6: bool) -> io::Result<()> {
    let socket = Socket::new(domain(v6), Type::DGRAM, Some(Protocol::UDP))?;
    if v6 {
        socket.set_only_v6(false)?;
    }
    socket.bind(&wildcard(port, v6))
}

/// As every one of our sockets is.
fn unbound(mark: u32, v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(domain(v6), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    let fd = socket.as_raw_fd();
    if v6 {
        socket.set_only_v6(false)?;
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    }
    // A forged ICMP "too big" must change nothing: set DF, ignore the cached path MTU.
    set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
    Ok(socket)
}

fn domain(v6: bool) -> Domain {
    if v6 { Domain::IPV6 } else { Domain::IPV4 }
}

fn wildcard(port: u16, v6: bool) -> SockAddr {
    let address: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(address, port).into()
}

impl UdpSocket {
    fn open(config: &UdpConfig, v6: bool) -> io::Result<Self> {
        let socket = unbound(config.mark, v6)?;
        socket.set_reuse_port(true)?;
        let fd = socket.as_raw_fd();
        if v6 {
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        } else {
            set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        enlarge(&socket);
        socket.bind(&wildcard(config.port, v6))?;
        let gro = config.gro && set(fd, libc::SOL_UDP, cmsg::UDP_GRO, 1).is_ok();
        Ok(Self { socket, v6, gso: config.gso, gro })
    }

    /// A socket to send from beside this one, by a port that the kernel chooses. It receives nothing.
    ///
    /// # Errors
    /// What the kernel says, as when no port is left.
    pub fn outgoing(&self, mark: u32) -> io::Result<Self> {
        let socket = unbound(mark, self.v6)?;
        steer::refuse_all(socket.as_raw_fd())?;
        enlarge(&socket);
        socket.bind(&wildcard(0, self.v6))?;
        Ok(Self { socket, v6: self.v6, gso: self.gso, gro: false })
    }

    /// True while trains leave in one call.
    pub fn gso(&self) -> bool {
        self.gso
    }

    /// True when trains come in one call.
    pub fn gro(&self) -> bool {
        self.gro
    }

    /// The local port.
    ///
    /// # Errors
    /// Never in practice: the socket is bound.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.as_socket().map_or(0, |address| address.port()))
    }

    pub(crate) fn mapped(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(v4) if self.v6 => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
            _ => to,
        }
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Root may exceed net.core.rmem_max; others get what the limit allows.
fn enlarge(socket: &Socket) {
    let fd = socket.as_raw_fd();
    let size = SOCKET_BUFFER as libc::c_int;
    if set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    }
    if set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    }
}

fn set(fd: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is an int that lives through the call, and its size is given.
    let rc = unsafe {
        libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of::<libc::c_int>() as libc::socklen_t)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(crate) fn socket_addr(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in.
            let v4 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(address.into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the storage holds a sockaddr_in6.
            let v6 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(match address.to_ipv4_mapped() {
                Some(v4) => SocketAddr::new(v4.into(), u16::from_be(v6.sin6_port)),
                None => std::net::SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}
