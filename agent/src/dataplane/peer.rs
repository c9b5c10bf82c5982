//! One peer: its session, where it is, what waits for it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use warren_crypto::tunnel::{Identity, Opened, Tunnel, TunnelConfig, TunnelError};
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Open, Seal, Slot};
use warren_overlay::mesh::PeerSpec;

use super::PeerReport;
use super::counters::LaneCounters;
use super::link::{Association, Obstacle, Passed};
use super::orders::PeerId;

/// The feature that a record names.
pub const ASSOCIATIONS: &str = "associations/1";
/// Packets that wait for a session, at most; the first second of a connection, not a buffer for an outage.
const WAITING_MAX: usize = 64;
/// Bytes that wait, at most: two superpackets.
const WAITING_BYTES: usize = 128 << 10;
/// After this nobody waits for an answer any longer.
const WAITING_TIME: Duration = Duration::from_secs(10);
/// Trains sent singly after a device refused segmentation, before it is tried again.
const SINGLE_TRAINS: u32 = 4096;

/// What passed and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Inner packets sent.
    pub tx_packets: u64,
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner packets received.
    pub rx_packets: u64,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Lost either way.
    pub drops: u64,
}

/// What workers read and write of a peer without its lock; the same for all of its descriptions.
pub(super) struct Shared {
    id: PeerId,
    /// By worker.
    lanes: Box<[LaneCounters]>,
    /// Changes whenever the session changes where datagrams go.
    way: AtomicU32,
    /// Packets went through the tunnel, or nowhere, for lack of an association.
    wanted: AtomicBool,
}

/// A peer in its slot.
pub(super) struct Peer {
    shared: Arc<Shared>,
    speaks: bool,
    slot: Slot,
    spec: PeerSpec,
    mtu: usize,
    /// Shared with the same peer under its older descriptions, which a worker may still be reading.
    session: Arc<Mutex<Session>>,
}

/// What changes with every packet; behind the peer's mutex.
pub(super) struct Session {
    pub(super) tunnel: Tunnel,
    pub(super) counters: PeerCounters,
    /// What the clerk agreed on with the peer, or why there is nothing, for people.
    pub(super) association: Result<Association, Obstacle>,
    shared: Arc<Shared>,
    endpoints: Vec<SocketAddr>,
    endpoint: Option<SocketAddr>,
    local: Option<IpAddr>,
    /// A first handshake was begun: the peer may still have a session with our predecessor, and would send into nothing.
    greeted: bool,
    attempts: usize,
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
    waiting_since: Option<Instant>,
    /// When the handshake under way began, and how long the last one took.
    started: Option<Instant>,
    handshake_time: Option<Duration>,
    asked: bool,
    single_trains: u32,
}

/// Where and how to send a peer's trains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination {
    pub(super) slot: Slot,
    /// Leave from the worker's own port.
    pub(super) own: bool,
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) singly: bool,
}

