//! A hostile network between two nodes: a relay in the hub through which all their datagrams pass.
//!
//! Both agents are told that the other listens at the hub. The relay sees what a router on the way would see, and may
//! lose, repeat, delay or forge it. It never knows a key.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Lab;

/// What becomes of a datagram: every item is sent on, in this order.
pub type Mischief = fn(number: u64, datagram: &[u8], past: &mut Vec<Vec<u8>>) -> Vec<Vec<u8>>;

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where the first node is told that the second listens.
    pub second: SocketAddr,
    /// Where the second node is told that the first listens.
    pub first: SocketAddr,
    passed: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Relays between two agents' sockets.
    pub fn start(lab: &Lab, first: SocketAddr, second: SocketAddr, mischief: Mischief) -> Self {
        let hub = lab.hub_address();
        let (facing_first, facing_second) = lab.hub().enter(|| (bind(hub), bind(hub)));
        let address = |socket: &UdpSocket| socket.local_addr().expect("it is bound");
        let (closed, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut relay = Self {
            second: address(&facing_first),
            first: address(&facing_second),
            passed,
            closed,
            threads: Vec::new(),
        };
        relay.pass(&facing_first, &facing_second, second, mischief);
        relay.pass(&facing_second, &facing_first, first, mischief);
        relay
    }

    /// How many datagrams came in.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    fn pass(&mut self, from: &UdpSocket, by: &UdpSocket, to: SocketAddr, mischief: Mischief) {
        let share = |socket: &UdpSocket| socket.try_clone().expect("a socket can be shared");
        let (from, by, closed, passed) = (share(from), share(by), Arc::clone(&self.closed), Arc::clone(&self.passed));
        self.threads.push(std::thread::spawn(move || {
            let (mut buffer, mut past, mut number) = (vec![0; 1 << 16], Vec::new(), 0);
            while !closed.load(Ordering::Relaxed) {
                let Ok(len) = from.recv(&mut buffer) else { continue };
                passed.fetch_add(1, Ordering::SeqCst);
                number += 1;
                for datagram in mischief(number, &buffer[..len], &mut past) {
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
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket has a timeout");
    socket
}
