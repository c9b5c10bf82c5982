//! The witness: packet sockets in the hub, open on every link of the underlay before the first agent starts.
//!
//! One socket sees only frames with an overlay address in their outer header: the kernel filters, so that no load makes
//! it miss one. The other looks for the canary, which all test traffic carries, anywhere in a frame: so a leak is found
//! however it was wrapped. It also counts the tunnel's datagrams, to show that it was awake.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket};
use socket2::{SockFilter, SockRef};

use crate::command;
use crate::namespace::Namespace;
use crate::node::PORT;

/// What fills the payload of all test traffic.
pub const CANARY: [u8; 16] = *b"warren-lab-leak!";
/// In pcap's language: overlay addresses in clear.
const OVERLAY: &str = "(ip and net 10.42.0.0/16) or (ip6 and net fd42::/48)";
/// Enough of a frame to hold several canaries.
const SNAP: usize = 2048;
/// Receive buffers, in bytes.
const BUFFER: usize = 32 << 20;
/// How many leaked frames are kept to be shown.
const KEPT: usize = 5;
/// A frame that was sent is in the hub sooner than this: there is no wire.
const ON_THE_WAY: Duration = Duration::from_millis(20);

/// A capture that is running until it is dropped.
#[derive(Debug)]
pub struct Sniffer {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    clear: AtomicU64,
    canary: AtomicU64,
    tunnel: AtomicU64,
    /// How often either socket had nothing to read.
    calm: [AtomicU64; 2],
    closed: AtomicBool,
    /// The canary is no longer looked for.
    headers_only: AtomicBool,
    kept: Mutex<Vec<String>>,
}

