//! A server that tells everybody which source address it sees, and sends back what it got: by TCP and by UDP, on one
//! port. Whoever asks it knows that both ways work, that no byte was changed, and who it was taken for.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use crate::eventually;
use crate::namespace::Namespace;

/// How often a server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(20);
/// How long a datagram's answer may take before the question is asked again.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often a datagram is sent before it counts as lost.
const TRIES: u32 = 5;
/// Longest silence of a connection.
const SILENCE: Duration = Duration::from_secs(4);
/// Room for a few of the largest datagrams.
const BUFFER: usize = 1 << 20;

/// By which protocol somebody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
}

/// A server, until it is dropped.
#[derive(Debug)]
pub struct Witness {
    closed: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    /// Listens on an address and port of a namespace, by both protocols.
    #[track_caller]
    pub fn start(namespace: &Namespace, at: SocketAddr) -> Self {
        // A real plugin's address of IPv6 is nobody's until the kernel has asked around for it (RFC 4862, section 5.4).
        let both = || namespace.enter(|| TcpListener::bind(at).ok().zip(UdpSocket::bind(at).ok()));
        let (tcp, udp) = eventually(5, &format!("{at} can be listened on"), both);
        tcp.set_nonblocking(true).expect("a socket can be asked without waiting");
        udp.set_read_timeout(Some(LOOK)).expect("a socket has a timeout");
        setsockopt(&udp, RcvBufForce, &BUFFER).expect("root may have a large buffer");
        let closed = Arc::new(AtomicBool::new(false));
        let (one, two) = (Arc::clone(&closed), Arc::clone(&closed));
        let threads =
            vec![std::thread::spawn(move || accept(&tcp, &one)), std::thread::spawn(move || reply(&udp, &two))];
        Self { closed, threads }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, closed: &AtomicBool) {
    while !closed.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => drop(std::thread::spawn(move || serve(stream, from))),
            Err(_) => std::thread::sleep(LOOK / 4),
        }
    }
}

/// Reads to the end, then answers; a client that goes away is nobody's loss.
fn serve(mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut payload = Vec::new();
    stream.read_to_end(&mut payload)?;
    stream.write_all(&answer(from, &payload))
}

fn reply(socket: &UdpSocket, closed: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !closed.load(Ordering::Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&answer(from, &buffer[..len]), from);
        }
    }
}

fn answer(from: SocketAddr, payload: &[u8]) -> Vec<u8> {
    [format!("{}\n", from.ip().to_canonical()).as_bytes(), payload].concat()
}

/// Asks a server; the source address that it saw, or what went wrong.
///
/// # Errors
/// When nobody answers, or with something else than was sent.
pub fn ask(from: &Namespace, to: SocketAddr, protocol: Protocol, payload: &[u8]) -> Result<IpAddr, String> {
    let answered = from.enter(|| match protocol {
        Protocol::Tcp => by_tcp(to, payload),
        Protocol::Udp => by_udp(to, payload),
    });
    let answer = answered.map_err(|error| format!("{error}"))?;
    let end = answer.iter().position(|byte| *byte == b'\n').ok_or("an answer without a source")?;
    if answer[end + 1..] != *payload {
        return Err(format!("sent {} bytes, got back {} or others", payload.len(), answer.len() - end - 1));
    }
    std::str::from_utf8(&answer[..end]).ok().and_then(|text| text.parse().ok()).ok_or_else(|| "no address".to_owned())
}

fn by_tcp(to: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.write_all(payload)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn by_udp(to: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    // Connected, so that an answer from another address is none.
    socket.connect(to)?;
    let mut buffer = vec![0; 1 << 16];
    let mut last = io::Error::from(ErrorKind::TimedOut);
    for _ in 0..TRIES {
        // An earlier packet's ICMP error may be reported here; then it is sent again.
        match socket.send(payload).and_then(|_| socket.recv(&mut buffer)) {
            Ok(len) => return Ok(buffer[..len].to_vec()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
