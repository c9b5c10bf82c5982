//! The data path: threads, tunnels and the forwarding table that they share.
//!
//! ```text
//! worker q:   TUN queue q -> cut, seal -> UDP          UDP socket q -> open, check, join -> TUN
//! clerk:      handshakes, timers, waiting packets      (never on a worker)
//! control:    swaps the snapshot, reads counters       (never waits for a worker)
//! ```
//!
//! Locks: one mutex per peer around its session, taken once per run of packets in the tunnel; on associations only after
//! the peer moved, and when the network refused a train. Beside it, none of them on the way of a packet that goes where it
//! belongs: orders to the workers and their answers, strays between workers, the queues of a device that was made anew.
//! Counters have one writer each.

mod associates;
mod chance;
mod clerk;
mod counters;
mod lanes;
mod link;
mod orders;
mod peer;
mod pinning;
mod roll;
mod snapshot;
mod strays;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use warren_crypto::association::Suite;
use warren_crypto::tunnel::Identity;
use warren_crypto::{PrivateKey, PublicKey};
use warren_io::{Tun, TunConfig, TunQueue, UdpConfig, UdpSocket, Waker};
use warren_overlay::forward::Drops;
use warren_overlay::mesh::PeerSpec;
use warren_overlay::offload::{Takes, samples_of_tunnels};
use warren_overlay::record::NodeName;

use crate::config::{Associations, Offload};
use clerk::Clerk;
use counters::WorkerCounters;
pub use link::{Association, Obstacle};
use orders::{Orders, Ready};
use peer::Peer;
pub use peer::{ASSOCIATIONS, PeerCounters};
use roll::Roll;
use snapshot::Snapshot;
use worker::Worker;

/// Handshakes a second from which on strangers must prove their address.
const HANDSHAKES_PER_SECOND: u64 = 200;

/// What the data path is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// TUN device.
    pub device: String,
    /// Inner MTU.
    pub mtu: u16,
    /// UDP port.
    pub port: u16,
    /// Lanes may leave from source ports of their own.
    pub source_ports: bool,
    /// SO_MARK of our datagrams; 0 for none.
    pub mark: u32,
    /// Threads; at least 1.
    pub workers: usize,
    /// Each of them stays on one core.
    pub pin: bool,
    /// Which offloads to use where the kernel has them.
    pub offload: Offload,
    /// This node's addresses, the first of each family answers "too big".
    pub addresses: Vec<std::net::IpAddr>,
    /// Whether data leaves the tunnel for associations.
    pub associations: Associations,
    /// What this node speaks there, best first.
    pub suites: Vec<Suite>,
}

/// What a peer looks like from here.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Its name.
    pub name: NodeName,
    /// Its key.
    pub public_key: PublicKey,
    /// Where datagrams go.
    pub endpoint: Option<SocketAddr>,
    /// Age of the session; `None` without one.
    pub handshake_age: Option<Duration>,
    /// How long the last handshake that we began took.
    pub handshake_time: Option<Duration>,
    /// Somebody wants to send and has no session.
    pub connecting: bool,
    /// How long handshakes have gone unanswered, whatever session there still is.
    pub unanswered: Option<Duration>,
    /// Traffic and drops.
    pub counters: PeerCounters,
    /// The associations on which data is sent, or why there are none.
    pub association: Result<Association, Obstacle>,
    /// The peer knows associations.
    pub speaks_associations: bool,
}

/// Everything the threads share.
struct Shared {
    identity: Identity,
    /// Proves this node in exchanges.
    private: PrivateKey,
    options: Options,
    snapshot: ArcSwap<Snapshot>,
    sockets: Vec<UdpSocket>,
    /// By worker, a socket to send from by a port of its own; the first has none.
    own_sockets: Vec<Option<UdpSocket>>,
    /// Their ports.
    own_ports: Box<[Option<u16>]>,
    /// Counts the clerk's ticks.
    ticks: AtomicU32,
    counters: Vec<WorkerCounters>,
    /// What the clerk tells the workers.
    orders: Vec<Orders>,
    /// What the workers answer.
    ready: Mutex<Vec<Ready>>,
    /// Datagrams of one worker's associations that came to another.
    strays: Vec<strays::Strays>,
    wakers: Vec<Waker>,
    /// Who turns.
    roll: Roll,
    /// A new device's queues, one place per worker, until the worker takes them.
    successors: Vec<Mutex<Option<Queues>>>,
    /// Somebody deleted the device.
    device_gone: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// What a worker sends by: the one port, and its own.
    fn outgoing(&self, worker: usize) -> (&UdpSocket, Option<&UdpSocket>) {
        (&self.sockets[worker], self.own_sockets[worker].as_ref())
    }
}

