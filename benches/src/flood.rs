//! Datagrams at a rate that is known, and a sink that counts what comes: for small packets, where iperf3 spends more on
//! each than the tunnels do and so measures itself.
//!
//! Sender and sink talk in the same flow: `Hello` until the sink answers (it counts from zero then), data, and `End` until
//! the sink reports. Each datagram names its run, so that what a tunnel still held of an earlier one does not count.
//! The sender hands over up to 64 datagrams in one call, the sink takes as many: ordinary datagrams, no segmentation
//! offload, as DNS, voice and RPC send them.

mod send;
mod sink;

use std::io;

use serde::{Deserialize, Serialize};

pub use send::{Load, send};
pub use sink::sink;

/// The sink's port.
pub const PORT: u16 = 5300;
/// Shortest payload, bytes: the head of [`Message`].
pub const LENGTH_MIN: usize = 16;
/// Longest payload, bytes.
pub const LENGTH_MAX: usize = 8192;
/// Datagrams in one system call.
const BATCH: usize = 64;
/// Asked for both sockets, bytes; needs CAP_NET_ADMIN.
const BUFFER: usize = 8 << 20;

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Datagrams that the kernel took from the sender.
    pub sent: u64,
    /// Seconds of sending.
    pub seconds: f64,
    /// What the sink counted.
    pub arrived: Arrived,
}

/// What a sink counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arrived {
    /// Datagrams.
    pub received: u64,
    /// Of these, behind one that was sent later.
    pub late: u64,
    /// Seconds between the first and the last.
    pub seconds: f64,
    /// Datagrams that came to the sink's socket and found no room: the sink's fault, not the tunnel's.
    pub overrun: u64,
}

impl Outcome {
    /// Received datagrams per second; what arrives after the sender stopped lengthens the time.
    pub fn received_per_second(&self) -> f64 {
        let seconds = self.seconds.max(self.arrived.seconds);
        if seconds > 0.0 { self.arrived.received as f64 / seconds } else { 0.0 }
    }

    /// Sent datagrams per second.
    pub fn sent_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.sent as f64 / self.seconds } else { 0.0 }
    }

    /// Sent but not received, percent. Nothing sent is all lost.
    pub fn loss_percent(&self) -> f64 {
        self.percent(self.sent.saturating_sub(self.arrived.received), 100.0)
    }

    /// Lost at the sink's own socket, percent of what was sent.
    pub fn overrun_percent(&self) -> f64 {
        self.percent(self.arrived.overrun, 0.0)
    }

    fn percent(&self, part: u64, of_nothing: f64) -> f64 {
        if self.sent > 0 { 100.0 * part as f64 / self.sent as f64 } else { of_nothing }
    }
}

/// The first sixteen bytes of every datagram of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// Count from zero for this run.
    Hello,
    /// A datagram to count.
    Data(u64),
    /// Say what you counted.
    End,
}

const HELLO: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;

impl Message {
    fn write(self, run: u32, out: &mut [u8]) {
        let (kind, number) = match self {
            Self::Hello => (HELLO, 0),
            Self::Data(number) => (DATA, number),
            Self::End => (END, 0),
        };
        out[..4].copy_from_slice(&run.to_le_bytes());
        out[4..8].copy_from_slice(&[kind, 0, 0, 0]);
        out[8..LENGTH_MIN].copy_from_slice(&number.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<(u32, Self)> {
        let (run, rest) = bytes.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let (number, _) = rest.split_first_chunk()?;
        let message = match kind[0] {
            HELLO => Self::Hello,
            DATA => Self::Data(u64::from_le_bytes(*number)),
            END => Self::End,
            _ => return None,
        };
        Some((u32::from_le_bytes(*run), message))
    }
}

/// The sink's answer to `Hello` or `End`: the message that it answers, and the counts as JSON. A `Hello` that was sent twice
/// is answered twice, and the second answer must not pass for one to `End`.
fn answer(run: u32, to: Message, arrived: &Arrived) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_MIN];
    to.write(run, &mut bytes);
    bytes.extend(serde_json::to_vec(arrived).unwrap_or_default());
    bytes
}

fn read_answer(bytes: &[u8], run: u32, to: Message) -> Option<Arrived> {
    let json = bytes.get(LENGTH_MIN..)?;
    if Message::read(bytes) == Some((run, to)) { serde_json::from_slice(json).ok() } else { None }
}

/// True for refusals that pass: a full queue, a tunnel that is not up yet, a signal.
fn passes(error: &io::Error) -> bool {
    use nix::libc::{EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINTR, ENETUNREACH, ENOBUFS};
    error
        .raw_os_error()
        .is_some_and(|code| [EAGAIN, ECONNREFUSED, EHOSTUNREACH, EINTR, ENETUNREACH, ENOBUFS].contains(&code))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_message_reads_as_it_was_written() {
        for message in [Message::Hello, Message::Data(u64::MAX - 1), Message::End] {
            let mut bytes = [0; 40];
            message.write(7, &mut bytes);
            assert_eq!(Message::read(&bytes), Some((7, message)));
            assert_eq!(Message::read(&bytes[..LENGTH_MIN - 1]), None, "too short");
        }
        assert_eq!(Message::read(&[9; 16]), None, "of no known kind");
    }

    #[test]
    fn an_answer_to_another_run_or_another_question_is_none() {
        let arrived = Arrived { received: 3, late: 1, seconds: 0.5, overrun: 2 };
        let bytes = answer(5, Message::End, &arrived);
        assert_eq!(read_answer(&bytes, 5, Message::End), Some(arrived));
        assert_eq!(read_answer(&bytes, 6, Message::End), None);
        assert_eq!(read_answer(&answer(5, Message::Hello, &arrived), 5, Message::End), None);
    }

    #[test]
    fn the_loss_is_of_what_was_sent_and_nothing_sent_is_all_lost() {
        let arrived = Arrived { received: 75, late: 0, seconds: 4.0, overrun: 10 };
        let outcome = Outcome { sent: 100, seconds: 2.0, arrived };
        assert_eq!((outcome.loss_percent(), outcome.overrun_percent()), (25.0, 10.0));
        assert_eq!((outcome.sent_per_second(), outcome.received_per_second()), (50.0, 18.75));
        assert_eq!(Outcome::default().loss_percent(), 100.0);
    }

    #[test]
    fn what_is_sent_slowly_over_loopback_arrives_whole_and_at_its_rate() {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let std::net::SocketAddr::V4(to) = socket.local_addr().unwrap() else { panic!("IPv4") };
        std::thread::spawn(move || sink(&socket));
        for run in 1..3 {
            let load = Load {
                to,
                run,
                length: 64,
                longest: 64,
                burst: None,
                rate: Some(1000.0),
                time: Duration::from_millis(200),
            };
            let outcome = send(&load).unwrap();
            assert_eq!(outcome.arrived.received, outcome.sent, "run {run}");
            assert!((20..=200).contains(&outcome.sent), "never more than the rate: {outcome:?}");
            assert_eq!(outcome.arrived.late, 0);
        }
    }

    #[test]
    fn without_a_sink_there_is_an_error_not_a_number() {
        let nobody = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        let load = Load {
            to: nobody,
            run: 1,
            length: 64,
            longest: 64,
            burst: None,
            rate: None,
            time: Duration::from_millis(1),
        };
        assert!(send(&load).unwrap_err().to_string().contains("no sink answers"));
    }
}
