//! The witness: a raw packet socket in the underlay, listening from before the first agent starts.
//!
//! It counts frames whose outer source or destination is an address of the overlay, and looks for a known pattern (the
//! payload of the demo's pings) anywhere in a frame. Whether it would notice is shown by a control without encryption.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket};
use socket2::{SockFilter, SockRef};

use super::{Error, Result};

/// What fills the demo's pings: found in the underlay, it would be a leak however it was wrapped.
pub(super) const CANARY: [u8; 16] = *b"warren-demo-ping";
/// UDP port of Warren on the underlay.
const TUNNEL_PORT: u16 = 51840;
/// Enough for every frame but superpackets, whose beginning is enough.
const SNAP: usize = 4096;
/// Receive buffer: some thousand pings.
const BUFFER: usize = 8 << 20;

/// What a frame on the underlay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Overlay traffic in clear.
    Plaintext,
    /// A datagram of the tunnel.
    Tunnel,
    /// Anything else (ARP, IPv6 neighbour discovery, etcd).
    Other,
}

/// Frames seen so far.
#[derive(Default)]
struct Counts {
    plaintext: AtomicU64,
    canary: AtomicU64,
    tunnel: AtomicU64,
    calm: AtomicU64,
}

/// A capture that is running.
pub(super) struct Capture {
    counts: Arc<Counts>,
    closed: Arc<AtomicBool>,
    clear_only: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Listens on every device of the namespace; returns when it does.
    pub(super) fn start(namespace: &str, overlay: Ipv4Net) -> Result<Self> {
        let (counts, closed, clear_only) = <(Arc<Counts>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (ready, opened) = std::sync::mpsc::channel();
        let path = format!("/run/netns/{namespace}");
        let (seen, ended, narrowed) = (Arc::clone(&counts), Arc::clone(&closed), Arc::clone(&clear_only));
        let thread = std::thread::Builder::new().name("demo-capture".into()).spawn(move || {
            let socket = open(&path);
            let _ = ready.send(socket.as_ref().map(drop).map_err(ToString::to_string));
            if let Ok(socket) = socket {
                listen(&socket, overlay, &seen, &ended, &narrowed);
            }
        });
        let thread = thread.map_err(|error| Error::new(format!("cannot start the capture: {error}")))?;
        match opened.recv() {
            Ok(Ok(())) => Ok(Self { counts, closed, clear_only, thread: Some(thread) }),
            Ok(Err(error)) => Err(Error::new(format!("cannot capture in {namespace}: {error}"))),
            Err(_) => Err(Error::new("the capture ended by itself")),
        }
    }

    /// Frames in clear so far: by address, or by the pattern inside.
    pub(super) fn plaintext(&self) -> u64 {
        self.settle();
        self.counts.plaintext.load(Ordering::SeqCst) + self.counts.canary.load(Ordering::SeqCst)
    }

    /// Datagrams of the tunnel so far.
    pub(super) fn tunnel(&self) -> u64 {
        self.settle();
        self.counts.tunnel.load(Ordering::SeqCst)
    }

    /// From here on the kernel hands over frames with overlay addresses only: bulk traffic is then watched whole.
    pub(super) fn only_clear(&self) {
        self.clear_only.store(true, Ordering::SeqCst);
        self.settle();
    }

    /// Waits until everything that has happened is counted: the thread found its queue empty twice.
    fn settle(&self) {
        let (from, began) = (self.counts.calm.load(Ordering::SeqCst), Instant::now());
        while self.counts.calm.load(Ordering::SeqCst) < from + 2 && began.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet socket in another namespace; only the calling thread moves there.
fn open(namespace: &str) -> std::io::Result<OwnedFd> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    SockRef::from(&socket).set_read_timeout(Some(Duration::from_millis(20)))?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    Ok(socket)
}

fn listen(socket: &OwnedFd, overlay: Ipv4Net, counts: &Counts, closed: &AtomicBool, clear_only: &AtomicBool) {
    let mut frame = [0u8; SNAP];
    let mut narrowed = false;
    while !closed.load(Ordering::SeqCst) {
        if !narrowed && clear_only.load(Ordering::SeqCst) {
            narrowed = SockRef::from(socket).attach_filter(&overlay_filter(overlay)).is_ok();
        }
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
            Ok((len, from)) => count(frame.get(..len).unwrap_or_default(), from, overlay, counts),
            Err(_) => drop(counts.calm.fetch_add(1, Ordering::SeqCst)),
        }
    }
}

fn count(frame: &[u8], from: Option<LinkAddr>, overlay: Ipv4Net, counts: &Counts) {
    // What crosses the bridge comes in by one port and leaves by another: count it once.
    if from.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING) {
        return;
    }
    let counter = match classify(frame, overlay) {
        Kind::Plaintext => &counts.plaintext,
        _ if frame.windows(CANARY.len()).any(|window| window == CANARY) => &counts.canary,
        Kind::Tunnel => &counts.tunnel,
        Kind::Other => return,
    };
    counter.fetch_add(1, Ordering::SeqCst);
}

