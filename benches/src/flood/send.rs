//! The sender: paced by the clock, or as fast as the kernel takes it.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt, sockopt};

use super::{Arrived, BATCH, BUFFER, LENGTH_MAX, LENGTH_MIN, Message, Outcome, passes, read_answer};

/// Between two askings.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Until the sink is given up.
const PATIENCE: Duration = Duration::from_secs(3);
/// For what is still in queues when the last datagram has been sent.
const SETTLE: Duration = Duration::from_millis(200);
/// A sender that was kept from running this long does not make up for it: a burst would be lost that nobody offered.
const CATCH_UP: Duration = Duration::from_millis(5);
/// Room for an answer.
const ANSWER_MAX: usize = 512;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The sink.
    pub to: SocketAddrV4,
    /// Tells this run from others.
    pub run: u32,
    /// Payload, bytes.
    pub length: usize,
    /// Datagrams per second; as fast as possible without.
    pub rate: Option<f64>,
    /// How long.
    pub time: Duration,
}

/// Sends, and asks the sink what came of it.
///
/// # Errors
/// When no sink answers, or the kernel refuses for a reason that stays.
pub fn send(load: &Load) -> io::Result<Outcome> {
    let socket = open(load)?;
    ask(&socket, load.run, Message::Hello)?;
    let (began, mut burst, mut sent) = (Instant::now(), Burst::new(load), 0);
    let mut pace = Pace::new(load.rate, began);
    while began.elapsed() < load.time {
        match pace.due(Instant::now(), sent) {
            0 => thread::sleep(pace.until(sent)),
            count => sent += burst.send(&socket, sent, count)?,
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    thread::sleep(SETTLE);
    let arrived = ask(&socket, load.run, Message::End)?;
    Ok(Outcome { sent, seconds, arrived })
}

fn open(load: &Load) -> io::Result<UdpSocket> {
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&load.length) {
        return Err(io::Error::other(format!("a payload has {LENGTH_MIN} to {LENGTH_MAX} bytes")));
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(load.to)?;
    socket.set_read_timeout(Some(ASK_AGAIN))?;
    // Without the capability the default has to do.
    let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
    Ok(socket)
}

/// Repeats a message until it is answered.
fn ask(socket: &UdpSocket, run: u32, message: Message) -> io::Result<Arrived> {
    let (mut question, mut bytes) = ([0; LENGTH_MIN], [0; ANSWER_MAX]);
    message.write(run, &mut question);
    let limit = Instant::now() + PATIENCE;
    while Instant::now() < limit {
        if socket.send(&question).is_err() {
            thread::sleep(ASK_AGAIN);
            continue;
        }
        if let Some(arrived) = socket.recv(&mut bytes).ok().and_then(|len| read_answer(&bytes[..len], run, message)) {
            return Ok(arrived);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no sink answers at {}", socket.peer_addr()?)))
}

/// How many datagrams are due.
struct Pace {
    rate: Option<f64>,
    /// When the one before the first was due; moves forward when time was lost.
    began: Instant,
}

impl Pace {
    fn new(rate: Option<f64>, began: Instant) -> Self {
        Self { rate, began }
    }

    fn due(&mut self, now: Instant, sent: u64) -> usize {
        let Some(rate) = self.rate else { return BATCH };
        let behind = now.duration_since(self.began).as_secs_f64() - sent as f64 / rate;
        if behind > CATCH_UP.as_secs_f64() {
            self.began += Duration::from_secs_f64(behind) - CATCH_UP;
        }
        let due = now.duration_since(self.began).as_secs_f64() * rate - sent as f64;
        (due.max(0.0) as usize).min(BATCH)
    }

    fn until(&self, sent: u64) -> Duration {
        let next = self.rate.map_or(0.0, |rate| (sent + 1) as f64 / rate);
        Duration::from_secs_f64(next).saturating_sub(self.began.elapsed())
    }
}

/// Datagrams that leave in one call.
struct Burst {
    run: u32,
    payloads: Vec<Vec<u8>>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Burst {
    fn new(load: &Load) -> Self {
        let payloads = vec![vec![0x5a; load.length]; BATCH];
        Self { run: load.run, payloads, headers: MultiHeaders::preallocate(BATCH, None) }
    }

    /// Sends `count` datagrams from number `first` on; gives how many the kernel took.
    fn send(&mut self, socket: &UdpSocket, first: u64, count: usize) -> io::Result<u64> {
        for (number, payload) in (first..).zip(&mut self.payloads[..count]) {
            Message::Data(number).write(self.run, payload);
        }
        let parts: Vec<_> = self.payloads[..count].iter().map(|payload| [IoSlice::new(payload)]).collect();
        let addresses = [None; BATCH];
        let taken = sendmmsg(socket.as_raw_fd(), &mut self.headers, &parts, addresses, [], MsgFlags::empty());
        match taken.map(Iterator::count).map_err(io::Error::from) {
            Ok(taken) => Ok(taken as u64),
            Err(error) if passes(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_follows_the_clock() {
        let began = Instant::now();
        let mut pace = Pace::new(Some(10_000.0), began);
        assert_eq!(pace.due(began + Duration::from_micros(1050), 0), 10);
        assert_eq!(pace.due(began + Duration::from_micros(1050), 10), 0);
    }

    #[test]
    fn a_sender_that_could_not_run_does_not_burst() {
        let began = Instant::now();
        let mut pace = Pace::new(Some(10_000.0), began);
        assert_eq!(pace.due(began + Duration::from_millis(500), 0), 50, "five milliseconds are made up for");
        assert_eq!(pace.due(began + Duration::from_millis(500), 50), 0);
    }

    #[test]
    fn without_a_rate_a_whole_batch_is_always_due() {
        let mut pace = Pace::new(None, Instant::now());
        assert_eq!(pace.due(Instant::now(), 1 << 40), BATCH);
    }
}