/// The queues of the device, one per worker, and what the device takes.
type Queues = (Arc<[TunQueue]>, Takes);

fn queues(tun: Tun) -> Queues {
    let takes = takes(&tun);
    (tun.queues.into(), takes)
}

fn takes(tun: &Tun) -> Takes {
    let checksums = tun.queues.iter().all(TunQueue::has_vnet);
    let tunnels = tun.tso && tun.uso && samples_of_tunnels().iter().all(|sample| tun.queues[0].would_take(sample));
    Takes { checksums, tcp: tun.tso, udp: tun.uso, tunnels }
}

/// The running data path. Dropping it stops and joins every thread and closes the device.
pub struct Dataplane {
    shared: Arc<Shared>,
    clerk: clerk::Mailbox,
    threads: Vec<JoinHandle<()>>,
    offloads: Vec<&'static str>,
    /// What passed with peers that are gone.
    gone: Mutex<PeerCounters>,
}

impl Dataplane {
    /// Opens the device and the sockets and starts the threads. No peer yet: everything is dropped.
    ///
    /// # Errors
    /// What the kernel says of the device or the port.
    pub fn start(private: PrivateKey, options: Options) -> io::Result<Self> {
        let workers = options.workers.max(1);
        let sockets = warren_io::bind(&UdpConfig {
            port: options.port,
            sockets: workers,
            gso: options.offload.udp_gso,
            gro: options.offload.udp_gro,
            mark: options.mark,
        })?;
        let own_sockets = own_sockets(&options, &sockets);
        let own_ports =
            own_sockets.iter().map(|socket| socket.as_ref().and_then(|socket| socket.port().ok())).collect();
        let tun = open_device(&options)?;
        let offloads = offloads(&tun, &sockets);
        let shared = Arc::new(Shared {
            identity: Identity::new(private.clone(), HANDSHAKES_PER_SECOND),
            private,
            options,
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            counters: (0..=workers).map(|_| WorkerCounters::default()).collect(),
            successors: (0..workers).map(|_| Mutex::default()).collect(),
            device_gone: AtomicBool::new(false),
            sockets,
            own_sockets,
            own_ports,
            ticks: AtomicU32::new(0),
            orders: (0..workers).map(|_| Orders::default()).collect(),
            ready: Mutex::default(),
            strays: (0..workers).map(|_| strays::Strays::default()).collect(),
            wakers: (0..workers).map(|_| Waker::new()).collect::<io::Result<_>>()?,
            roll: Roll::new(workers),
            stop: AtomicBool::new(false),
        });
        let (mailbox, clerk) = Clerk::new(Arc::clone(&shared));
        let mut dataplane = Self { shared, clerk: mailbox, threads: Vec::new(), offloads, gone: Mutex::default() };
        dataplane.spawn(tun, clerk)?;
        Ok(dataplane)
    }

    fn spawn(&mut self, tun: Tun, clerk: Clerk) -> io::Result<()> {
        let queues = queues(tun);
        for number in 0..queues.0.len() {
            let worker = Worker::new(number, Arc::clone(&self.shared), queues.clone(), self.clerk.clone());
            let pin = self.shared.options.pin;
            let body = move || {
                if pin {
                    pinning::pin(number);
                }
                worker.run();
            };
            self.threads.push(thread(format!("warren-worker-{number}"), body)?);
        }
        self.threads.push(thread("warren-clerk".into(), move || clerk.run())?);
        Ok(())
    }

    /// Makes these the peers, `local` this node's prefixes, and `vteps` where it takes VXLAN apart. Sessions of peers that stay
    /// are kept.
    pub fn apply(&self, peers: &BTreeMap<NodeName, PeerSpec>, local: &[IpNet], vteps: BTreeSet<SocketAddr>) {
        let now = self.shared.snapshot.load();
        let (identity, size) = (&self.shared.identity, (self.shared.options.mtu, self.shared.sockets.len()));
        let next = now.with(peers, (local, vteps), identity, size);
        self.remember_gone(&now, &next);
        self.shared.snapshot.store(Arc::new(next));
        self.clerk.look();
    }

    /// What passed with all peers so far must not shrink when one of them goes.
    fn remember_gone(&self, now: &Snapshot, next: &Snapshot) {
        let stays = |peer: &Peer| next.peer(peer.slot()).is_some_and(|heir| heir.id() == peer.id());
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        now.peers().filter(|peer| !stays(peer)).for_each(|peer| *gone += peer.report().counters);
    }

