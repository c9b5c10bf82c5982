//! Waiting for a TUN queue, a UDP socket or a wake-up from another thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The TUN queue can be read.
    pub tun: bool,
    /// The UDP socket can be read.
    pub udp: bool,
    /// Somebody called [`Waker::wake`].
    pub woken: bool,
}

/// Wakes a waiting worker from any thread (an eventfd).
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes integers and gives a new descriptor or -1.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Ends the current or the next wait.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is 8 bytes long, as eventfd wants. A full counter means that a wake-up is pending.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is 8 bytes long, as eventfd wants; the descriptor is non-blocking.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// Waits until one of them has something, or `timeout_ms` has passed. A negative `tun` is not looked at.
///
/// # Errors
/// What poll(2) says, other than EINTR.
pub fn wait(tun: RawFd, udp: RawFd, waker: &Waker, timeout_ms: i32) -> io::Result<Ready> {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [entry(tun), entry(udp), entry(waker.0.as_raw_fd())];
    // SAFETY: the array lives through the call and its length is given.
    let rc = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    if rc < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(Ready::default()) } else { Err(error) };
    }
    let ready = Ready { tun: fds[0].revents != 0, udp: fds[1].revents != 0, woken: fds[2].revents != 0 };
    if ready.woken {
        waker.clear();
    }
    Ok(ready)
}
