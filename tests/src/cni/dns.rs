//! As much of DNS (RFC 1035, RFC 6891) as shows that a question and a large answer pass: the name asked for carries the
//! canary, the answer is a TXT record of the size that was asked for.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::sniffer::CANARY;

/// Question: one, recursion desired, one additional record.
const QUESTION: [u8; 12] = [0x77, 0x01, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1];
/// Root, OPT, UDP size 4096, no flags, no options.
const OPT: [u8; 11] = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
/// TXT, IN.
const TXT: [u8; 4] = [0, 16, 0, 1];
/// Bytes of the answer's text: with EDNS more than one packet of any Ethernet but a jumbo one.
const TEXT: usize = 3000;
/// How long an answer may take before the question is asked again, and how often it is.
const PATIENCE: Duration = Duration::from_millis(400);
const TRIES: u32 = 5;

/// A server, until it is dropped.
#[derive(Debug)]
pub struct Server {
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers on an address and port of a namespace.
    #[track_caller]
    pub fn start(namespace: &Namespace, at: SocketAddr) -> Self {
        let socket =
            namespace.enter(|| UdpSocket::bind(at)).unwrap_or_else(|error| panic!("cannot bind {at}: {error}"));
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket has a timeout");
        let closed = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&closed);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&answer(&buffer[..len]), from);
                }
            }
        });
        Self { closed, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks for the text of the canary's name.
///
/// # Errors
/// When no answer comes, or another one.
pub fn resolve(from: &Namespace, server: SocketAddr) -> Result<(), String> {
    let question = question();
    let answered = from.enter(|| ask(server, &question)).map_err(|error| error.to_string())?;
    if answered != answer(&question) {
        return Err(format!("{} bytes are no answer", answered.len()));
    }
    Ok(())
}

fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    let mut buffer = vec![0; 4096];
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..TRIES {
        match socket.send(question).and_then(|_| socket.recv(&mut buffer)) {
            Ok(len) => return Ok(buffer[..len].to_vec()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn question() -> Vec<u8> {
    [&QUESTION[..], &name(), &TXT, &OPT].concat()
}

fn name() -> Vec<u8> {
    let labels: [&[u8]; 3] = [&CANARY, b"svc", b"cluster"];
    let label = |label: &&[u8]| [&[u8::try_from(label.len()).expect("labels are short")], *label].concat();
    labels.iter().flat_map(label).chain([0]).collect()
}

/// The question with one answer to it: strings of the canary.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut head = question.to_vec();
    head.truncate(12 + name().len() + TXT.len());
    head.splice(2..12, [0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    let string: Vec<u8> = [240].into_iter().chain(CANARY.iter().copied().cycle().take(240)).collect();
    let text: Vec<u8> = std::iter::repeat_n(string, TEXT / 241).flatten().collect();
    let length = u16::try_from(text.len()).expect("the text is short");
    // A pointer to the name in the question; lives an hour.
    [&head[..], &[0xc0, 12], &TXT, &3600u32.to_be_bytes(), &length.to_be_bytes(), &text].concat()
}
