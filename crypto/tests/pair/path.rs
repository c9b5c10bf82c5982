//! A path between two ends in virtual time: delay, jitter, loss, cuts, and traffic that never waits for an answer.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use mock_instant::MockClock;
use warren_crypto::message::{DATA_OVERHEAD, INITIATION_LEN, Message};

use crate::pair::{End, Outcome, Setup, ipv4};

const STEP: Duration = Duration::from_millis(50);
/// Steps between two ticks: four a second, as the agent does.
const TICK: u64 = 5;
/// Packets that wait for a session, as the agent keeps them.
const BACKLOG: usize = 16;

/// A world of two ends. Directions and ends are numbered 0 and 1; direction `d` leaves end `d`.
pub(crate) struct World {
    pub(crate) ends: [End; 2],
    /// Chance in 1000 that a datagram is lost, by direction.
    pub(crate) loss: [u64; 2],
    /// Chance in 1000 that something sent earlier, of any kind, comes again.
    pub(crate) replays: u64,
    /// How many steps a datagram may be late, and so be overtaken.
    pub(crate) lateness: u64,
    /// Steps between two packets of traffic, by direction; zero is silence.
    pub(crate) pace: [u64; 2],
    pub(crate) seen: [Seen; 2],
    backlog: [VecDeque<Vec<u8>>; 2],
    flight: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    /// What an attacker on the path wrote down.
    recorded: Vec<(usize, Vec<u8>)>,
    step: u64,
    serial: u64,
    random: u64,
}

/// What was observed of one direction.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) delivered: HashSet<u32>,
    pub(crate) last: Duration,
    pub(crate) longest_stall: Duration,
    /// When this end sent initiations.
    pub(crate) initiations: Vec<Duration>,
    /// Empty data messages this end sent.
    pub(crate) keepalives: u64,
}

impl World {
    pub(crate) fn new(setup: Setup, seed: u64) -> Self {
        Self {
            ends: setup.build(),
            loss: [0; 2],
            replays: 0,
            lateness: 3,
            pace: [0; 2],
            seen: Default::default(),
            backlog: Default::default(),
            flight: BTreeMap::new(),
            recorded: Vec::new(),
            step: 0,
            serial: 0,
            random: seed | 1,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        STEP * u32::try_from(self.step).expect("a simulation of less than seven years")
    }

    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now() + duration;
        while self.now() < end {
            self.advance();
        }
    }

    /// Runs until the condition holds; gives the virtual time it took, or `None` when `limit` went by.
    pub(crate) fn wait(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let began = self.now();
        while !done(self) {
            if self.now() - began >= limit {
                return None;
            }
            self.advance();
        }
        Some(self.now() - began)
    }

    /// Forgets what was observed, so that a stall is counted from now.
    pub(crate) fn observe(&mut self) {
        let now = self.now();
        self.seen = Default::default();
        for seen in &mut self.seen {
            seen.last = now;
        }
    }

    /// Sends one packet now, or as soon as there is a session; it asks for one only once.
    pub(crate) fn send(&mut self, from: usize) {
        self.serial += 1;
        self.seen[from].sent += 1;
        if self.backlog[from].len() == BACKLOG {
            self.backlog[from].pop_front();
        }
        self.backlog[from].push_back(ipv4(self.serial as u32, 32));
        if let Some(initiation) = self.ends[from].initiate() {
            self.throw(from, initiation);
        }
        self.drain(from);
    }

    fn advance(&mut self) {
        MockClock::advance(STEP);
        self.step += 1;
        self.deliver();
        for end in 0..2 {
            if self.pace[end] > 0 && self.step.is_multiple_of(self.pace[end]) {
                self.send(end);
            }
            if self.step.is_multiple_of(TICK)
                && let Some(datagram) = self.ends[end].tick()
            {
                self.throw(end, datagram);
            }
            self.drain(end);
        }
    }

    fn drain(&mut self, from: usize) {
        while let Some(packet) = self.backlog[from].front() {
            let Ok(datagram) = self.ends[from].seal(packet) else { return };
            assert!(matches!(Message::classify(&datagram), Some(Message::Data { .. })));
            self.backlog[from].pop_front();
            self.throw(from, datagram);
        }
    }

    fn throw(&mut self, from: usize, datagram: Vec<u8>) {
        if datagram.len() == INITIATION_LEN {
            let now = self.now();
            self.seen[from].initiations.push(now);
        }
        self.seen[from].keepalives += u64::from(datagram.len() == DATA_OVERHEAD);
        if self.draw() % 1000 < self.replays {
            self.recorded.push((1 - from, datagram.clone()));
            let again = self.draw() as usize % self.recorded.len();
            let (to, old) = self.recorded[again].clone();
            self.fly(to, old);
        }
        if self.draw() % 1000 >= self.loss[from] {
            self.fly(1 - from, datagram);
        }
    }

    fn fly(&mut self, to: usize, datagram: Vec<u8>) {
        let arrival = self.step + 1 + self.draw() % self.lateness;
        self.serial += 1;
        self.flight.insert((arrival, self.serial), (to, datagram));
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.flight.first_entry() {
            if entry.key().0 > self.step {
                return;
            }
            let (to, datagram) = entry.remove();
            match self.ends[to].receive(&datagram) {
                Ok(Outcome::Packet(packet)) => self.arrived(1 - to, &packet),
                Ok(Outcome::Reply(reply)) => self.throw(to, reply),
                Ok(Outcome::Keepalive) | Err(_) => {}
            }
        }
    }

    fn arrived(&mut self, direction: usize, packet: &[u8]) {
        let now = self.now();
        let id = u32::from_be_bytes(packet[20..24].try_into().expect("four bytes"));
        let seen = &mut self.seen[direction];
        assert!(seen.delivered.insert(id), "packet {id} was delivered twice");
        seen.longest_stall = seen.longest_stall.max(now - seen.last);
        seen.last = now;
    }

    /// xorshift64: the same seed is the same world, but for the keys.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
