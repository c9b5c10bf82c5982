//! Sending: one train in a call, or several where several wait.
//!
//! Whatever the kernel refuses is tried again in the way that is left, and what stays refused is told. Trains leave in
//! the order in which they are given.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use socket2::SockAddr;

use crate::cmsg::{self, Control};
use crate::udp::{Sent, Train, UdpSocket};

/// Most trains in one call.
const CALL_MAX: usize = 16;

/// What a header of a train points to.
struct Parts {
    address: SockAddr,
    control: Control,
    iov: libc::iovec,
}

impl UdpSocket {
    /// Sends trains, as many in one call as possible; `told` hears of those, by number, that did not simply leave. Where a
    /// `true` stands beside a train, it leaves datagram by datagram.
    pub fn send_all<'t>(
        &self,
        trains: impl Iterator<Item = (Train<'t>, bool)> + Clone,
        mut told: impl FnMut(usize, Sent),
    ) {
        let mut trains = trains.enumerate();
        loop {
            let left = self.send_several(trains.clone().map(|(_, train)| train));
            if left > 0 {
                trains.nth(left - 1);
                continue;
            }
            // One alone, or one that the kernel refused among others: it hears why here.
            let Some((nth, (train, singly))) = trains.next() else { return };
            let sent = self.send(&train, singly);
            if sent != Sent::default() {
                told(nth, sent);
            }
        }
    }

    /// How many of these, from the first on, left in one call; fewer than two are not tried.
    fn send_several<'t>(&self, trains: impl Iterator<Item = (Train<'t>, bool)> + Clone) -> usize {
        let trains = trains.take(CALL_MAX).take_while(|(train, singly)| !train.is_several() || self.gso() && !singly);
        let count = trains.clone().count();
        if count < 2 {
            return 0;
        }
        let mut parts = [const { MaybeUninit::<Parts>::uninit() }; CALL_MAX];
        // SAFETY: all-zero is a valid mmsghdr.
        let mut msgs: [libc::mmsghdr; CALL_MAX] = unsafe { std::mem::zeroed() };
        for ((train, _), (part, msg)) in trains.zip(parts.iter_mut().zip(&mut msgs)) {
            msg.msg_hdr = self.header(&train, part);
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the first `count` headers are filled; every pointer in them points to parts of their own or to a payload,
        // with its true length; all outlive the call, which only reads them.
        let left = unsafe { libc::sendmmsg(self.as_raw_fd(), msgs.as_mut_ptr(), count as _, flags as _) };
        usize::try_from(left).unwrap_or(0)
    }

    /// Sends a train: in one call where possible, singly where the kernel, the device or `singly` says so.
    pub fn send(&self, train: &Train<'_>, singly: bool) -> Sent {
        let several = train.is_several();
        if several && (singly || !self.gso()) {
            return self.send_singly(train, false);
        }
        match self.send_once(train) {
            Ok(()) => Sent::default(),
            Err(error) if train.from.is_some() && source_may_be_gone(&error) => self.send_from_anywhere(train, &error),
            Err(error) => self.send_smaller(train, several, &error),
        }
    }

    /// The kernel knows whether the source was to blame: without it the datagrams leave, or fail in the same way.
    fn send_from_anywhere(&self, train: &Train<'_>, refused: &io::Error) -> Sent {
        let again = self.send(&Train { from: None, ..*train }, false);
        let same = refused.raw_os_error() == Some(libc::EINVAL) && (again.lost > 0 || again.segmentation_refused);
        Sent { source_gone: !same, ..again }
    }

    fn send_smaller(&self, train: &Train<'_>, several: bool, refused: &io::Error) -> Sent {
        match refused.raw_os_error() {
            _ if !several => lost_one(refused),
            // EIO: the device has no checksum offload; EINVAL: drivers, xfrm.
            Some(libc::EIO | libc::EINVAL) => self.send_singly(train, true),
            // A segment above the MTU says nothing about segmentation.
            Some(libc::EMSGSIZE) => self.send_singly(train, false),
            _ => Sent { lost: train.payload.len().div_ceil(train.segment), ..Sent::default() },
        }
    }

    fn send_singly(&self, train: &Train<'_>, segmentation_refused: bool) -> Sent {
        let mut sent = Sent { segmentation_refused, ..Sent::default() };
        for datagram in train.payload.chunks(train.segment) {
            let one = self.send(&Train { segment: datagram.len(), payload: datagram, ..*train }, true);
            sent.lost += one.lost;
            sent.too_big += one.too_big;
            sent.source_gone |= one.source_gone;
        }
        sent
    }

    fn send_once(&self, train: &Train<'_>) -> io::Result<()> {
        let mut parts = MaybeUninit::uninit();
        let msg = self.header(train, &mut parts);
        // SAFETY: every pointer in `msg` points to `parts` or to the payload, which sendmsg only reads.
        let rc = unsafe { libc::sendmsg(self.as_raw_fd(), &raw const msg, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A header that sends the train in one piece. It points into `parts` and to the payload.
    fn header(&self, train: &Train<'_>, parts: &mut MaybeUninit<Parts>) -> libc::msghdr {
        let parts = parts.write(Parts {
            address: SockAddr::from(self.mapped(train.to)),
            control: Control::new(),
            iov: libc::iovec { iov_base: train.payload.as_ptr().cast_mut().cast(), iov_len: train.payload.len() },
        });
        // SAFETY: all-zero is a valid msghdr.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        msg.msg_name = parts.address.as_ptr().cast_mut().cast();
        msg.msg_namelen = parts.address.len();
        msg.msg_iov = &raw mut parts.iov;
        msg.msg_iovlen = 1;
        msg.msg_control = parts.control.0.as_mut_ptr().cast();
        msg.msg_controllen = parts.control.0.len() as _;
        let segment = if train.is_several() { u16::try_from(train.segment).ok() } else { None };
        // SAFETY: `control` is alive and its length is given.
        unsafe { cmsg::write(&mut msg, segment, train.from, self.v6) };
        msg
    }
}

fn source_may_be_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::ENODEV))
}

fn lost_one(error: &io::Error) -> Sent {
    let too_big = usize::from(error.raw_os_error() == Some(libc::EMSGSIZE));
    Sent { lost: 1, too_big, ..Sent::default() }
}
