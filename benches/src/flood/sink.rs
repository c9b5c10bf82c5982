//! The sink: counts, and says what it counted.

use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, setsockopt, sockopt};

use super::{Arrived, BATCH, BUFFER, LENGTH_MAX, Message, answer, passes};

/// Counts what comes to a socket, for ever.
///
/// # Errors
/// What the kernel says of the socket.
pub fn sink(socket: &UdpSocket) -> io::Result<()> {
    // Without the capability the default has to do.
    let _ = setsockopt(socket, sockopt::RcvBufForce, &BUFFER);
    let port = socket.local_addr()?.port();
    let mut buffers = vec![vec![0; LENGTH_MAX]; BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut count = Count::default();
    loop {
        let received = match receive(socket, &mut headers, &mut buffers) {
            Ok(received) => received,
            Err(error) if passes(&error) => continue,
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        for ((len, from), buffer) in received.into_iter().zip(&buffers) {
            let Some((run, message)) = Message::read(&buffer[..len]) else { continue };
            if count.take(run, message, now, || overruns(port)) {
                // What is lost is asked for again.
                let _ = from.map(|from| socket.send_to(&answer(run, message, &count.arrived), from));
            }
        }
    }
}

/// Waits for one datagram and takes all that are there; gives their lengths and senders.
fn receive(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrIn>,
    buffers: &mut [Vec<u8>],
) -> io::Result<Vec<(usize, Option<SocketAddrV4>)>> {
    let mut parts: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let received = recvmmsg(socket.as_raw_fd(), headers, &mut parts, MsgFlags::MSG_WAITFORONE, None)?;
    Ok(received.map(|message| (message.bytes, message.address.map(SocketAddrV4::from))).collect())
}

/// Datagrams that found this port's socket full, from /proc/net/udp (its last column).
fn overruns(port: u16) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    let own = format!(":{port:04X}");
    let of = |line: &str| {
        let mut fields = line.split_whitespace();
        fields.nth(1).filter(|local| local.ends_with(&own))?;
        fields.last()?.parse::<u64>().ok()
    };
    text.lines().filter_map(of).sum()
}

/// What came of the run under way.
#[derive(Default)]
struct Count {
    run: u32,
    arrived: Arrived,
    highest: Option<u64>,
    first: Option<Instant>,
    overruns_before: u64,
}

impl Count {
    /// Takes a message in; true when it wants an answer.
    fn take(&mut self, run: u32, message: Message, now: Instant, overruns: impl Fn() -> u64) -> bool {
        match message {
            Message::Hello if run != self.run => {
                *self = Self { run, overruns_before: overruns(), ..Self::default() };
                true
            }
            Message::Hello => true,
            Message::Data(number) if run == self.run => {
                self.data(number, now);
                false
            }
            Message::End if run == self.run => {
                self.arrived.overrun = overruns().saturating_sub(self.overruns_before);
                true
            }
            Message::Data(_) | Message::End => false,
        }
    }

    fn data(&mut self, number: u64, now: Instant) {
        let first = *self.first.get_or_insert(now);
        self.arrived.received += 1;
        self.arrived.seconds = now.duration_since(first).as_secs_f64();
        if self.highest.is_some_and(|highest| number < highest) {
            self.arrived.late += 1;
        }
        self.highest = self.highest.max(Some(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_another_run_do_not_count_and_late_ones_are_named() {
        let (mut count, now) = (Count::default(), Instant::now());
        assert!(count.take(2, Message::Hello, now, || 5));
        for (run, number) in [(2, 0), (1, 9), (2, 2), (2, 1), (2, 3)] {
            assert!(!count.take(run, Message::Data(number), now, || 5));
        }
        assert!(!count.take(1, Message::End, now, || 9), "an end of another run");
        assert!(count.take(2, Message::End, now, || 9));
        assert_eq!((count.arrived.received, count.arrived.late, count.arrived.overrun), (4, 1, 4));
    }

    #[test]
    fn a_repeated_hello_does_not_start_again() {
        let (mut count, now) = (Count::default(), Instant::now());
        assert!(count.take(2, Message::Hello, now, || 0));
        assert!(!count.take(2, Message::Data(0), now, || 0));
        assert!(count.take(2, Message::Hello, now, || 0));
        assert_eq!(count.arrived.received, 1);
    }

    #[test]
    fn a_socket_that_nobody_empties_counts_its_overruns() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&socket, sockopt::RcvBuf, &4096).unwrap();
        let to = socket.local_addr().unwrap();
        for _ in 0..200 {
            socket.send_to(&[0; 1000], to).unwrap();
        }
        assert!(overruns(to.port()) > 100, "{}", overruns(to.port()));
    }
}
