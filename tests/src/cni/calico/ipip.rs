//! `tunl0`, for kernels without IP-in-IP: a TUN device whose packets travel as protocol 4 between the nodes' own
//! addresses (RFC 2003). What leaves the node is what the kernel's own device would send.

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::{IPIP, blocks, tunnel_address};
use crate::Node;

/// IP protocol number of IP-in-IP.
const IPV4: i32 = 4;
/// How often it looks whether it shall end, in milliseconds.
const LOOK: u8 = 50;

/// The device, until it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    closed: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes the device of a node, with its address out of the node's block.
    #[track_caller]
    pub fn start(own: &Node, others: &[&Node]) -> Self {
        let mtu = own.plan().mtu - IPIP;
        let (device, socket) = own.namespace().enter(|| {
            let device =
                DeviceBuilder::new().name("tunl0").mtu(mtu).packet_information(false).enable(false).build_sync();
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPV4)));
            (device.expect("the TUN driver is there"), socket.expect("root may open a raw socket"))
        });
        device.set_nonblocking(true).expect("the device can be asked without waiting");
        socket.set_read_timeout(Some(Duration::from_millis(LOOK.into()))).expect("a socket has a timeout");
        let address = IpNet::from(tunnel_address(blocks(own)[0]));
        own.namespace().ip_batch(&format!("addr add {address} dev tunl0\nlink set tunl0 up\n"));
        let ways = others.iter().map(|other| (blocks(other)[0], other.address())).collect();
        Self::spawn(Arc::new(device), Arc::new(socket), ways)
    }

    fn spawn(device: Arc<SyncDevice>, socket: Arc<Socket>, ways: Vec<(IpNet, IpAddr)>) -> Self {
        let closed = Arc::new(AtomicBool::new(false));
        let (out, back) = (Arc::clone(&closed), Arc::clone(&closed));
        let (from, to) = (Arc::clone(&device), Arc::clone(&socket));
        let threads = vec![
            std::thread::spawn(move || wrap(&from, &to, &ways, &out)),
            std::thread::spawn(move || unwrap(&socket, &device, &back)),
        ];
        Self { closed, threads }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Sends what the routes lead here to the node whose block it is for.
fn wrap(device: &SyncDevice, socket: &Socket, ways: &[(IpNet, IpAddr)], closed: &AtomicBool) {
    let mut packet = vec![0; 1 << 16];
    while !closed.load(Ordering::Relaxed) {
        let Ok(len) = device.recv(&mut packet).or_else(|error| wait(device, error)) else { continue };
        let Some(to) = destination(&packet[..len]) else { continue };
        if let Some((_, node)) = ways.iter().find(|(block, _)| block.contains(&to)) {
            // A packet that the way refuses is lost, as anywhere.
            let _ = socket.send_to(&packet[..len], &SocketAddr::new(*node, 0).into());
        }
    }
}

fn wait(device: &SyncDevice, error: io::Error) -> io::Result<usize> {
    if error.kind() == ErrorKind::WouldBlock {
        let _ = poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(device), PollFlags::POLLIN)], PollTimeout::from(LOOK));
    }
    Err(error)
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(Ipv4Addr::from(bytes).into())
}

/// Hands on what other nodes wrapped: a raw socket gets it with the outer header.
fn unwrap(socket: &Socket, device: &SyncDevice, closed: &AtomicBool) {
    let mut packet = vec![0; 1 << 16];
    while !closed.load(Ordering::Relaxed) {
        let Ok(len) = read(socket, &mut packet) else { continue };
        let header = usize::from(packet[0] & 0x0f) * 4;
        if len > header {
            let _ = device.send(&packet[header..len]);
        }
    }
}

fn read(mut socket: &Socket, packet: &mut [u8]) -> io::Result<usize> {
    socket.read(packet)
}
