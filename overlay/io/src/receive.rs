//! Receiving: one train in a call or, where trains are short and many wait, several.
//!
//! The first train of a call goes to the caller's own room. The others go to [`Rooms`], out of which short ones are
//! cheaply copied. Every room takes the longest train there is, so none is ever cut short.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use crate::cmsg::{self, Control};
use crate::udp::{Received, UdpSocket, socket_addr};

/// Most trains in one call; more save nothing that could be measured.
pub const TRAINS_MAX: usize = 16;
/// The longest train: UDP's length has 16 bits, and the kernel joins no further.
const ROOM: usize = 65_536;
/// From room to room: 17 cache lines more, lest the beginnings of all compete for one set of every cache.
const STRIDE: usize = ROOM + 17 * 64;

/// Where the trains of one call came to. What was never written is address space, not memory.
pub struct Rooms {
    /// All rooms but the first, which is the caller's.
    buf: Box<[u8]>,
    slots: Box<[Slot]>,
    trains: Vec<Received>,
    /// A filter of system calls knows recvmsg(2) only.
    one_by_one: bool,
}

/// What the kernel says of one train.
struct Slot {
    name: libc::sockaddr_storage,
    control: Control,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            buf: vec![0; (TRAINS_MAX - 1) * STRIDE].into(),
            slots: std::iter::repeat_with(Slot::new).take(TRAINS_MAX).collect(),
            trains: Vec::with_capacity(TRAINS_MAX),
            one_by_one: false,
        }
    }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rooms").field("trains", &self.trains).field("one_by_one", &self.one_by_one).finish()
    }
}

impl Rooms {
    /// The trains of the last call, in the order in which they came.
    pub fn trains(&self) -> &[Received] {
        &self.trains
    }

    /// The bytes of such a train; nothing of the first, which is in the caller's room.
    pub fn bytes(&self, nth: usize) -> &[u8] {
        let start = nth.wrapping_sub(1).saturating_mul(STRIDE);
        let len = self.trains.get(nth).map_or(0, |train| train.len);
        self.buf.get(start..start.saturating_add(len)).unwrap_or_default()
    }
}

impl Slot {
    fn new() -> Self {
        // SAFETY: all-zero is a valid sockaddr_storage.
        Self { name: unsafe { std::mem::zeroed() }, control: Control::new() }
    }

    /// A header that has the kernel write what it says here, and the train to `iov`.
    fn header(&mut self, iov: &mut libc::iovec) -> libc::msghdr {
        // SAFETY: all-zero is a valid msghdr.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        msg.msg_name = (&raw mut self.name).cast();
        msg.msg_namelen = size_of_val(&self.name) as libc::socklen_t;
        msg.msg_iov = iov;
        msg.msg_iovlen = 1;
        msg.msg_control = self.control.0.as_mut_ptr().cast();
        msg.msg_controllen = self.control.0.len() as _;
        msg
    }

    /// # Safety
    /// `msg` is as the kernel left it: its control buffer, this slot's, is alive and filled as far as it says.
    unsafe fn read(&self, msg: &libc::msghdr, len: usize) -> Received {
        // SAFETY: the caller vouches for it.
        let info = unsafe { cmsg::read(msg) };
        let from = if msg.msg_namelen == 0 { None } else { socket_addr(&self.name) };
        // An internet socket always says; what came from nowhere is nothing.
        let (from, len) = from.map_or((SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), 0), |from| (from, len));
        Received { from, to: info.local, len, segment: info.segment.unwrap_or(len).max(1) }
    }
}

impl UdpSocket {
    /// Receives what waits, `most` trains and [`TRAINS_MAX`] at most: the first into `room` (64 KiB, or it is cut short),
    /// the others into `rooms`, which tells of all. Fewer than asked for means that no more waited.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits. Others belong to earlier sends (ICMP) and only mean "go on".
    pub fn recv(&self, room: &mut [u8], rooms: &mut Rooms, most: usize) -> io::Result<()> {
        rooms.trains.clear();
        if most > 1 && !rooms.one_by_one {
            match self.recv_several(room, rooms, most.min(TRAINS_MAX)) {
                Err(error) if is_filtered(&error) => rooms.one_by_one = true,
                result => return result,
            }
        }
        self.recv_one(room, rooms)
    }

    fn recv_one(&self, room: &mut [u8], rooms: &mut Rooms) -> io::Result<()> {
        let slot = &mut rooms.slots[0];
        let mut iov = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let mut msg = slot.header(&mut iov);
        // SAFETY: every pointer in `msg` points to `iov`, `room` or the slot, with its true length, and outlives the call.
        let len = unsafe { libc::recvmsg(self.as_raw_fd(), &raw mut msg, libc::MSG_DONTWAIT) };
        if len < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: recvmsg filled `msg`, whose control buffer is the slot's.
        rooms.trains.push(unsafe { slot.read(&msg, len as usize) });
        Ok(())
    }

    fn recv_several(&self, room: &mut [u8], rooms: &mut Rooms, most: usize) -> io::Result<()> {
        // SAFETY: all-zero is a valid iovec and a valid mmsghdr.
        let (mut iovs, mut msgs): ([libc::iovec; TRAINS_MAX], [libc::mmsghdr; TRAINS_MAX]) =
            unsafe { std::mem::zeroed() };
        let spare = rooms.buf.chunks_exact_mut(STRIDE).map(|chunk| &mut chunk[..ROOM]);
        let all = std::iter::once(room).chain(spare).zip(rooms.slots.iter_mut());
        for ((iov, msg), (bytes, slot)) in iovs.iter_mut().zip(&mut msgs).zip(all).take(most) {
            *iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            msg.msg_hdr = slot.header(iov);
        }
        let fd = self.as_raw_fd();
        // SAFETY: the first `most` headers are filled; every pointer in them points to an iovec, a room or a slot of
        // their own, with its true length, and outlives the call.
        let came =
            unsafe { libc::recvmmsg(fd, msgs.as_mut_ptr(), most as _, libc::MSG_DONTWAIT as _, std::ptr::null_mut()) };
        if came < 0 {
            return Err(io::Error::last_os_error());
        }
        for (msg, slot) in msgs.iter().zip(&*rooms.slots).take(came as usize) {
            // SAFETY: recvmmsg filled this header, whose control buffer is the slot's.
            rooms.trains.push(unsafe { slot.read(&msg.msg_hdr, msg.msg_len as usize) });
        }
        Ok(())
    }
}

fn is_filtered(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
}
