//! The associations of one worker: what it sends on, what it receives on. Nothing here is shared.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::ops::Range;

use warren_crypto::association::{AssociationError, Receiver, Sender};
use warren_crypto::exchange::{End, Probe};
use warren_crypto::message::DATA_HEADER_LEN;
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Open, Seal, Slot};

use super::orders::{Order, PeerId};
use super::peer::{Destination, Peer};
use super::snapshot::Snapshot;

/// Trains sent singly after a device refused segmentation, before it is tried again.
const SINGLE_TRAINS: u32 = 4096;

/// The way to one peer.
pub(super) struct Lane {
    peer: PeerId,
    generation: u64,
    sender: Sender,
    /// The receiver's.
    index: u32,
    /// Leave from the worker's own port.
    own: bool,
    /// Where datagrams go, and for which state of the peer's session that was read.
    way: Option<(u32, Destination)>,
    single_trains: u32,
}

/// One receiving end.
pub(super) struct Receiving {
    pub(super) peer: PeerId,
    pub(super) generation: u64,
    receiver: Receiver,
    /// The period in which something authentic came last.
    heard: Option<u32>,
    /// The port that the peer has for this lane alone, as it arrives: not where it is spoken to.
    own: Option<u16>,
    /// When the last probe by the one port, and by its own, was answered.
    probed: [Option<u32>; 2],
    /// Where its packets come from, and for which state of the peer's session that was compared.
    from: Option<(SocketAddr, u32)>,
}

/// All of a worker's.
#[derive(Default)]
pub(super) struct Lanes {
    /// By slot. Boxed, so that taking one out while its peer's packets are sealed moves a pointer.
    senders: Vec<Option<Box<Lane>>>,
    /// Those that are tried, one for a peer.
    tried: HashMap<Slot, Box<Lane>>,
    receivers: HashMap<u32, Box<Receiving>, BuildHasherDefault<ByIndex>>,
}

/// Receiver indices are random, and ours: nobody can choose them so that they collide.
#[derive(Default)]
struct ByIndex(u64);