impl Sniffer {
    /// Listens on every device of the namespace; returns when it does.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        Self::start_with(namespace, OVERLAY)
    }

    /// Takes frames that match `clear`, in pcap's language, for leaks.
    pub fn start_with(namespace: &Namespace, clear: &str) -> Self {
        let seen = Arc::new(Seen::default());
        let filter = compile(clear);
        let (watch, search) = namespace.enter(|| (open(Some(&filter)), open(None)));
        let (one, two) = (Arc::clone(&seen), Arc::clone(&seen));
        let threads = vec![
            std::thread::spawn(move || listen(&watch, &one, 0, |frame| one.leaked(&one.clear, frame))),
            std::thread::spawn(move || listen(&search, &two, 1, |frame| two.search(frame))),
        ];
        Self { seen, threads }
    }

    /// From here on only headers are looked at: for bulk traffic, which a search would slow down.
    pub fn headers_only(&self) {
        self.seen.headers_only.store(true, Ordering::SeqCst);
    }

    /// Frames in clear so far, by address or by canary.
    pub fn clear(&self) -> u64 {
        self.settle();
        self.seen.clear.load(Ordering::SeqCst) + self.seen.canary.load(Ordering::SeqCst)
    }

    /// Frames so far that carried the canary.
    pub fn canaries(&self) -> u64 {
        self.settle();
        self.seen.canary.load(Ordering::SeqCst)
    }

    /// Datagrams of the tunnel so far.
    pub fn tunnel(&self) -> u64 {
        self.settle();
        self.seen.tunnel.load(Ordering::SeqCst)
    }

    /// Fails the test if anything was in clear so far.
    #[track_caller]
    pub fn assert_nothing_in_clear(&self) {
        let clear = self.clear();
        let kept = self.seen.kept.lock().expect("no thread panics with it").join("\n");
        assert_eq!(clear, 0, "{clear} frames were in clear on the underlay:\n{kept}");
    }

    /// Fails the test if the tunnel carried nothing or anything was in clear.
    #[track_caller]
    pub fn assert_encrypted(&self) {
        assert!(self.tunnel() > 0, "no datagram of the tunnel was seen: the sniffer or the tunnel slept");
        self.assert_nothing_in_clear();
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        self.settle();
        for counter in [&self.seen.clear, &self.seen.canary, &self.seen.tunnel] {
            counter.store(0, Ordering::SeqCst);
        }
        self.seen.kept.lock().expect("no thread panics with it").clear();
    }

    /// Waits until everything that happened is counted: what was sent has arrived, and since then both sockets found
    /// their queue empty, twice, for the first time may have begun before.
    fn settle(&self) {
        std::thread::sleep(ON_THE_WAY);
        let calm = || self.seen.calm.each_ref().map(|calm| calm.load(Ordering::SeqCst));
        let (from, began) = (calm(), Instant::now());
        while calm().iter().zip(from).any(|(now, then)| *now < then + 2) && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.seen.closed.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn leaked(&self, counter: &AtomicU64, frame: &[u8]) {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut kept = self.kept.lock().expect("no thread panics with it");
        if kept.len() < KEPT {
            let begin = &frame[..frame.len().min(96)];
            kept.push(begin.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }

    fn search(&self, frame: &[u8]) {
        if is_tunnel(frame) {
            self.tunnel.fetch_add(1, Ordering::SeqCst);
        }
        if !self.headers_only.load(Ordering::Relaxed) && contains(frame, &CANARY) {
            self.leaked(&self.canary, frame);
        }
    }
}

/// Looks for the first byte first: most bytes are not it.
fn contains(frame: &[u8], pattern: &[u8; 16]) -> bool {
    let starts = frame.iter().enumerate().filter(|(_, byte)| **byte == pattern[0]);
    starts.into_iter().any(|(at, _)| frame[at..].starts_with(pattern))
}

/// UDP to or from the agents' port, by IPv4 without options or IPv6 without extension headers.
fn is_tunnel(frame: &[u8]) -> bool {
    let word = |at: usize| frame.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let ports = match (word(12), frame.get(14).map(|byte| byte & 0x0f)) {
        (Some(0x0800), Some(words)) if frame.get(23) == Some(&17) => 14 + usize::from(words) * 4,
        (Some(0x86dd), _) if frame.get(20) == Some(&17) => 54,
        _ => return false,
    };
    word(ports) == Some(PORT) || word(ports + 2) == Some(PORT)
}

fn listen(socket: &OwnedFd, seen: &Seen, which: usize, mut take: impl FnMut(&[u8])) {
    let mut frame = [0u8; SNAP];
    while !seen.closed.load(Ordering::SeqCst) {
        // Looks before it waits: under traffic that never pauses the queue is empty now and then, the wait never ends
        // without a frame.
        let next = recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT).or_else(|_| {
            seen.calm[which].fetch_add(1, Ordering::SeqCst);
            recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty())
        });
        if let Ok(len) = next {
            take(&frame[..len.min(SNAP)]);
        }
    }
}

/// A packet socket in the calling thread's namespace. Until its filter is in place it takes nothing.
fn open(filter: Option<&[SockFilter]>) -> OwnedFd {
    let opened = || -> io::Result<OwnedFd> {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        SockRef::from(&socket).set_read_timeout(Some(Duration::from_millis(20)))?;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        if let Some(filter) = filter {
            SockRef::from(&socket).attach_filter(filter)?;
            discard(&socket);
        }
        Ok(socket)
    };
    opened().unwrap_or_else(|error| panic!("cannot open a packet socket: {error}"))
}

/// Drops what arrived between the opening of the socket and its filter.
fn discard(socket: &OwnedFd) {
    let mut one = [0u8; 1];
    while recv(socket.as_raw_fd(), &mut one, MsgFlags::MSG_DONTWAIT).is_ok() {}
}

/// Has tcpdump compile an expression to classic BPF; prints `code jt jf k` a line.
fn compile(expression: &str) -> Vec<SockFilter> {
    let text = command::run(&["tcpdump", "-ddd", "-y", "EN10MB", expression]);
    let numbers = |line: &str| line.split_whitespace().map(|n| n.parse::<u32>().expect("a number")).collect::<Vec<_>>();
    let rows = text.lines().skip(1).map(numbers);
    let byte = |number: u32| u8::try_from(number).expect("tcpdump prints jumps as bytes");
    rows.map(|row| SockFilter::new(u16::try_from(row[0]).expect("a code"), byte(row[1]), byte(row[2]), row[3]))
        .collect()
}