impl Peer {
    pub(super) fn new(slot: Slot, spec: PeerSpec, identity: &Identity, mtu: u16, workers: usize) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let shared = Arc::new(Shared {
            id: PeerId { slot, serial: SERIAL.fetch_add(1, Ordering::Relaxed) },
            lanes: (0..workers).map(|_| LaneCounters::default()).collect(),
            way: AtomicU32::new(0),
            wanted: AtomicBool::new(false),
        });
        let tunnel = Tunnel::new(
            identity,
            TunnelConfig {
                peer: spec.public_key,
                preshared_key: spec.preshared_key.clone(),
                persistent_keepalive: spec.persistent_keepalive,
                number: slot,
            },
        );
        let session = Session {
            tunnel,
            counters: PeerCounters::default(),
            association: Err(Obstacle::default()),
            shared: Arc::clone(&shared),
            endpoint: spec.endpoints.first().copied(),
            endpoints: spec.endpoints.clone(),
            local: None,
            greeted: spec.endpoints.is_empty(),
            attempts: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_since: None,
            started: None,
            handshake_time: None,
            asked: false,
            single_trains: 0,
        };
        let speaks = spec.features.contains(ASSOCIATIONS);
        let session = Arc::new(Mutex::new(session));
        Self { shared, speaks, slot, mtu: peer_mtu(&spec, mtu), spec, session }
    }

    /// The same tunnel under a changed description, or `None` when the change needs a new tunnel.
    pub(super) fn keeps_tunnel(&self, spec: &PeerSpec) -> bool {
        self.spec.public_key == spec.public_key
            && self.spec.preshared_key == spec.preshared_key
            && self.spec.persistent_keepalive == spec.persistent_keepalive
    }

    pub(super) fn is(&self, spec: &PeerSpec) -> bool {
        self.spec == *spec
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// Which peer this is, whatever its description.
    pub(super) fn id(&self) -> PeerId {
        self.shared.id
    }

    /// True for another agent that knows associations.
    pub(super) fn speaks(&self) -> bool {
        self.speaks
    }

    /// Changes whenever [`Session::destination`] may have.
    pub(super) fn way(&self) -> u32 {
        self.shared.way.load(Ordering::Acquire)
    }

    /// One worker's counters.
    pub(super) fn lane(&self, worker: usize) -> &LaneCounters {
        &self.shared.lanes[worker]
    }

    /// Asks for an association; true when nobody had.
    pub(super) fn want(&self) -> bool {
        !self.shared.wanted.load(Ordering::Relaxed) && !self.shared.wanted.swap(true, Ordering::Relaxed)
    }

    /// Whether somebody asked since the last time.
    pub(super) fn was_wanted(&self) -> bool {
        self.shared.wanted.swap(false, Ordering::Relaxed)
    }

    /// On its associations.
    pub(super) fn passed(&self) -> Passed {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Passed {
            sent: self.shared.lanes.iter().map(|lane| of(&lane.tx_packets)).collect(),
            taken: self.shared.lanes.iter().map(|lane| of(&lane.rx_packets)).sum(),
        }
    }

    pub(super) fn spec(&self) -> &PeerSpec {
        &self.spec
    }

    /// The largest inner packet on the way to it.
    pub(super) fn mtu(&self) -> usize {
        self.mtu
    }

    /// A thread that panicked while it held the lock left at worst a miscounted packet behind.
    pub(super) fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> PeerReport {
        let session = self.lock();
        let status = session.tunnel.status();
        PeerReport {
            name: self.spec.name.clone(),
            public_key: self.spec.public_key,
            endpoint: session.endpoint,
            handshake_age: status.handshake_age,
            handshake_time: session.handshake_time,
            connecting: !session.tunnel.has_session() && session.attempts > 0,
            unanswered: status.unanswered,
            counters: self.shared.lanes.iter().fold(session.counters, LaneCounters::add_to),
            association: session.association,
            speaks_associations: self.speaks,
        }
    }
}

/// A peer's new description with the session of the old one.
pub(super) fn inherit(old: &Peer, spec: PeerSpec, mtu: u16) -> Peer {
    old.lock().may_be_at(&spec.endpoints);
    let (shared, session) = (Arc::clone(&old.shared), Arc::clone(&old.session));
    let speaks = spec.features.contains(ASSOCIATIONS);
    Peer { shared, speaks, slot: old.slot, mtu: peer_mtu(&spec, mtu), spec, session }
}

fn peer_mtu(spec: &PeerSpec, own: u16) -> usize {
    usize::from(spec.mtu.unwrap_or(own).min(own))
}

impl Session {
    /// Where to send; `None` while nobody knows.
    pub(super) fn destination(&mut self, slot: Slot) -> Option<Destination> {
        let singly = self.single_trains > 0;
        self.single_trains = self.single_trains.saturating_sub(1);
        Some(Destination { slot, own: false, to: self.endpoint?, from: self.local, singly })
    }

    /// An authentic datagram came from here: the peer is there now (roaming).
    pub(super) fn heard(&mut self, from: SocketAddr, to: Option<IpAddr>) {
        if self.endpoint != Some(from) || self.local != to {
            self.endpoint = Some(from);
            self.local = to;
            self.moved();
        }
    }

    /// Whether datagrams go to another address than this one.
    pub(super) fn is_elsewhere(&self, from: SocketAddr) -> bool {
        self.endpoint != Some(from)
    }

    /// Where the peer seems to be when its packets come from here; `None` where datagrams go already. From a port of its
    /// own (`own_port`) a lane is never spoken to.
    pub(super) fn elsewhere(&self, from: SocketAddr, own_port: bool) -> Option<SocketAddr> {
        let mut there = from;
        if let Some(to) = self.endpoint.filter(|_| own_port) {
            there.set_port(to.port());
        }
        self.is_elsewhere(there).then_some(there)
    }

    /// Whoever remembers the way must ask again.
    fn moved(&self) {
        self.shared.way.fetch_add(1, Ordering::Release);
    }

