//! The forwarder: frames of the TUN in, trains of datagrams out, and back. Batch in, batch out; one [`DropReason`] per loss.
//!
//! It knows peers as slot numbers and sessions as the traits [`Seal`] and [`Open`], so that a tunnel, later an
//! association, or a test stands behind them. Buffers are made once; nothing is allocated where packets pass.

mod inbound;
mod outbound;
mod table;

pub use inbound::Inbound;
pub use outbound::{Batch, seal_frame};
pub use table::{Slot, Table};

use std::ops::Range;

use crate::drops::DropReason;

/// Seals packets for one peer.
pub trait Seal {
    /// Whether the other end completes checksums ([`crate::offload::mark`]).
    const MARKS: bool = false;

    /// Seals `plaintext` into `out`; gives the datagram's length.
    ///
    /// # Errors
    /// Why the packet is lost.
    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, DropReason>;
}

/// Opens datagrams of one peer.
pub trait Open {
    /// Whether the other end may leave checksums to this one ([`crate::offload::mark`]).
    const MARKS: bool = false;

    /// Opens the datagram that lies at `datagram` of `arena`, in its place or into the bytes from `spare` on, at least
    /// as many as it has. Gives where the packet lies: empty for a keepalive.
    ///
    /// # Errors
    /// Why the datagram is lost.
    fn open(&mut self, arena: &mut [u8], datagram: Range<usize>, spare: usize) -> Result<Range<usize>, DropReason>;
}

/// Drops by reason: plain counters of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// Counts `n` losses.
    pub fn add(&mut self, reason: DropReason, n: u64) {
        self.0[reason as usize] += n;
    }

    /// How many were lost for this reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All reasons with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }
}
