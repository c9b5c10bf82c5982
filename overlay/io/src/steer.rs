//! Which worker's socket a datagram goes to: a classic BPF program on the SO_REUSEPORT group.
//!
//! The program sees the UDP payload (net/core/sock_reuseport.c). A data message goes to the worker that its receiver
//! index names, so that one tunnel and one association are always opened by one worker and stay in order: an association's
//! index (bit 31 is set) names it in its low 8 bits, a tunnel's by its peer number; mod workers. Everything else goes to
//! worker 0.

use std::io;
use std::os::fd::RawFd;

// include/uapi/linux/bpf_common.h
const LD_W_ABS: u16 = 0x20;
const LD_B_ABS: u16 = 0x30;
const JEQ_K: u16 = 0x15;
const JSET_K: u16 = 0x45;
const MOD_K: u16 = 0x94;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
/// The first four bytes of a data message, as the program loads them (big endian).
const DATA: u32 = 0x0400_0000;
/// The low byte of the peer number within a data message: the receiver index is peer << 8, little endian, at byte 4.
const PEER_LOW_BYTE: u32 = 5;
/// The low byte of an association's receiver index.
const INDEX_LOW_BYTE: u32 = 4;
/// The receiver index's high byte.
const INDEX_HIGH_BYTE: u32 = 7;
/// Bit 31 of the index within that byte.
const ASSOCIATION: u32 = 0x80;

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Attaches the program; the group's sockets are numbered in the order in which they were bound.
pub(crate) fn attach(fd: RawFd, workers: u32) -> io::Result<()> {
    let mut program = [
        instruction(LD_W_ABS, 0, 0, 0),
        instruction(JEQ_K, 1, 0, DATA),
        instruction(RET_K, 0, 0, 0),
        instruction(LD_B_ABS, 0, 0, INDEX_HIGH_BYTE),
        instruction(JSET_K, 3, 0, ASSOCIATION),
        instruction(LD_B_ABS, 0, 0, PEER_LOW_BYTE),
        instruction(MOD_K, 0, 0, workers.max(1)),
        instruction(RET_A, 0, 0, 0),
        instruction(LD_B_ABS, 0, 0, INDEX_LOW_BYTE),
        instruction(MOD_K, 0, 0, workers.max(1)),
        instruction(RET_A, 0, 0, 0),
    ];
    load(fd, libc::SO_ATTACH_REUSEPORT_CBPF, &mut program)
}

/// Nothing reaches this socket.
pub(crate) fn refuse_all(fd: RawFd) -> io::Result<()> {
    load(fd, libc::SO_ATTACH_FILTER, &mut [instruction(RET_K, 0, 0, 0)])
}

fn load(fd: RawFd, option: libc::c_int, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` points to `program`, both live through the call, and the kernel copies the instructions.
    let rc = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            option,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The worker that opens associations with this receiver index: the same rule as the program's.
pub fn worker_of_index(index: u32, workers: usize) -> usize {
    (index & 0xff) as usize % workers.max(1)
}

/// The worker that opens the tunnel with this number: the same rule as the program's.
pub fn worker_of(peer: u32, workers: usize) -> usize {
    (peer & 0xff) as usize % workers.max(1)
}
