//! Every schedule, up to a bound: two links, a middle that loses, repeats, keeps back and reorders frames, cuts one way
//! off, lets time pass, and starts one side anew.
//!
//! States that were seen already are not gone on from. In every state that is reached: an index has one key; a key has
//! one sender; nobody sends for longer than [`BOUND`] what the other has no key for, or does not get; and once the middle
//! behaves, both reach each other.
//!
//! Each node has one worker, so that a generation is installed at once or not at all. A worker's Ready comes at once, or in
//! a step of its own where [`Budget::slow`] says so. A Seen comes at once, or where [`Budget::untold`] says so is lost for
//! a while, and the last of them comes late.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use warren_crypto::PrivateKey;
use warren_crypto::association::{AssociationKey, Sender, Suite};
use warren_crypto::exchange::Terms;

use self::steps::{Budget, Middle, Step};
use super::*;

mod explore;
mod steps;

const SECOND: Duration = Duration::from_secs(1);
/// A silent lane's time and a tick, as this test ticks.
const BOUND: Duration = Duration::from_secs(16);
/// By then everything is well again.
const RECOVERY: u64 = 40;
/// Frames under way to one side; the oldest is lost then.
const UNDER_WAY: usize = 2;

/// Random bytes that depend on nothing but whose they are and how many were drawn: equal states are equal bytes.
#[derive(Clone)]
struct Drawn {
    state: u64,
    used: u32,
}

impl Chance for Drawn {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }

    /// The same ones again after a start: nothing may depend on their being new.
    fn index(&mut self, lane: u16) -> u32 {
        self.used += 1;
        1 << 31 | self.used << 8 | u32::from(lane)
    }
}

/// What the first packet under a key looks like.
type Likeness = [u8; 16];

fn likeness(suite: Suite, key: &AssociationKey) -> Likeness {
    let mut probe = [0; 32];
    Sender::new(suite, key, 0).seal(&[], &mut probe).unwrap();
    probe[16..].try_into().unwrap()
}

#[derive(Clone)]
struct Node {
    link: Link,
    drawn: Drawn,
    boot: u64,
    /// By index: generation, key, and the period in which something was heard.
    receivers: BTreeMap<u32, (u64, Likeness, Option<u64>)>,
    /// What is tried, and what carries: generation, index, key.
    tried: Option<(u64, u32, Likeness)>,
    sender: Option<(u64, u32, Likeness)>,
    passed: Passed,
    /// Generations that its worker receives on and has not said so.
    unsaid: VecDeque<u64>,
    /// Since when it sends what the other has no key for.
    into_nothing: Option<Duration>,
}

impl Node {
    fn new(keys: &[PrivateKey; 2], which: usize, boot: u64) -> Self {
        let terms = Terms {
            own: keys[which].clone(),
            peer: keys[1 - which].public_key(),
            preshared_key: None,
            boot,
            workers: 1,
            suites: vec![Suite::ChaCha20Poly1305],
        };
        Self {
            link: Link::new(PeerId { slot: 0, serial: 0 }, Exchange::new(terms), 1),
            drawn: Drawn { state: boot << 8 | which as u64, used: 0 },
            boot,
            receivers: BTreeMap::new(),
            tried: None,
            sender: None,
            passed: Passed { sent: [0].into(), taken: 0 },
            unsaid: VecDeque::new(),
            into_nothing: None,
        }
    }

    fn keep(&mut self, stays: impl Fn(u64) -> bool) {
        self.receivers.retain(|_, (of, ..)| stays(*of));
        self.tried.take_if(|(of, ..)| !stays(*of));
        self.sender.take_if(|(of, ..)| !stays(*of));
    }