    /// What passed with all peers so far, those that are gone included.
    pub fn traffic(&self) -> PeerCounters {
        let mut sum = *self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.snapshot.load().peers().for_each(|peer| sum += peer.report().counters);
        sum
    }

    /// Asks every thread to show that it turns.
    pub fn call_the_roll(&self) {
        self.shared.roll.call();
        for waker in &self.shared.wakers {
            waker.wake();
        }
        // The clerk turns by itself, four times a second.
    }

    /// The threads that have not shown it since.
    pub fn absent(&self) -> Vec<String> {
        self.shared.roll.absent()
    }

    /// True after somebody deleted the device, until [`Self::reopen`].
    pub fn device_is_gone(&self) -> bool {
        self.shared.device_gone.load(Ordering::Acquire)
    }

    /// Makes the device anew and hands it to the workers. Sessions stay.
    ///
    /// # Errors
    /// What the kernel says of the device.
    pub fn reopen(&self) -> io::Result<()> {
        let tun = open_device(&self.shared.options)?;
        let queues = queues(tun);
        // Before a worker can take the new one, and lose that too.
        self.shared.device_gone.store(false, Ordering::Release);
        for place in &self.shared.successors {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(queues.clone());
        }
        for waker in &self.shared.wakers {
            waker.wake();
        }
        Ok(())
    }

    /// Every peer, by name.
    pub fn peers(&self) -> Vec<PeerReport> {
        self.shared.snapshot.load().peers().map(|peer| peer.report()).collect()
    }

    /// The peer with this key.
    pub fn peer(&self, key: &PublicKey) -> Option<PeerReport> {
        self.shared.snapshot.load().by_key(key).map(|peer| peer.report())
    }

    /// A fresh handshake with this peer, also when there is a session; `false` when it is no peer.
    pub fn handshake(&self, key: &PublicKey) -> bool {
        let slot = self.shared.snapshot.load().by_key(key).map(|peer| peer.slot());
        slot.is_some_and(|slot| self.clerk.handshake_now(slot))
    }

    /// Asks for associations with this peer, as data would.
    pub fn associate(&self, key: &PublicKey) {
        let snapshot = self.shared.snapshot.load();
        let peer = snapshot.by_key(key);
        if let Some(peer) = peer.filter(|peer| peer.speaks() && self.shared.options.associations != Associations::Off) {
            // The clerk looks by itself, four times a second.
            peer.want();
        }
    }

    /// Drops by reason over all threads.
    pub fn drops(&self) -> Drops {
        counters::total(&self.shared.counters)
    }

    /// Datagrams that reached their worker by way of another: the kernel had joined them with that one's.
    pub fn strays(&self) -> u64 {
        self.shared.strays.iter().map(strays::Strays::taken).sum()
    }

    /// Offloads in use, by their configuration key.
    pub fn offloads(&self) -> &[&'static str] {
        &self.offloads
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.clerk.stop();
        for waker in &self.shared.wakers {
            waker.wake();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One for every worker but the first. Without one, as where the system has none left, a lane leaves by the one port.
fn own_sockets(options: &Options, shared: &[UdpSocket]) -> Vec<Option<UdpSocket>> {
    let own = |(worker, socket): (usize, &UdpSocket)| {
        let wanted = options.source_ports && options.associations != Associations::Off && worker > 0;
        let say = |error: &io::Error| {
            tracing::warn!(worker, %error, "no source port of its own for a worker: its lanes leave by underlay.port");
        };
        wanted.then(|| socket.outgoing(options.mark).inspect_err(say).ok()).flatten()
    };
    shared.iter().enumerate().map(own).collect()
}

fn open_device(options: &Options) -> io::Result<Tun> {
    Tun::open(&TunConfig {
        name: options.device.clone(),
        mtu: options.mtu,
        queues: options.workers.max(1),
        tso: options.offload.tun_tso,
        uso: options.offload.tun_uso,
    })
}

fn thread(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let body = move || {
        // Half a data path would look alive and lose what is steered to the other half. The guard outlives the process.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
            tracing::error!("a thread of the data path panicked; the agent ends");
            std::process::abort();
        }
    };
    std::thread::Builder::new().name(name).spawn(body)
}

fn offloads(tun: &Tun, sockets: &[UdpSocket]) -> Vec<&'static str> {
    let (gso, gro) = sockets.first().map_or((false, false), |socket| (socket.gso(), socket.gro()));
    [("tun_tso", tun.tso), ("tun_uso", tun.uso), ("udp_gso", gso), ("udp_gro", gro)]
        .into_iter()
        .filter_map(|(name, on)| on.then_some(name))
        .collect()
}
