//! Two ends, the frames under way between them, and what they told their workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use warren_crypto::association::{Receiver, Sender, Suite};
use warren_crypto::exchange::{Action, Chance, End, Ends, Exchange, Refusal, Terms};
use warren_crypto::{PresharedKey, PrivateKey};

/// Pseudo-random bytes of a seed (SplitMix64), and indices that never repeat.
pub(super) struct Dice {
    state: u64,
    used: u32,
}

impl Chance for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }

    fn index(&mut self, lane: u16) -> u32 {
        self.used += 1;
        1 << 31 | self.used << 8 | u32::from(lane)
    }
}

/// One agent: the exchange, and what it told its workers.
pub(super) struct Side {
    pub(super) exchange: Exchange,
    pub(super) receivers: BTreeMap<u32, (u64, Receiver)>,
    pub(super) senders: Option<(u64, Vec<Sender>)>,
    /// Receivers that the workers were told of and have not confirmed yet.
    installing: Option<u64>,
    boot: u64,
}

pub(super) struct World {
    pub(super) sides: [Side; 2],
    /// Frames under way to each side.
    pub(super) wires: [VecDeque<Vec<u8>>; 2],
    /// Everything that was ever sent to each side.
    pub(super) history: [Vec<Vec<u8>>; 2],
    pub(super) dice: Dice,
    pub(super) now: Duration,
    /// Every sending key that was ever handed out, by what it seals.
    pub(super) sending: BTreeSet<Vec<u8>>,
    psk: Option<[u8; 32]>,
}

pub(super) fn private(byte: u8) -> PrivateKey {
    base64_key(&[byte; 32]).parse().unwrap()
}

fn base64_key(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([&0; 2]).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for digit in 0..=chunk.len() {
            text.push(DIGITS[(word >> (18 - 6 * digit) & 63) as usize] as char);
        }
    }
    text + "="
}

pub(super) fn terms(side: usize, boot: u64, psk: Option<[u8; 32]>) -> Terms {
    let keys = [private(17), private(99)];
    Terms {
        peer: keys[1 - side].public_key(),
        own: keys[side].clone(),
        preshared_key: psk.map(|bytes| base64_key(&bytes).parse::<PresharedKey>().unwrap()),
        boot,
        workers: [2, 3][side],
        suites: Suite::ALL.to_vec(),
    }
}

pub(super) fn side(which: usize, boot: u64, psk: Option<[u8; 32]>) -> Side {
    Side {
        exchange: Exchange::new(terms(which, boot, psk)),
        receivers: BTreeMap::new(),
        senders: None,
        installing: None,
        boot,
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            sides: [side(0, 1, None), side(1, 2, None)],
            wires: Default::default(),
            history: Default::default(),
            dice: Dice { state: seed, used: 0 },
            now: Duration::from_secs(100),
            sending: BTreeSet::new(),
            psk: None,
        }
    }

    pub(super) fn act(&mut self, who: usize, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            match action {
                Action::Send(frame) => {
                    self.history[1 - who].push(frame.clone());
                    self.wires[1 - who].push_back(frame);
                }
                Action::Receive(ends) => self.receive_on(who, ends),
                Action::SendOn { ends, reborn } => self.send_on(who, ends, reborn),
                Action::Purge => {
                    let side = &mut self.sides[who];
                    side.receivers.clear();
                    (side.senders, side.installing) = (None, None);
                }
                Action::Abandon(generation) => {
                    let side = &mut self.sides[who];
                    side.receivers.retain(|_, (of, _)| *of != generation);
                    side.senders.take_if(|(of, _)| *of == generation);
                    side.installing.take_if(|of| *of == generation);
                }
            }
        }
    }

    fn receive_on(&mut self, who: usize, Ends { generation, suite, ends }: Ends) {
        let side = &mut self.sides[who];
        for End { index, key, .. } in ends {
            let before = side.receivers.insert(index, (generation, Receiver::new(suite, &key, index)));
            assert!(before.is_none(), "an index was given twice");
        }
        side.installing = Some(generation);
    }

    fn send_on(&mut self, who: usize, Ends { generation, suite, ends }: Ends, reborn: bool) {
        let mut senders = Vec::new();
        for End { index, key, .. } in ends {
            // The first packet under a key says whether that key was ever used for sending.
            let mut probe = vec![0; 48];
            Sender::new(suite, &key, 0).seal(&[0; 16], &mut probe).unwrap();
            assert!(self.sending.insert(probe), "two senders under one key");
            senders.push(Sender::new(suite, &key, index));
        }
        let workers = [2, 3][who];
        assert_eq!(senders.len(), workers, "one lane for every sending worker");
        if reborn {
            self.sides[who].receivers.retain(|_, (of, _)| *of == generation);
        }
        self.sides[who].senders = Some((generation, senders));
    }

    pub(super) fn installed(&mut self, who: usize) {
        if let Some(generation) = self.sides[who].installing.take() {
            let action = self.sides[who].exchange.installed(generation, self.now);
            self.act(who, action);
        }
    }

    pub(super) fn deliver(&mut self, who: usize, frame: &[u8]) -> Result<(), Refusal> {
        let Self { sides, dice, now, .. } = self;
        let actions = sides[who].exchange.take(frame, *now, dice)?;
        self.act(who, actions);
        Ok(())
    }

    pub(super) fn want(&mut self, who: usize) {
        let Self { sides, dice, now, .. } = self;
        let action = sides[who].exchange.want(*now, dice);
        self.act(who, action);
    }

    pub(super) fn tick(&mut self, by: Duration) {
        self.now += by;
        for who in 0..2 {
            let Self { sides, dice, now, .. } = self;
            let actions = sides[who].exchange.tick(*now, dice);
            self.act(who, actions);
        }
    }

    pub(super) fn restart(&mut self, who: usize) {
        let boot = self.sides[who].boot + 2;
        self.sides[who] = side(who, boot, self.psk);
        // The tunnel is made anew: nothing that was under way fits it.
        self.wires = Default::default();
        let hello = self.sides[who].exchange.hello();
        self.wires[1 - who].push_back(hello);
    }

    /// Everything that is under way arrives, workers answer at once.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            for who in 0..2 {
                while let Some(frame) = self.wires[who].pop_front() {
                    let _ = self.deliver(who, &frame);
                }
                self.installed(who);
            }
        }
    }

    /// Packets of every lane of `who`; how many the peer opened.
    pub(super) fn talk(&mut self, who: usize) -> (usize, usize) {
        let Some((_, mut senders)) = self.sides[who].senders.take() else { return (0, 0) };
        let mut opened = 0;
        for sender in &mut senders {
            let mut datagram = [0; 64];
            let len = sender.seal(b"sixteen bytes ok", &mut datagram).unwrap();
            let receiver = self.sides[1 - who].receivers.get_mut(&sender.index());
            let packet = receiver.and_then(|(_, receiver)| receiver.open(&mut datagram[..len]).ok());
            opened += usize::from(packet.is_some_and(|packet| packet == b"sixteen bytes ok"));
        }
        let sent = senders.len();
        self.sides[who].senders = Some((0, senders));
        (sent, opened)
    }
}