    fn hash(&self, now: Duration, hasher: &mut DefaultHasher) {
        let (link, left) = (&self.link, |at: Duration| at.saturating_sub(now));
        let age = |since: Duration| now.saturating_sub(since);
        (link.exchange.likeness(now), self.drawn.state, self.drawn.used, &self.receivers, self.sender, self.tried)
            .hash(hasher);
        link.sending.iter().for_each(|ways| ways.likeness(now, hasher));
        for (generation, (since, indices)) in &link.receiving {
            (generation, age(*since), indices).hash(hasher);
        }
        (link.silences, left(link.distrusted), &self.unsaid).hash(hasher);
        (link.hellos, left(link.next_hello), self.into_nothing.map(age)).hash(hasher);
        let (passed, known) = (&self.passed, &link.passed);
        (passed.sent != known.sent, passed.taken != known.taken).hash(hasher);
    }
}

#[derive(Clone)]
struct World {
    keys: [PrivateKey; 2],
    nodes: [Node; 2],
    wires: [VecDeque<Vec<u8>>; 2],
    now: Duration,
    /// Every key that anybody ever sent under.
    used: BTreeSet<Likeness>,
    /// What the middle does with data and with what is told of it.
    middle: Middle,
    /// The last Seen to each node that was kept back.
    kept: [Option<Vec<u8>>; 2],
    talks: [bool; 2],
    left: Budget,
    steps: Vec<Step>,
}

impl World {
    fn new(talks: [bool; 2], left: Budget) -> Self {
        let keys = [1, 2].map(|byte: u8| {
            let text = if byte == 1 {
                "ERERERERERERERERERERERERERERERERERERERERERE="
            } else {
                "Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2M="
            };
            text.parse::<PrivateKey>().unwrap()
        });
        let nodes = [0, 1].map(|which| Node::new(&keys, which, 1));
        let now = Duration::from_secs(1000);
        Self {
            keys,
            nodes,
            wires: Default::default(),
            now,
            used: BTreeSet::new(),
            middle: Middle::Fair,
            kept: Default::default(),
            talks,
            left,
            steps: Vec::new(),
        }
    }

    fn likeness(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.nodes.iter().for_each(|node| node.hash(self.now, &mut hasher));
        (&self.wires, &self.kept, &self.used, self.left).hash(&mut hasher);
        hasher.finish()
    }

