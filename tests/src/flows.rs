//! Flows of numbered datagrams, echoed: whoever gets them sees which are missing, doubled or out of turn.
//!
//! A flow never has more than a window of datagrams on the way, so that no queue runs over and nothing depends on how
//! fast the machine is.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use crate::eventually;
use crate::namespace::Namespace;
use crate::sniffer::CANARY;

/// Bytes of a datagram's payload.
pub const SIZE: usize = 1000;
/// Datagrams of one flow on the way: with 16 flows a quarter of the shortest queue on the way (1000 packets).
const WINDOW: u64 = 16;
/// An echo that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// Room for everything that can be on the way.
const BUFFER: usize = 4 << 20;

/// What numbers say of the way that they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Datagrams that came, the repeated ones aside.
    pub arrived: u64,
    /// Of these, behind a later one.
    pub late: u64,
    /// Came again.
    pub repeated: u64,
    /// Never came.
    pub lost: u64,
}

impl Order {
    /// Whether each came, once, and in its turn.
    pub fn is_kept(self) -> bool {
        (self.late, self.repeated, self.lost) == (0, 0, 0)
    }

    fn and(self, other: Self) -> Self {
        Self {
            arrived: self.arrived + other.arrived,
            late: self.late + other.late,
            repeated: self.repeated + other.repeated,
            lost: self.lost + other.lost,
        }
    }
}

/// One flow at its receiving end.
#[derive(Debug, Default)]
struct Turn {
    next: u64,
    missing: BTreeSet<u64>,
    order: Order,
}

impl Turn {
    fn take(&mut self, number: u64) {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.order.late += 1;
        } else {
            self.order.repeated += 1;
            return;
        }
        self.order.arrived += 1;
    }

    fn end(self) -> Order {
        Order { lost: self.missing.len() as u64, ..self.order }
    }
}

/// Flows that go on until they are finished or dropped.
#[derive(Debug)]
pub struct Flows {
    arrived: Arc<AtomicU64>,
    sources_end: Arc<AtomicBool>,
    sink_ends: Arc<AtomicBool>,
    sources: Vec<JoinHandle<Order>>,
    sink: Option<JoinHandle<Order>>,
}

impl Flows {
    /// Starts them: `count` sockets in `from` that send to an address of `to`.
    #[track_caller]
    pub fn start(from: &Namespace, to: &Namespace, address: IpAddr, count: usize) -> Self {
        let socket = to.enter(|| bind(SocketAddr::new(address, 0)));
        let target = socket.local_addr().expect("it is bound");
        let (arrived, sources_end, sink_ends) = (Arc::default(), Arc::default(), Arc::default());
        let sink = {
            let (arrived, ended) = (Arc::clone(&arrived), Arc::clone(&sink_ends));
            std::thread::spawn(move || echo(&socket, &arrived, &ended))
        };
        let any: IpAddr = if address.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let source = |_| {
            let ended = Arc::clone(&sources_end);
            from.spawn(move || send(&bind(SocketAddr::new(any, 0)), target, &ended))
        };
        let sources = (0..count).map(source).collect();
        Self { arrived, sources_end, sink_ends, sources, sink: Some(sink) }
    }

    /// Waits until this many more datagrams came than until now.
    #[track_caller]
    pub fn pass(&self, more: u64) {
        let target = self.arrived.load(Ordering::Relaxed) + more;
        eventually(60, "the datagrams come", || (self.arrived.load(Ordering::Relaxed) >= target).then_some(()));
    }

    /// Whether so many came.
    pub fn passed(&self, count: u64) -> bool {
        self.arrived.load(Ordering::Relaxed) >= count
    }

    /// Ends the flows; what became of the datagrams on the way there, and of the echoes on the way back.
    #[track_caller]
    pub fn finish(mut self) -> [Order; 2] {
        self.sources_end.store(true, Ordering::Relaxed);
        let back = self.sources.drain(..).map(joined).fold(Order::default(), Order::and);
        self.sink_ends.store(true, Ordering::Relaxed);
        let there = joined(self.sink.take().expect("it is waited for once"));
        assert!(there.arrived > 0 && back.arrived > 0, "nothing came: {there:?} there, {back:?} back");
        [there, back]
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.sources_end.store(true, Ordering::Relaxed);
        self.sink_ends.store(true, Ordering::Relaxed);
        for thread in self.sources.drain(..).chain(self.sink.take()) {
            let _ = thread.join();
        }
    }
}

fn joined(thread: JoinHandle<Order>) -> Order {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sends back what comes, until the end.
fn echo(socket: &UdpSocket, arrived: &AtomicU64, ended: &AtomicBool) -> Order {
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket has a timeout");
    let (mut buffer, mut turns) = (vec![0; 2 * SIZE], HashMap::<SocketAddr, Turn>::new());
    while !ended.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        turns.entry(from).or_default().take(number(&buffer[..len]));
        arrived.fetch_add(1, Ordering::Relaxed);
        let _ = socket.send_to(&buffer[..len], from);
    }
    turns.into_values().map(Turn::end).fold(Order::default(), Order::and)
}

/// Keeps a window of datagrams on the way; until the end, and then until each came back or is lost.
fn send(socket: &UdpSocket, target: SocketAddr, ended: &AtomicBool) -> Order {
    socket.connect(target).expect("a route to the Pod");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
    let mut datagram: Vec<u8> = CANARY.iter().copied().cycle().take(SIZE).collect();
    let (mut buffer, mut turn, mut sent, mut given_up) = (vec![0; 2 * SIZE], Turn::default(), 0u64, 0);
    loop {
        let more = !ended.load(Ordering::Relaxed);
        // One to begin with: where a flow is read is settled when the first packet came back.
        let window = if turn.order.arrived == 0 { 1 } else { WINDOW };
        while more && sent - turn.order.arrived - given_up < window {
            datagram[..8].copy_from_slice(&sent.to_be_bytes());
            if socket.send(&datagram).is_ok() {
                sent += 1;
            }
        }
        if sent == turn.order.arrived + given_up {
            break;
        }
        match socket.recv(&mut buffer) {
            Ok(len) => turn.take(number(&buffer[..len])),
            Err(_) => given_up = sent - turn.order.arrived,
        }
    }
    turn.missing.extend(turn.next..sent);
    turn.end()
}

fn number(datagram: &[u8]) -> u64 {
    assert_eq!(datagram.len(), SIZE, "a datagram has another length than it was sent with");
    datagram[..8].try_into().map(u64::from_be_bytes).expect("eight bytes")
}

fn bind(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("the address is there");
    setsockopt(&socket, RcvBufForce, &BUFFER).expect("root may have a large buffer");
    socket
}
