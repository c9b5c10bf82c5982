//! UDP datagrams of chosen sizes, echoed and compared.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;
use crate::sniffer::CANARY;

/// The largest payload of a UDP datagram over IPv4.
pub const LARGEST: usize = 65_507;
/// Of raw sockets to which headers are given.
const IPPROTO_RAW: i32 = 255;
/// How long an echo may take before the datagram is sent again.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a datagram is sent before it counts as lost.
const TRIES: u32 = 6;

/// A socket that sends everything back, until it is dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens on an address of a namespace.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Self {
        Self::start_at(namespace, SocketAddr::new(address, 0))
    }

    /// Listens on an address and port of a namespace.
    pub fn start_at(namespace: &Namespace, address: SocketAddr) -> Self {
        let socket = namespace.enter(|| UdpSocket::bind(address).expect("the address is there"));
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket has a timeout");
        let (address, closed) = (socket.local_addr().expect("it is bound"), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&closed);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        });
        Self { address, closed, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a datagram of `size` bytes comes back unchanged. Datagrams may be lost: it is sent a few times.
#[track_caller]
pub fn echoed(from: &Namespace, to: SocketAddr, size: usize) -> bool {
    from.enter(|| {
        let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).expect("a port is free");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
        let payload: Vec<u8> = CANARY.iter().copied().cycle().take(size).collect();
        (0..TRIES).any(|_| once(&socket, to, &payload))
    })
}

/// Sends datagrams from one socket to another without waiting for anything; how many the kernel took.
#[track_caller]
pub fn send(from: &Namespace, source: IpAddr, to: SocketAddr, count: usize) -> usize {
    from.enter(|| {
        let socket = UdpSocket::bind((source, 0)).expect("the source address is there");
        (0..count).filter(|_| socket.send_to(&CANARY, to).is_ok()).count()
    })
}

/// Sends one datagram with a source that is not the sender's, routed by its destination alone. So routes IPVS what it
/// has translated, and so routes the kernel what comes with headers of its own (raw(7)).
#[track_caller]
pub fn send_routed_by_destination(from: &Namespace, source: Ipv4Addr, to: SocketAddrV4) {
    let length = u16::try_from(8 + CANARY.len()).expect("it is short");
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets().into_iter().chain(to.ip().octets()));
    // From the port that is asked; without a checksum, which UDP over IPv4 may leave out.
    packet.extend([to.port(), to.port(), length, 0].into_iter().flat_map(u16::to_be_bytes));
    packet.extend(CANARY);
    from.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW))).expect("root may");
        // Rules may refuse it: whoever waits for it sees that.
        let _ = socket.send_to(&packet, &SocketAddr::V4(to).into());
    });
}

fn once(socket: &UdpSocket, to: SocketAddr, payload: &[u8]) -> bool {
    // An earlier packet's ICMP error may be reported here; then it is sent again.
    if socket.send_to(payload, to).is_err() {
        std::thread::sleep(Duration::from_millis(20));
        return false;
    }
    let mut buffer = vec![0; 1 << 16];
    matches!(socket.recv_from(&mut buffer), Ok((len, _)) if buffer[..len] == *payload)
}