impl Hasher for ByIndex {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    /// The table takes its bucket from the low bits, where an index has its worker: the random ones must reach them.
    fn write_u32(&mut self, index: u32) {
        let mixed = (self.0.rotate_left(5) ^ u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

impl Lanes {
    /// Takes the lane to this peer out, if there is one; [`Self::put`] it back.
    pub(super) fn take(&mut self, peer: PeerId) -> Option<Box<Lane>> {
        self.senders.get_mut(peer.slot as usize)?.take_if(|lane| lane.peer == peer)
    }

    pub(super) fn put(&mut self, lane: Box<Lane>) {
        let slot = lane.peer.slot as usize;
        if self.senders.len() <= slot {
            self.senders.resize_with(slot + 1, || None);
        }
        self.senders[slot] = Some(lane);
    }

    /// The receiver with this index.
    pub(super) fn receiver(&mut self, index: u32) -> Option<&mut Receiving> {
        self.receivers.get_mut(&index).map(|receiving| &mut **receiving)
    }

    /// Does what the clerk says. Gives what must be answered: a generation that is ready now.
    pub(super) fn obey(&mut self, order: Order) -> Option<(PeerId, u64)> {
        match order {
            Order::Receive { peer, generation, suite, ends } => {
                for End { index, key, .. } in ends {
                    let receiver = Receiver::new(suite, &key, index);
                    let receiving =
                        Receiving { peer, generation, receiver, heard: None, own: None, probed: [None; 2], from: None };
                    self.receivers.insert(index, Box::new(receiving));
                }
                return Some((peer, generation));
            }
            Order::Try { peer, generation, suite, end: End { index, key, .. } } => {
                let sender = Sender::new(suite, &key, index);
                let lane = Lane { peer, generation, sender, index, own: false, way: None, single_trains: 0 };
                self.tried.insert(peer.slot, Box::new(lane));
            }
            Order::Carry { peer, index, own } => {
                if let Some(mut lane) = self.take_by_index(peer, index) {
                    lane.own = own;
                    self.put(lane);
                }
            }
            Order::Rest { peer, index } => drop(self.take_by_index(peer, index)),
            Order::Drop { peer, generation } => self.keep(peer, |of| of != generation),
            Order::Purge { peer, keep } => self.keep(peer, |of| Some(of) == keep),
            Order::Probe { .. } => {}
        }
        None
    }

    /// The lane with this receiver index, be it in use or tried; [`Self::put_back`] it, or put it to use.
    pub(super) fn take_by_index(&mut self, peer: PeerId, index: u32) -> Option<Box<Lane>> {
        if self.is_tried(peer, index) {
            return self.tried.remove(&peer.slot);
        }
        self.senders.get_mut(peer.slot as usize)?.take_if(|lane| lane.peer == peer && lane.index == index)
    }

    /// Puts a lane back where it was.
    pub(super) fn put_back(&mut self, lane: Box<Lane>, tried: bool) {
        if tried {
            self.tried.insert(lane.peer.slot, lane);
        } else {
            self.put(lane);
        }
    }

    /// Whether the lane with this index is only tried.
    pub(super) fn is_tried(&self, peer: PeerId, index: u32) -> bool {
        self.tried.get(&peer.slot).is_some_and(|lane| lane.peer == peer && lane.index == index)
    }

    fn keep(&mut self, peer: PeerId, stays: impl Fn(u64) -> bool) {
        self.receivers.retain(|_, one| one.peer != peer || stays(one.generation));
        self.tried.retain(|_, lane| lane.peer != peer || stays(lane.generation));
        if let Some(lane) = self.take(peer).filter(|lane| stays(lane.generation)) {
            self.put(lane);
        }
    }

    /// Forgets the associations of peers that are gone.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        let stays = |peer: PeerId| snapshot.peer(peer.slot).is_some_and(|found| found.id() == peer);
        self.receivers.retain(|_, one| stays(one.peer));
        self.tried.retain(|_, lane| stays(lane.peer));
        for place in &mut self.senders {
            place.take_if(|lane| !stays(lane.peer));
        }
    }

    /// A device refused segmentation on the way to this peer.
    pub(super) fn refuse_segmentation(&mut self, peer: PeerId) {
        if let Some(mut lane) = self.take(peer) {
            lane.single_trains = SINGLE_TRAINS;
            self.put(lane);
        }
    }
}

impl Lane {
    /// Speaks from the worker's own port from now, or from the one port.
    pub(super) fn leave_by(&mut self, own: bool) -> bool {
        std::mem::replace(&mut self.own, own)
    }

    /// Where to send; reads the session only when the peer moved.
    pub(super) fn destination(&mut self, peer: &Peer) -> Option<Destination> {
        let version = peer.way();
        if self.way.is_none_or(|(read, _)| read != version) {
            self.way = peer.lock().destination(peer.slot()).map(|destination| (version, destination));
        }
        let (_, mut destination) = self.way?;
        destination.own = self.own;
        destination.singly = self.single_trains > 0;
        self.single_trains = self.single_trains.saturating_sub(1);
        Some(destination)
    }
}

impl Seal for Lane {
    const MARKS: bool = true;

    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        self.sender.seal(plaintext, out).map_err(reason)
    }
}

impl Open for Receiving {
    const MARKS: bool = true;

    fn open(&mut self, arena: &mut [u8], datagram: Range<usize>, _: usize) -> Result<Range<usize>, DropReason> {
        let start = datagram.start + DATA_HEADER_LEN;
        let datagram = arena.get_mut(datagram).ok_or(DropReason::Malformed)?;
        let packet = self.receiver.open(datagram).map_err(reason)?;
        Ok(start..start + packet.len())
    }
}

impl Receiving {
    /// Where the peer seems to be, when its packets come from elsewhere than where the session sends to; asks that once
    /// for each change.
    pub(super) fn elsewhere(&mut self, peer: &Peer, from: SocketAddr) -> Option<SocketAddr> {
        let seen = Some((from, peer.way()));
        if self.from == seen {
            return None;
        }
        self.from = seen;
        peer.lock().elsewhere(from, self.own == Some(from.port()))
    }

    /// True for the first authentic packet in each period: the clerk is told.
    pub(super) fn first_heard(&mut self, period: u32) -> bool {
        self.heard.replace(period) != Some(period)
    }

    /// The clerk could not be told: the next packet is the first again.
    pub(super) fn not_heard(&mut self) {
        self.heard = None;
    }

    /// A probe came from this port. True when it is to be answered: one of each kind in a tick.
    pub(super) fn is_probed(&mut self, probe: Probe, from: u16, tick: u32) -> bool {
        if probe.own && self.own != Some(from) {
            (self.own, self.from) = (Some(from), None);
        }
        self.probed[usize::from(probe.own)].replace(tick) != Some(tick)
    }
}

fn reason(error: AssociationError) -> DropReason {
    match error {
        AssociationError::UsedUp => DropReason::NoSession,
        AssociationError::Buffer | AssociationError::Malformed => DropReason::Malformed,
        AssociationError::Replay => DropReason::Replay,
        AssociationError::Forged => DropReason::Forged,
    }
}
