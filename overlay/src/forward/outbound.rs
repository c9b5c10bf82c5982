//! Outbound: one frame is cut, each packet sealed straight into the send arena, equal datagrams grouped into trains.

use std::ops::Range;

use super::{Seal, Slot};
use crate::drops::DropReason;
use crate::offload::{Cutter, VnetHeader};
use crate::packet::View;

/// Most datagrams in a train (kernel UDP_MAX_SEGMENTS before 6.9).
const SEGMENTS_MAX: usize = 64;
/// Most bytes in a train (UDP over IPv4).
const TRAIN_MAX: usize = 65_507;
/// Four full trains.
const ARENA_LEN: usize = 4 * 65_536;
/// A train per packet in the worst case; bounds the list, not the traffic.
const TRAINS_MAX: usize = 256;
/// boringtun wants this much room whatever it writes (WireGuard's largest handshake message).
const ROOM_MIN: usize = 148;
/// Header and tag (RFC-less; WireGuard paper, section 5.4.6).
const OVERHEAD: usize = 32;

/// Equal datagrams for one peer; the last may be shorter.
#[derive(Clone, Debug)]
struct Train {
    slot: Slot,
    segment: usize,
    span: Range<usize>,
    /// Its last datagram was shorter: nothing may follow.
    sealed: bool,
}

/// The send arena: sealed datagrams in the order in which their packets came.
#[derive(Debug)]
pub struct Batch {
    arena: Box<[u8]>,
    used: usize,
    trains: Vec<Train>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { arena: vec![0; ARENA_LEN].into(), used: 0, trains: Vec::with_capacity(TRAINS_MAX) }
    }
}

impl Batch {
    /// True when another packet of `len` bytes may not fit: send what is there first.
    pub fn is_full_for(&self, len: usize) -> bool {
        self.arena.len() - self.used < (len + OVERHEAD).max(ROOM_MIN) || self.trains.len() >= TRAINS_MAX
    }

    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Seals one packet for `slot` and appends it to that peer's latest train, if it is the latest of all.
    ///
    /// # Errors
    /// What the session says; [`DropReason::QueueFull`] when the caller ignored [`Batch::is_full_for`].
    pub fn seal(&mut self, slot: Slot, plaintext: &[u8], session: &mut impl Seal) -> Result<(), DropReason> {
        if self.is_full_for(plaintext.len()) {
            return Err(DropReason::QueueFull);
        }
        let start = self.used;
        let len = session.seal(plaintext, &mut self.arena[start..])?;
        self.used += len;
        if let Some(train) = self.trains.last_mut()
            && train.slot == slot
            && !train.sealed
            && len <= train.segment
            && train.span.len() + len <= TRAIN_MAX
            && train.span.len() < SEGMENTS_MAX * train.segment
        {
            train.span.end += len;
            train.sealed = len < train.segment;
        } else {
            self.trains.push(Train { slot, segment: len, span: start..start + len, sealed: false });
        }
        Ok(())
    }

    /// Every train in order: peer, datagram length, datagrams.
    pub fn trains(&self) -> impl Iterator<Item = (Slot, usize, &[u8])> + Clone {
        self.trains.iter().map(|train| (train.slot, train.segment, &self.arena[train.span.clone()]))
    }

    /// Trains that nothing can join any more: all but the last, if that one has room.
    pub fn complete(&self) -> usize {
        let open = |train: &Train| {
            let len = train.span.len();
            !train.sealed && len + train.segment <= TRAIN_MAX && len < SEGMENTS_MAX * train.segment
        };
        self.trains.len() - usize::from(self.trains.last().is_some_and(open))
    }

    /// The first `count` trains were sent; the rest moves to the front of the arena.
    pub fn sent(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let Some(first) = self.trains.get(count) else { return self.clear() };
        let start = first.span.start;
        self.arena.copy_within(start..self.used, 0);
        self.used -= start;
        self.trains.drain(..count);
        for train in &mut self.trains {
            train.span = train.span.start - start..train.span.end - start;
        }
    }

    /// Empties the arena: its trains were sent.
    pub fn clear(&mut self) {
        self.trains.clear();
        self.used = 0;
    }

    /// Hands every train to `send` (peer, datagram length, datagrams) in order and empties the arena.
    pub fn drain(&mut self, mut send: impl FnMut(Slot, usize, &[u8])) {
        self.trains().for_each(|(slot, segment, payload)| send(slot, segment, payload));
        self.clear();
    }
}

/// Cuts the packet in `buf` (without its vnet header, 16 spare bytes behind it) and seals every piece.
/// `lost` learns of each packet that the session refused; `flush` must drain the batch when it is full.
///
/// Gives the packets and inner bytes that were sealed.
///
/// # Errors
/// When nothing of the frame can be sent.
pub fn seal_frame<S: Seal>(
    (buf, view, vnet): (&mut [u8], View, VnetHeader),
    (slot, mtu): (Slot, usize),
    session: &mut S,
    batch: &mut Batch,
    mut lost: impl FnMut(DropReason),
    mut flush: impl FnMut(&mut Batch),
) -> Result<(u64, u64), DropReason> {
    let mut cutter = Cutter::new(buf, view, vnet, mtu, S::MARKS)?;
    let (mut packets, mut bytes) = (0, 0);
    while let Some(packet) = cutter.next() {
        if batch.is_full_for(packet.len()) {
            flush(batch);
        }
        match batch.seal(slot, packet, session) {
            Ok(()) => {
                packets += 1;
                bytes += packet.len() as u64;
            }
            Err(reason) => lost(reason),
        }
    }
    Ok((packets, bytes))
}