/// Reads the outer headers of an Ethernet frame (RFC 791, RFC 768).
fn classify(frame: &[u8], overlay: Ipv4Net) -> Kind {
    let word = |at: usize| frame.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let address = |at: usize| frame.get(at..at + 4).map(|four| Ipv4Addr::new(four[0], four[1], four[2], four[3]));
    if word(12) != Some(0x0800) {
        return Kind::Other;
    }
    if [26, 30].into_iter().filter_map(address).any(|address| overlay.contains(&address)) {
        return Kind::Plaintext;
    }
    let transport = 14 + usize::from(frame.get(14).copied().unwrap_or_default() & 0x0f) * 4;
    let udp = frame.get(23) == Some(&17);
    let ours = [transport, transport + 2].into_iter().filter_map(word).any(|port| port == TUNNEL_PORT);
    if udp && ours { Kind::Tunnel } else { Kind::Other }
}

/// Classic BPF: IPv4 whose source or destination is in the overlay; everything else never leaves the kernel. What then
/// fills the queue is plaintext only, so that even a full queue cannot hide that there was some.
fn overlay_filter(overlay: Ipv4Net) -> [SockFilter; 10] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const AND: u16 = 0x54;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let (mask, network) = (u32::from(overlay.netmask()), u32::from(overlay.network()));
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(IF_EQUAL, 0, 7, 0x0800),
        SockFilter::new(LOAD_WORD, 0, 0, 26),
        SockFilter::new(AND, 0, 0, mask),
        SockFilter::new(IF_EQUAL, 3, 0, network),
        SockFilter::new(LOAD_WORD, 0, 0, 30),
        SockFilter::new(AND, 0, 0, mask),
        SockFilter::new(IF_EQUAL, 0, 1, network),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAY: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16);

    fn frame(source: [u8; 4], destination: [u8; 4], protocol: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut frame = vec![0u8; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(source);
        frame.extend(destination);
        frame.extend(ports.into_iter().flat_map(u16::to_be_bytes));
        frame
    }

    #[test]
    fn an_overlay_address_at_either_end_is_plaintext() {
        for (source, destination) in [([10, 42, 1, 10], [10, 77, 0, 2]), ([10, 77, 0, 1], [10, 42, 2, 10])] {
            assert_eq!(classify(&frame(source, destination, 1, [0, 0]), OVERLAY), Kind::Plaintext);
        }
    }

    #[test]
    fn udp_on_the_tunnel_port_between_nodes_is_the_tunnel() {
        assert_eq!(classify(&frame([10, 77, 0, 1], [10, 77, 0, 2], 17, [40000, 51840]), OVERLAY), Kind::Tunnel);
        assert_eq!(classify(&frame([10, 77, 0, 1], [10, 77, 0, 2], 6, [40000, 51840]), OVERLAY), Kind::Other);
    }

    #[test]
    fn a_frame_cut_anywhere_is_read_without_a_fault() {
        let whole = frame([10, 77, 0, 1], [10, 77, 0, 2], 17, [1, 51840]);
        for len in 0..whole.len() {
            assert_ne!(classify(whole.get(..len).unwrap(), OVERLAY), Kind::Plaintext);
        }
    }
}
