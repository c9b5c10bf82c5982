//! Steady traffic that does not end with a failure: one TCP connection and one flow of datagrams, each sent back. Whoever
//! watches them knows whether they live, and how long they were silent.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::eventually;
use crate::namespace::Namespace;
use crate::sniffer::CANARY;

/// Between two messages of either.
const PACE: Duration = Duration::from_millis(5);
/// A connection that is silent for longer has failed.
const SILENCE: Duration = Duration::from_secs(40);
/// How often a server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// A canary and a number.
const SIZE: usize = 24;

/// Both, between two places; they end when dropped.
#[derive(Debug)]
pub struct Load {
    what: String,
    tcp: Arc<Line>,
    udp: Arc<Line>,
    threads: Vec<JoinHandle<()>>,
}

/// One of them.
#[derive(Debug)]
struct Line {
    closed: AtomicBool,
    exchanged: AtomicU64,
    /// When the last message came back, and the longest time between two.
    silence: Mutex<(Instant, Duration)>,
    broken: Mutex<Option<String>>,
}

impl Load {
    /// Starts both from one namespace to an address of another, and waits until both work.
    #[track_caller]
    pub fn start(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        let (tcp, udp) = (Arc::new(Line::new()), Arc::new(Line::new()));
        let at = SocketAddr::new(address, 0);
        let listener = to.enter(|| TcpListener::bind(at).expect("the address is there"));
        let socket = to.enter(|| UdpSocket::bind(at).expect("the address is there"));
        let (by_tcp, by_udp) = (listener.local_addr().expect("it is bound"), socket.local_addr().expect("it is bound"));
        let lines = [&tcp, &udp, &tcp, &udp].map(Arc::clone);
        let [one, two, three, four] = lines;
        let threads = vec![
            std::thread::spawn(move || _ = reflect_stream(&listener, &one)),
            std::thread::spawn(move || reflect_datagrams(&socket, &two)),
            from.spawn(move || three.ends(connection(by_tcp, &three))),
            from.spawn(move || four.ends(datagrams(by_udp, &four))),
        ];
        let load = Self { what: format!("{} to {address}", from.name()), tcp, udp, threads };
        load.assert_alive();
        load
    }

    /// Forgets how long they were silent.
    pub fn forget(&self) {
        [&self.tcp, &self.udp].into_iter().for_each(|line| line.forget());
    }

    /// The longest silence: of the connection, which waits before it tries again, and of the datagrams.
    pub fn silence(&self) -> [Duration; 2] {
        [&self.tcp, &self.udp].map(|line| line.longest())
    }

    /// Fails the test unless both go on, the connection as the one that it was.
    #[track_caller]
    pub fn assert_alive(&self) {
        for (line, protocol) in [(&self.tcp, "TCP"), (&self.udp, "UDP")] {
            let before = line.exchanged.load(Ordering::SeqCst);
            eventually(SILENCE.as_secs(), &format!("{protocol} from {} goes on", self.what), || {
                let broken = line.broken.lock().expect("no thread panics with it").clone();
                assert_eq!(broken, None, "{protocol} from {} broke", self.what);
                (line.exchanged.load(Ordering::SeqCst) > before + 5).then_some(())
            });
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        [&self.tcp, &self.udp].into_iter().for_each(|line| line.closed.store(true, Ordering::SeqCst));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Line {
    fn new() -> Self {
        Self {
            closed: AtomicBool::new(false),
            exchanged: AtomicU64::new(0),
            silence: Mutex::new((Instant::now(), Duration::ZERO)),
            broken: Mutex::new(None),
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// A message came back.
    fn heard(&self) {
        let mut silence = self.silence.lock().expect("no thread panics with it");
        *silence = (Instant::now(), silence.1.max(silence.0.elapsed()));
        self.exchanged.fetch_add(1, Ordering::SeqCst);
    }

    fn forget(&self) {
        *self.silence.lock().expect("no thread panics with it") = (Instant::now(), Duration::ZERO);
    }

    fn longest(&self) -> Duration {
        let silence = self.silence.lock().expect("no thread panics with it");
        silence.1.max(silence.0.elapsed())
    }

    fn ends(&self, ended: std::io::Result<()>) {
        if let Err(error) = ended {
            *self.broken.lock().expect("no thread panics with it") = Some(error.to_string());
        }
    }
}

fn message(number: u64) -> [u8; SIZE] {
    let mut message = [0; SIZE];
    message[..16].copy_from_slice(&CANARY);
    message[16..].copy_from_slice(&number.to_be_bytes());
    message
}

/// Sends back what comes by the one connection that there is, until its client closes it.
fn reflect_stream(listener: &TcpListener, line: &Line) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) if line.is_closed() => return Ok(()),
            Err(_) => std::thread::sleep(PACE),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut buffer = [0; SIZE];
    loop {
        stream.read_exact(&mut buffer)?;
        stream.write_all(&buffer)?;
    }
}

fn reflect_datagrams(socket: &UdpSocket, line: &Line) {
    socket.set_read_timeout(Some(LOOK)).expect("a socket has a timeout");
    let mut buffer = [0; SIZE];
    while !line.is_closed() {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

/// Each message is answered before the next one goes, and is the one that was sent.
fn connection(to: SocketAddr, line: &Line) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, SILENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut back = [0; SIZE];
    for number in 0.. {
        if line.is_closed() {
            break;
        }
        stream.write_all(&message(number))?;
        stream.read_exact(&mut back)?;
        if back != message(number) {
            return Err(std::io::Error::other(format!("message {number} came back as another")));
        }
        line.heard();
        std::thread::sleep(PACE);
    }
    Ok(())
}

/// Sent without waiting for an answer; what a router says to it is no failure.
fn datagrams(to: SocketAddr, line: &Line) -> std::io::Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PACE))?;
    let mut back = [0; SIZE];
    for number in 0.. {
        if line.is_closed() {
            break;
        }
        let _ = socket.send_to(&message(number), to);
        if socket.recv(&mut back).is_ok_and(|len| len == SIZE && back[..16] == CANARY) {
            line.heard();
            std::thread::sleep(PACE);
        }
    }
    Ok(())
}
