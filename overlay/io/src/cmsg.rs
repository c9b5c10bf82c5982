//! Control messages of the UDP socket: segment size, local address. Fixed buffers, written and read in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

// include/uapi/linux/udp.h
const UDP_SEGMENT: libc::c_int = 103;
pub(crate) const UDP_GRO: libc::c_int = 104;

/// Room for the control messages of one datagram train: a segment size and an address.
pub(crate) const CONTROL_LEN: usize = 128;

/// A control buffer with the alignment of `cmsghdr`.
#[repr(C, align(8))]
pub(crate) struct Control(pub(crate) [u8; CONTROL_LEN]);

impl Control {
    pub(crate) const fn new() -> Self {
        Self([0; CONTROL_LEN])
    }
}

/// Writes the control messages of a send into `msg`, whose control buffer must be a [`Control`].
///
/// # Safety
/// `msg.msg_control` points to a live [`Control`] and `msg.msg_controllen` is [`CONTROL_LEN`].
pub(crate) unsafe fn write(msg: &mut libc::msghdr, segment: Option<u16>, source: Option<IpAddr>, v6: bool) {
    let mut used = 0;
    // SAFETY: the caller vouches for the buffer; CMSG_FIRSTHDR and CMSG_NXTHDR stay within `msg_controllen`,
    // and both messages fit into CONTROL_LEN (24 + 40 bytes).
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(msg);
        if let Some(size) = segment {
            put(header, libc::SOL_UDP, UDP_SEGMENT, size);
            used += libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
            header = libc::CMSG_NXTHDR(msg, header);
        }
        match source {
            Some(source) if v6 => {
                put(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, in6_pktinfo(source));
                used += libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as u32) as usize;
            }
            Some(IpAddr::V4(source)) => {
                put(header, libc::IPPROTO_IP, libc::IP_PKTINFO, in_pktinfo(source));
                used += libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32) as usize;
            }
            _ => {}
        }
    }
    msg.msg_controllen = used as _;
    if used == 0 {
        msg.msg_control = std::ptr::null_mut();
    }
}

/// # Safety
/// `header` points into a control buffer with room for a `T`.
unsafe fn put<T>(header: *mut libc::cmsghdr, level: libc::c_int, kind: libc::c_int, value: T) {
    if header.is_null() {
        return;
    }
    // SAFETY: not null, and the caller vouches for the room; CMSG_DATA may be unaligned for `T`.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
}

fn in6_pktinfo(source: IpAddr) -> libc::in6_pktinfo {
    let address = match source {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: address.octets() }, ipi6_ifindex: 0 }
}

fn in_pktinfo(source: Ipv4Addr) -> libc::in_pktinfo {
    let address = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
    libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: libc::in_addr { s_addr: 0 } }
}

/// What the control messages of a receive said.
#[derive(Default)]
pub(crate) struct Info {
    pub(crate) segment: Option<usize>,
    pub(crate) local: Option<IpAddr>,
}

/// Reads the control messages that the kernel left in `msg`.
///
/// # Safety
/// `msg` is as recvmsg(2) left it: its control buffer is alive and `msg_controllen` bytes of it are filled.
pub(crate) unsafe fn read(msg: &libc::msghdr) -> Info {
    let mut info = Info::default();
    // SAFETY: the kernel wrote well-formed messages; the CMSG macros stay within `msg_controllen`,
    // and each payload is as large as its type says.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(msg);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_UDP, UDP_GRO) => {
                    let size = data.cast::<libc::c_int>().read_unaligned();
                    info.segment = usize::try_from(size).ok().filter(|size| *size > 0);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    info.local = Some(Ipv6Addr::from(pktinfo.ipi6_addr.s6_addr).to_canonical());
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    info.local = Some(IpAddr::from(pktinfo.ipi_addr.s_addr.to_ne_bytes()));
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(msg, header);
        }
    }
    info
}