    /// The peer is published to be elsewhere: the next datagram goes there.
    fn may_be_at(&mut self, endpoints: &[SocketAddr]) {
        if self.endpoints != endpoints {
            self.endpoints = endpoints.to_vec();
            self.endpoint = endpoints.first().copied();
            self.local = None;
            self.moved();
        }
    }

    pub(super) fn forget_local(&mut self) {
        self.local = None;
        self.moved();
    }

    pub(super) fn refuse_segmentation(&mut self) {
        self.single_trains = SINGLE_TRAINS;
    }

    /// An initiation is about to leave: the second and later ones try the next endpoint.
    pub(super) fn attempt(&mut self) {
        // A session knows where its peer is, wherever that is published to be.
        if self.attempts > 0 && !self.endpoints.is_empty() && !self.tunnel.has_session() {
            self.endpoint = self.endpoints.get(self.attempts % self.endpoints.len()).copied();
            self.local = None;
            self.moved();
        }
        self.attempts += 1;
        self.started = Some(Instant::now());
    }

    /// True once: the first handshake is due.
    pub(super) fn greet(&mut self) -> bool {
        !std::mem::replace(&mut self.greeted, true) && !self.tunnel.has_session()
    }

    /// A handshake is complete; if we began it, we know how long it took.
    pub(super) fn connected(&mut self) {
        self.attempts = 0;
        if let Some(started) = self.started.take() {
            self.handshake_time = Some(started.elapsed());
        }
    }

    /// Keeps a packet until there is a session. True when the clerk must be asked for one.
    ///
    /// # Errors
    /// [`DropReason::QueueFull`].
    pub(super) fn wait(&mut self, packet: &[u8]) -> Result<bool, DropReason> {
        if self.waiting.len() >= WAITING_MAX || self.waiting_bytes + packet.len() > WAITING_BYTES {
            return Err(DropReason::QueueFull);
        }
        self.waiting_bytes += packet.len();
        self.waiting.push_back(packet.into());
        Ok(!std::mem::replace(&mut self.asked, true))
    }

    pub(super) fn answered(&mut self) {
        self.asked = false;
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next packet that waited.
    pub(super) fn next_waiting(&mut self) -> Option<Box<[u8]>> {
        self.waiting_since = None;
        let packet = self.waiting.pop_front()?;
        self.waiting_bytes -= packet.len();
        Some(packet)
    }

    /// Whether what waits has waited too long; starts the clock at the first call.
    pub(super) fn is_stale(&mut self, now: Instant) -> bool {
        now.duration_since(*self.waiting_since.get_or_insert(now)) > WAITING_TIME
    }

    /// The tunnel gave up: nobody will wait for these any longer. Gives their number.
    pub(super) fn abandon_waiting(&mut self) -> u64 {
        self.waiting_bytes = 0;
        self.waiting_since = None;
        let lost = self.waiting.len() as u64;
        self.waiting.clear();
        lost
    }
}

impl Seal for Session {
    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        self.tunnel.seal(plaintext, out).map_err(reason)
    }
}

/// A session together with where the datagrams came from.
pub(super) struct Opening<'s> {
    pub(super) session: &'s mut Session,
    pub(super) from: SocketAddr,
    pub(super) to: Option<IpAddr>,
}

impl Open for Opening<'_> {
    fn open(&mut self, arena: &mut [u8], datagram: Range<usize>, spare: usize) -> Result<Range<usize>, DropReason> {
        let (trains, out) = arena.split_at_mut_checked(spare).ok_or(DropReason::Malformed)?;
        let datagram = trains.get(datagram).ok_or(DropReason::Malformed)?;
        let len = match self.session.tunnel.open(self.from.ip(), datagram, out).map_err(reason)? {
            Opened::Packet(packet) => packet.len(),
            Opened::Keepalive | Opened::Reply(_) => 0,
        };
        self.session.heard(self.from, self.to);
        Ok(spare..spare + len)
    }
}

/// The drop that a tunnel's refusal is.
pub(super) fn reason(error: TunnelError) -> DropReason {
    match error {
        TunnelError::NoSession => DropReason::NoSession,
        TunnelError::Buffer | TunnelError::Malformed => DropReason::Malformed,
        TunnelError::Replay => DropReason::Replay,
        TunnelError::Forged => DropReason::Forged,
        TunnelError::Handshake => DropReason::Handshake,
    }
}
