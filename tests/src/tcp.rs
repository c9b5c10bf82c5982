//! TCP in bulk, and what the kernel counted of it, and of IPv4, in a namespace.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::namespace::Namespace;
use crate::sniffer::CANARY;

/// What each counts is a sign that segments overtook each other, or one of loss.
const SIGNS: [&str; 5] = ["TCPOFOQueue", "TCPSACKReorder", "TCPRenoReorder", "TCPTSReorder", "TCPFastRetrans"];
/// What only overtaking makes the kernel count: a hole was filled that nobody had filled anew.
const REORDERING: [&str; 3] = ["TCPSACKReorder", "TCPRenoReorder", "TCPTSReorder"];
/// Longest silence of a stream.
const SILENCE: Duration = Duration::from_secs(15);

/// The kernel's counters of TCP and of IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Those of a namespace.
    pub fn of(namespace: &Namespace) -> Self {
        // `/proc/net` is that of the process, not of the thread that entered the namespace.
        let read = || ["netstat", "snmp"].map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")));
        let texts = namespace.enter(read).map(|text| text.expect("the kernel has it"));
        Self(texts.iter().flat_map(|text| parse(text)).collect())
    }

    /// One of them.
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("this kernel has no counter {name}"))
    }

    /// All signs of overtaking or loss.
    pub fn signs(&self) -> Vec<(&'static str, u64)> {
        SIGNS.iter().map(|name| (*name, self.get(name))).filter(|(_, n)| *n > 0).collect()
    }

    /// Signs that loss does not make.
    pub fn reordering(&self) -> Vec<(&'static str, u64)> {
        REORDERING.iter().map(|name| (*name, self.get(name))).filter(|(_, n)| *n > 0).collect()
    }
}

/// Each protocol has a line of names and one of numbers.
fn parse(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("Tcp") || line.starts_with("Ip:")).collect();
    let both = |pair: &[&str]| {
        let [names, numbers] = [pair[0], pair[1]].map(|line| line.split_whitespace().skip(1));
        let entry = |(name, number): (&str, &str)| number.parse().ok().map(|number| (name.to_owned(), number));
        names.zip(numbers).filter_map(entry).collect::<Vec<_>>()
    };
    lines.chunks_exact(2).flat_map(both).collect()
}

/// Sends so many bytes on each of several streams at once. With a `window` no stream has more bytes than this on the
/// way, so that no queue runs over.
#[track_caller]
pub fn streams(from: &Namespace, to: &Namespace, address: IpAddr, count: usize, bytes: usize, window: Option<usize>) {
    let listener = to.enter(|| listen(address, window));
    let target = listener.local_addr().expect("it is bound").as_socket().expect("an address of IP");
    let receivers = std::thread::spawn(move || {
        let accepted: Vec<_> = (0..count).map(|_| TcpStream::from(listener.accept().expect("a stream").0)).collect();
        accepted.into_iter().map(|stream| std::thread::spawn(|| receive(stream))).collect::<Vec<_>>()
    });
    let senders: Vec<_> = (0..count).map(|_| from.spawn(move || send(target, bytes))).collect();
    senders.into_iter().for_each(|sender| sender.join().expect("sending works"));
    for receiver in receivers.join().expect("all streams come") {
        assert_eq!(receiver.join().expect("receiving works"), bytes, "bytes are missing at the end");
    }
}

fn listen(address: IpAddr, window: Option<usize>) -> Socket {
    let address = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    if let Some(window) = window {
        socket.set_recv_buffer_size(window).expect("a socket has a buffer");
    }
    socket.bind(&address.into()).expect("the address is there");
    socket.listen(64).expect("it is bound");
    socket
}

fn send(target: SocketAddr, bytes: usize) {
    let mut stream = TcpStream::connect_timeout(&target, SILENCE).expect("the Pod is there");
    stream.set_write_timeout(Some(SILENCE)).expect("a socket has a timeout");
    let block: Vec<u8> = CANARY.iter().copied().cycle().take(64 << 10).collect();
    let mut left = bytes;
    while left > 0 {
        let len = left.min(block.len());
        stream.write_all(&block[..len]).expect("the stream goes on");
        left -= len;
    }
}

fn receive(mut stream: TcpStream) -> usize {
    stream.set_read_timeout(Some(SILENCE)).expect("a socket has a timeout");
    let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
    loop {
        match stream.read(&mut buffer).expect("the stream goes on") {
            0 => return total,
            len => total += len,
        }
    }
}