    fn perform(&mut self, who: usize, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                // It travels beside the exchange, and comes at once where the middle is not told to keep it back: one that
                // plays with every Seen makes too many schedules.
                Deed::Frame(frame) if Seen::parse(&frame).is_some() => {
                    if self.middle == Middle::Untold(1 - who) {
                        self.kept[1 - who] = Some(frame);
                    } else {
                        self.deliver(1 - who, &frame);
                    }
                }
                Deed::Frame(frame) => {
                    self.wires[1 - who].push_back(frame);
                    if self.wires[1 - who].len() > UNDER_WAY {
                        self.wires[1 - who].pop_front();
                    }
                }
                Deed::Order(_, order) => self.obey(who, order),
                Deed::Handshake => {}
            }
        }
    }

    /// As a worker does.
    fn obey(&mut self, who: usize, order: Order) {
        let node = &mut self.nodes[who];
        match order {
            Order::Receive { generation, suite, ends, .. } => {
                for end in ends {
                    let before = node.receivers.insert(end.index, (generation, likeness(suite, &end.key), None));
                    assert_eq!(before, None, "two keys for one index");
                }
                node.unsaid.push_back(generation);
                if !self.left.slow {
                    self.say_ready(who);
                }
            }
            Order::Try { generation, suite, end, .. } => {
                let key = likeness(suite, &end.key);
                assert!(self.used.insert(key), "a counter that starts again under a key that was used");
                node.tried = Some((generation, end.index, key));
            }
            Order::Carry { index, .. } => {
                if let Some(tried) = node.tried.take_if(|(_, of, _)| *of == index) {
                    node.sender = Some(tried);
                }
            }
            Order::Probe { index, .. } => {
                let lane = [node.tried, node.sender].into_iter().flatten().find(|(_, of, _)| *of == index);
                if let Some((generation, _)) = lane.and_then(|lane| self.receiver(who, lane)) {
                    let probe = (Probe { port: 1, own: false }, 1);
                    let deeds = self.nodes[1 - who].link.probed((generation, index), probe, self.now);
                    self.perform(1 - who, deeds);
                }
            }
            Order::Rest { index, .. } => {
                node.tried.take_if(|(_, of, _)| *of == index);
                node.sender.take_if(|(_, of, _)| *of == index);
            }
            Order::Drop { generation, .. } => node.keep(|of| of != generation),
            Order::Purge { keep, .. } => node.keep(|of| Some(of) == keep),
        }
    }

    /// The worker says that it receives on the generation that it was told of first.
    fn say_ready(&mut self, who: usize) {
        let Node { link, unsaid, .. } = &mut self.nodes[who];
        let deeds = unsaid.pop_front().map(|generation| link.installed(generation, 0, self.now));
        self.perform(who, deeds.unwrap_or_default());
    }

    /// Where packets on this association of `who` arrive: the generation there, and when it was heard last.
    fn receiver(&mut self, who: usize, (_, index, key): (u64, u32, Likeness)) -> Option<(u64, &mut Option<u64>)> {
        let receiver = self.nodes[1 - who].receivers.get_mut(&index).filter(|(_, theirs, _)| *theirs == key);
        receiver.filter(|_| self.middle != Middle::Deaf(who)).map(|(generation, _, heard)| (*generation, heard))
    }

    /// Whether the other takes a packet on this association of `who`; it tells so once in a period.
    fn arrives(&mut self, who: usize, lane: (u64, u32, Likeness)) -> bool {
        let period = self.now.as_secs() / 3;
        let Some((generation, heard)) = self.receiver(who, lane) else { return false };
        if heard.replace(period) != Some(period) {
            let deeds = self.nodes[1 - who].link.heard(generation, lane.1, self.now);
            self.perform(1 - who, deeds);
        }
        true
    }

    /// A packet of data on the association of `who`.
    fn send(&mut self, who: usize) {
        let Some(sender) = self.nodes[who].sender else {
            self.nodes[who].into_nothing = None;
            return;
        };
        self.nodes[who].passed.sent[0] += 1;
        if self.arrives(who, sender) {
            self.nodes[who].into_nothing = None;
            self.nodes[1 - who].passed.taken += 1;
            return;
        }
        let since = *self.nodes[who].into_nothing.get_or_insert(self.now);
        assert!(self.now - since <= BOUND, "{who} sends into nothing since {:?}", self.now - since);
    }

    fn second(&mut self) {
        self.now += SECOND;
        for who in [0, 1] {
            if self.talks[who] {
                self.send(who);
            }
        }
        for who in [0, 1] {
            let Self { nodes, now, talks, .. } = self;
            let Node { link, drawn, passed, sender, .. } = &mut nodes[who];
            let mut deeds: Vec<_> = link.hello(*now).into_iter().collect();
            let wanted = talks[who] && sender.is_none();
            deeds.extend(link.tick(*now, passed.clone(), wanted, true, drawn));
            self.perform(who, deeds);
        }
    }

    fn deliver(&mut self, who: usize, frame: &[u8]) {
        let Node { link, drawn, .. } = &mut self.nodes[who];
        let deeds = link.take(frame, self.now, drawn).unwrap_or_default();
        self.perform(who, deeds);
    }

    fn reach_each_other(&self) -> bool {
        [0, 1].into_iter().all(|who| {
            self.nodes[who].sender.is_some_and(|(_, index, key)| {
                self.nodes[1 - who].receivers.get(&index).is_some_and(|(_, theirs, _)| *theirs == key)
            })
        })
    }

    /// The middle behaves, and both have something to say: how long until both reach each other for good.
    fn recover(mut self) -> u64 {
        self.talks = [true, true];
        let mut well = 0;
        for second in 1..=RECOVERY {
            self.settle();
            self.second();
            if !self.reach_each_other() {
                well = second;
            }
        }
        assert!(well < RECOVERY, "they do not reach each other though nothing is in the way");
        well
    }
}
