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
    /// Payload, bytes: the shortest.
    pub length: usize,
    /// The longest; lengths vary up to it.
    pub longest: usize,
    /// So many leave at once; as soon as one is due without.
    pub burst: Option<usize>,
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
    let mut pace = Pace::new(load, began);
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
    if load.length < LENGTH_MIN || load.longest < load.length || load.longest > LENGTH_MAX {
        return Err(io::Error::other(format!(
            "a payload has {LENGTH_MIN} to {LENGTH_MAX} bytes, the longest the most"
        )));
    }
    if load.burst.is_some_and(|burst| !(1..=BATCH).contains(&burst)) {
        return Err(io::Error::other(format!("1 to {BATCH} datagrams leave at once")));
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
    burst: usize,
    /// When the one before the first was due; moves forward when time was lost.
    began: Instant,
}

impl Pace {
    fn new(load: &Load, began: Instant) -> Self {
        Self { rate: load.rate, burst: load.burst.unwrap_or(1), began }
    }

    fn due(&mut self, now: Instant, sent: u64) -> usize {
        let Some(rate) = self.rate else { return if self.burst > 1 { self.burst } else { BATCH } };
        // Two bursts, where one takes longer to come due.
        let catch_up = CATCH_UP.max(Duration::from_secs_f64(2.0 * (self.burst - 1) as f64 / rate));
        let behind = now.duration_since(self.began).as_secs_f64() - sent as f64 / rate;
        if behind > catch_up.as_secs_f64() {
            self.began += Duration::from_secs_f64(behind) - catch_up;
        }
        let due = (now.duration_since(self.began).as_secs_f64() * rate - sent as f64).max(0.0) as usize;
        match self.burst {
            1 => due.min(BATCH),
            burst if due < burst => 0,
            burst => burst,
        }
    }

    fn until(&self, sent: u64) -> Duration {
        let next = self.rate.map_or(0.0, |rate| (sent + self.burst as u64) as f64 / rate);
        Duration::from_secs_f64(next).saturating_sub(self.began.elapsed())
    }
}

/// Datagrams that leave in one call.
struct Burst {
    run: u32,
    lengths: (usize, usize),
    payloads: Vec<Vec<u8>>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Burst {
    fn new(load: &Load) -> Self {
        let payloads = vec![vec![0x5a; load.longest]; BATCH];
        Self {
            run: load.run,
            lengths: (load.length, load.longest),
            payloads,
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Sends `count` datagrams from number `first` on; gives how many the kernel took.
    fn send(&mut self, socket: &UdpSocket, first: u64, count: usize) -> io::Result<u64> {
        for (number, payload) in (first..).zip(&mut self.payloads[..count]) {
            Message::Data(number).write(self.run, payload);
        }
        let lengths = (first..).map(|number| length_of(number, self.lengths));
        let parts = lengths.zip(&self.payloads[..count]).map(|(length, payload)| [IoSlice::new(&payload[..length])]);
        let parts: Vec<_> = parts.collect();
        let addresses = [None; BATCH];
        let taken = sendmmsg(socket.as_raw_fd(), &mut self.headers, &parts, addresses, [], MsgFlags::empty());
        match taken.map(Iterator::count).map_err(io::Error::from) {
            Ok(taken) => Ok(taken as u64),
            Err(error) if passes(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// In steps of the golden section: neighbours are far apart, and all lengths come equally often.
fn length_of(number: u64, (shortest, longest): (usize, usize)) -> usize {
    let place = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    shortest + ((place * (longest - shortest + 1) as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(rate: Option<f64>, burst: Option<usize>) -> Load {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        Load { to, run: 1, length: 64, longest: 64, burst, rate, time: Duration::from_secs(1) }
    }

    #[test]
    fn bursts_leave_whole_or_not_at_all() {
        let began = Instant::now();
        let mut pace = Pace::new(&load(Some(1000.0), Some(32)), began);
        assert_eq!(pace.due(began + Duration::from_millis(31), 0), 0);
        assert_eq!(pace.due(began + Duration::from_millis(33), 0), 32);
        assert_eq!(pace.due(began + Duration::from_millis(33), 32), 0);
        assert_eq!(pace.due(began + Duration::from_secs(9), 32), 32);
    }

    #[test]
    fn neighbours_have_unequal_lengths_and_all_lengths_come() {
        let lengths: Vec<_> = (0..10_000).map(|number| length_of(number, (18, 200))).collect();
        assert!(lengths.windows(2).all(|two| two[0] != two[1]));
        assert!((18..=200).all(|length| lengths.contains(&length)) && lengths.iter().all(|length| *length <= 200));
        assert_eq!(length_of(7, (64, 64)), 64);
    }

    #[test]
    fn what_is_due_follows_the_clock() {
        let began = Instant::now();
        let mut pace = Pace::new(&load(Some(10_000.0), None), began);
        assert_eq!(pace.due(began + Duration::from_micros(1050), 0), 10);
        assert_eq!(pace.due(began + Duration::from_micros(1050), 10), 0);
    }

    #[test]
    fn a_sender_that_could_not_run_does_not_burst() {
        let began = Instant::now();
        let mut pace = Pace::new(&load(Some(10_000.0), None), began);
        assert_eq!(pace.due(began + Duration::from_millis(500), 0), 50, "five milliseconds are made up for");
        assert_eq!(pace.due(began + Duration::from_millis(500), 50), 0);
    }

    #[test]
    fn without_a_rate_a_whole_batch_is_always_due() {
        let mut pace = Pace::new(&load(None, None), Instant::now());
        assert_eq!(pace.due(Instant::now(), 1 << 40), BATCH);
    }
}
