//! A hostile network between two nodes: a relay in the hub through which all their datagrams pass.
//!
//! Both agents are told that the other listens at the hub. The relay sees what a router on the way would see, and may
//! lose, repeat, delay or forge it. It never knows a key.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt};

use crate::Lab;

/// Receive buffers, in bytes.
const BUFFER: usize = 8 << 20;

/// After so long without a datagram nothing is held any longer: its sender may itself be waiting for it to arrive.
const QUIET: Duration = Duration::from_millis(50);

/// What becomes of a datagram: every item is sent on, in this order.
pub type Mischief = fn(number: u64, datagram: &[u8], past: &mut Past) -> Vec<Vec<u8>>;

/// What a mischief keeps of what came before.
#[derive(Debug, Default)]
pub struct Past {
    /// What may come again.
    pub recorded: Vec<Vec<u8>>,
    /// What waits for others to overtake it.
    pub held: Vec<Vec<u8>>,
}

impl Past {
    /// All that waits, the last first.
    pub fn let_go(&mut self) -> Vec<Vec<u8>> {
        self.held.drain(..).rev().collect()
    }
}

/// To whom a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first node.
    First,
    /// The second.
    Second,
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where the first node is told that the second listens.
    pub second: SocketAddr,
    /// Where the second node is told that the first listens.
    pub first: SocketAddr,
    /// Whatever goes to the second node comes from this socket, and where that listens.
    to_second: (UdpSocket, SocketAddr),
    /// On the same address, with a port that no node knows.
    stranger: UdpSocket,
    passed: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Relays between two agents' sockets.
    pub fn start(lab: &Lab, first: SocketAddr, second: SocketAddr, mischief: Mischief) -> Self {
        Self::start_with(lab, first, second, |_| mischief)
    }

    /// The same, with a mischief of its own for each way.
    pub fn start_with<M>(lab: &Lab, first: SocketAddr, second: SocketAddr, mischief: impl Fn(Side) -> M) -> Self
    where
        M: FnMut(u64, &[u8], &mut Past) -> Vec<Vec<u8>> + Send + 'static,
    {
        let hub = lab.hub_address();
        let (facing_first, facing_second, stranger) = lab.hub().enter(|| (bind(hub), bind(hub), bind(hub)));
        let address = |socket: &UdpSocket| socket.local_addr().expect("it is bound");
        let (closed, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut relay = Self {
            second: address(&facing_first),
            first: address(&facing_second),
            to_second: (facing_second.try_clone().expect("a socket can be shared"), second),
            stranger,
            passed,
            closed,
            threads: Vec::new(),
        };
        relay.pass(&facing_first, &facing_second, second, mischief(Side::Second));
        relay.pass(&facing_second, &facing_first, first, mischief(Side::First));
        relay
    }

    /// How many datagrams came in.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Sends datagrams of one length to the second node, the last of which may be shorter, as one train: the kernel
    /// hands it to one socket of the node, whatever is in it.
    #[track_caller]
    pub fn send_train(&self, datagrams: &[Vec<u8>]) {
        self.send_train_by(&self.to_second.0, datagrams);
    }

    /// The same, from a port that the node does not know.
    pub fn send_train_from_elsewhere(&self, datagrams: &[Vec<u8>]) {
        self.send_train_by(&self.stranger, datagrams);
    }

    fn send_train_by(&self, socket: &UdpSocket, datagrams: &[Vec<u8>]) {
        let Some(length) = datagrams.first().map(|first| u16::try_from(first.len()).expect("a datagram")) else {
            return;
        };
        let parts: Vec<_> = datagrams.iter().map(|datagram| IoSlice::new(datagram)).collect();
        let control = [ControlMessage::UdpGsoSegments(&length)];
        let to = SockaddrStorage::from(self.to_second.1);
        sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to)).expect("the train leaves");
    }

    fn pass<M>(&mut self, from: &UdpSocket, by: &UdpSocket, to: SocketAddr, mut mischief: M)
    where
        M: FnMut(u64, &[u8], &mut Past) -> Vec<Vec<u8>> + Send + 'static,
    {
        let share = |socket: &UdpSocket| socket.try_clone().expect("a socket can be shared");
        let (from, by, closed, passed) = (share(from), share(by), Arc::clone(&self.closed), Arc::clone(&self.passed));
        self.threads.push(std::thread::spawn(move || {
            let (mut buffer, mut past, mut number) = (vec![0; 1 << 16], Past::default(), 0);
            while !closed.load(Ordering::Relaxed) {
                let leaves = match from.recv(&mut buffer) {
                    Ok(len) => {
                        passed.fetch_add(1, Ordering::SeqCst);
                        number += 1;
                        mischief(number, &buffer[..len], &mut past)
                    }
                    Err(_) => past.let_go(),
                };
                for datagram in leaves {
                    let _ = by.send_to(&datagram, to);
                }
            }
        }));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn bind(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).expect("the address is there");
    socket.set_read_timeout(Some(QUIET)).expect("a socket has a timeout");
    // What it loses for want of room would be taken for a loss of the agents'.
    setsockopt(&socket, RcvBufForce, &BUFFER).expect("root may have a large buffer");
    socket
}
