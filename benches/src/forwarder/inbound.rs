//! UDP to TUN: a train comes in one `recvmsg` (UDP_GRO); segments that continue each other leave by reference in one
//! `writev`, with partial checksums, as the superpacket that they once were.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tun_rs::SyncDevice;

use super::layout::{HEADERS_MAX, Layout};
use super::{HEADER_LEN, TAG_LEN, TCP, VNET_LEN, VNET_NEEDS_CSUM, VNET_TCPV4, VNET_TCPV6, VNET_UDP_L4, checksum};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const ECE: u8 = 0x40;
/// Largest IP packet.
const PACKET_MAX: usize = 65_535;

/// Forwards until something fails.
pub(super) fn run(device: &SyncDevice, socket: &UdpSocket) -> io::Result<()> {
    let mut train = vec![0; 65_536];
    loop {
        match receive(socket, &mut train) {
            Ok((len, segment)) => deliver(device, &train[..len], segment)?,
            Err(error) if super::passes(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes, and the length of each datagram but the last.
fn receive(socket: &UdpSocket, train: &mut [u8]) -> io::Result<(usize, usize)> {
    let mut control = [0u8; 64];
    let mut parts = [IoSliceMut::new(train)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let mut segment = message.bytes;
    for note in message.cmsgs()? {
        if let ControlMessageOwned::UdpGroSegments(size) = note {
            segment = size as usize;
        }
    }
    Ok((message.bytes, segment.max(1)))
}

fn deliver(device: &SyncDevice, train: &[u8], segment: usize) -> io::Result<()> {
    let mut run: Option<Run<'_>> = None;
    for datagram in train.chunks(segment).filter(|datagram| datagram.len() > HEADER_LEN + TAG_LEN) {
        let packet = &datagram[HEADER_LEN..datagram.len() - TAG_LEN];
        if run.as_mut().is_some_and(|run| run.take(packet)) {
            continue;
        }
        if let Some(run) = run.take() {
            run.write(device)?;
        }
        match Run::start(packet) {
            Some(started) => run = Some(started),
            None => write(device, &[IoSlice::new(&[0; VNET_LEN]), IoSlice::new(packet)])?,
        }
    }
    run.map_or(Ok(()), |run| run.write(device))
}

/// Segments that continue each other.
pub(super) struct Run<'a> {
    first: &'a [u8],
    layout: Layout,
    /// Payload of every segment but the last.
    segment: usize,
    payloads: Vec<&'a [u8]>,
    bytes: usize,
    push: u8,
    closed: bool,
}

impl<'a> Run<'a> {
    pub(super) fn start(packet: &'a [u8]) -> Option<Self> {
        let layout = Layout::of(packet)?;
        let payload = &packet[layout.headers..];
        let flags = flags(packet, layout);
        if payload.is_empty() || flags & !(ACK | PSH | ECE) != 0 {
            return None;
        }
        let closed = flags & PSH != 0;
        let payloads = vec![payload];
        Some(Self {
            first: packet,
            layout,
            segment: payload.len(),
            payloads,
            bytes: payload.len(),
            push: flags & PSH,
            closed,
        })
    }

    /// False when the packet does not continue the run.
    pub(super) fn take(&mut self, packet: &'a [u8]) -> bool {
        let layout = self.layout;
        if self.closed || Layout::of(packet) != Some(layout) || !self.same_flow(packet) {
            return false;
        }
        let payload = &packet[layout.headers..];
        let flags = flags(packet, layout);
        let fits = !payload.is_empty()
            && payload.len() <= self.segment
            && layout.headers + self.bytes + payload.len() <= PACKET_MAX
            && flags & !PSH == flags_without_push(self.first, layout);
        if fits {
            self.closed = payload.len() < self.segment || flags & PSH != 0;
            self.push |= flags & PSH;
            self.bytes += payload.len();
            self.payloads.push(payload);
        }
        fits
    }

    /// Everything but lengths, identification, checksums, sequence number and PSH must agree; the sequence must go on.
    fn same_flow(&self, packet: &[u8]) -> bool {
        let (first, ip) = (self.first, self.layout.ip);
        let same_ip = if self.layout.v6 {
            first[..4] == packet[..4] && first[6..40] == packet[6..40]
        } else {
            first[..2] == packet[..2] && first[6..10] == packet[6..10] && first[12..20] == packet[12..20]
        };
        if !same_ip || first[ip..ip + 4] != packet[ip..ip + 4] {
            return false;
        }
        if self.layout.protocol != TCP {
            return true;
        }
        sequence(packet, ip) == sequence(first, ip).wrapping_add(self.bytes as u32)
            && first[ip + 8..ip + 13] == packet[ip + 8..ip + 13]
            && first[ip + 14..ip + 16] == packet[ip + 14..ip + 16]
            && first[ip + 18..self.layout.headers] == packet[ip + 18..self.layout.headers]
    }

    fn write(&self, device: &SyncDevice) -> io::Result<()> {
        if self.payloads.len() == 1 {
            return write(device, &[IoSlice::new(&[0; VNET_LEN]), IoSlice::new(self.first)]);
        }
        let mut head = [0; VNET_LEN + HEADERS_MAX];
        let len = self.write_head(&mut head);
        let mut parts = Vec::with_capacity(1 + self.payloads.len());
        parts.push(IoSlice::new(&head[..len]));
        parts.extend(self.payloads.iter().map(|payload| IoSlice::new(payload)));
        write(device, &parts)
    }

    fn write_head(&self, head: &mut [u8; VNET_LEN + HEADERS_MAX]) -> usize {
        let layout = self.layout;
        let (vnet, header) = head.split_at_mut(VNET_LEN);
        let header = &mut header[..layout.headers];
        header.copy_from_slice(&self.first[..layout.headers]);
        layout.set_length(header, self.bytes);
        let partial = checksum::fold(layout.pseudo(header, layout.headers - layout.ip + self.bytes));
        let at = layout.ip + layout.checksum_offset();
        header[at..at + 2].copy_from_slice(&partial);
        if layout.protocol == TCP {
            header[layout.ip + 13] |= self.push;
        }
        vnet[0] = VNET_NEEDS_CSUM;
        vnet[1] = self.gso_type();
        for (at, value) in [(2, layout.headers), (4, self.segment), (6, layout.ip), (8, layout.checksum_offset())] {
            vnet[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
        }
        VNET_LEN + layout.headers
    }

    /// The packet as the kernel gets it.
    #[cfg(test)]
    pub(super) fn whole(&self) -> Vec<u8> {
        let mut head = [0; VNET_LEN + HEADERS_MAX];
        let len = self.write_head(&mut head);
        [&head[VNET_LEN..len], &self.payloads.concat()].concat()
    }

    fn gso_type(&self) -> u8 {
        match (self.layout.protocol, self.layout.v6) {
            (TCP, false) => VNET_TCPV4,
            (TCP, true) => VNET_TCPV6,
            _ => VNET_UDP_L4,
        }
    }
}

/// TCP's flags; none for UDP.
fn flags(packet: &[u8], layout: Layout) -> u8 {
    if layout.protocol == TCP { packet[layout.ip + 13] } else { 0 }
}

fn flags_without_push(packet: &[u8], layout: Layout) -> u8 {
    flags(packet, layout) & !PSH
}

fn sequence(packet: &[u8], ip: usize) -> u32 {
    u32::from_be_bytes([packet[ip + 4], packet[ip + 5], packet[ip + 6], packet[ip + 7]])
}

fn write(device: &SyncDevice, parts: &[IoSlice<'_>]) -> io::Result<()> {
    match device.send_vectored(parts) {
        Err(error) if !super::passes(&error) => Err(error),
        _ => Ok(()),
    }
}
