//! TUN to UDP: superpackets are cut into datagrams by reference (fresh headers, payload where it lies), packets of one
//! size that wait together leave together; each is one `sendmsg` with UDP_SEGMENT.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tun_rs::SyncDevice;

use super::layout::{HEADERS_MAX, Layout};
use super::{HEADER_LEN, SEGMENTS_MAX, TAG_LEN, TCP, TRAIN_MAX, VNET_LEN, VNET_NEEDS_CSUM, checksum};

/// FIN and PSH stay on the last segment only, CWR on the first.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;
const TAG: [u8; TAG_LEN] = [0; TAG_LEN];

/// Tag of the datagram before, header of this one, and the packet's headers.
type Head = [u8; TAG_LEN + HEADER_LEN + HEADERS_MAX];

/// Forwards until something fails.
pub(super) fn run(device: &SyncDevice, socket: &UdpSocket) -> io::Result<()> {
    let mut sender = Sender { socket, counter: 0, heads: vec![[0; _]; SEGMENTS_MAX], singles: Singles::default() };
    let mut frame = vec![0; VNET_LEN + 65_536];
    loop {
        match device.recv(&mut frame) {
            Ok(len) if len > VNET_LEN => sender.frame(&mut frame[..len])?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sender.flush()?;
                super::wait_readable(device)?;
            }
            Err(error) if super::passes(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

struct Sender<'a> {
    socket: &'a UdpSocket,
    counter: u64,
    heads: Vec<Head>,
    singles: Singles,
}

/// Datagrams of one size that wait for the queue to run empty.
#[derive(Default)]
struct Singles {
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
}

impl Sender<'_> {
    fn frame(&mut self, frame: &mut [u8]) -> io::Result<()> {
        let (vnet, packet) = frame.split_at_mut(VNET_LEN);
        let number = |at: usize| usize::from(u16::from_le_bytes([vnet[at], vnet[at + 1]]));
        let (segment, start, offset) = (number(4), number(6), number(8));
        if vnet[1] != 0 && segment > 0 {
            return match Layout::of(packet) {
                Some(layout) => self.superpacket(packet, segment, layout),
                None => Ok(()),
            };
        }
        if vnet[0] & VNET_NEEDS_CSUM != 0 && start + offset + 2 <= packet.len() {
            let sum = checksum::finish(checksum::sum(&packet[start..]));
            packet[start + offset..start + offset + 2].copy_from_slice(&sum);
        }
        self.single(packet)
    }

    fn single(&mut self, packet: &[u8]) -> io::Result<()> {
        let len = HEADER_LEN + packet.len() + TAG_LEN;
        if self.singles.count > 0 && !self.singles.takes(len) {
            self.flush()?;
        }
        let header = self.header();
        let singles = &mut self.singles;
        singles.segment = if singles.count == 0 { len } else { singles.segment };
        singles.count += 1;
        for part in [&header, packet, &TAG] {
            singles.bytes.extend_from_slice(part);
        }
        if len < singles.segment { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.singles.count > 0 {
            send(self.socket, &[IoSlice::new(&self.singles.bytes)], self.singles.segment, self.singles.count)?;
            self.singles.bytes.clear();
            self.singles.count = 0;
        }
        Ok(())
    }

    fn superpacket(&mut self, packet: &[u8], segment: usize, layout: Layout) -> io::Result<()> {
        self.flush()?;
        let (header, payload) = packet.split_at(layout.headers);
        let datagram = HEADER_LEN + layout.headers + segment + TAG_LEN;
        let most = (TRAIN_MAX / datagram).clamp(1, SEGMENTS_MAX);
        let segments = payload.len().div_ceil(segment);
        let mut done = 0;
        while done < segments {
            let count = most.min(segments - done);
            self.train(header, payload, segment, layout, done..done + count)?;
            done += count;
        }
        Ok(())
    }

    fn train(
        &mut self,
        header: &[u8],
        payload: &[u8],
        segment: usize,
        layout: Layout,
        numbers: std::ops::Range<usize>,
    ) -> io::Result<()> {
        let count = numbers.len();
        for (slot, number) in numbers.clone().enumerate() {
            let wire = self.header();
            let head = &mut self.heads[slot];
            head[TAG_LEN..TAG_LEN + HEADER_LEN].copy_from_slice(&wire);
            write_headers(&mut head[TAG_LEN + HEADER_LEN..], header, payload, segment, layout, number);
        }
        let mut parts = Vec::with_capacity(2 * count + 1);
        for (slot, slice) in payload.chunks(segment).skip(numbers.start).take(count).enumerate() {
            let from = if slot == 0 { TAG_LEN } else { 0 };
            parts.push(IoSlice::new(&self.heads[slot][from..TAG_LEN + HEADER_LEN + layout.headers]));
            parts.push(IoSlice::new(slice));
        }
        parts.push(IoSlice::new(&TAG));
        send(self.socket, &parts, HEADER_LEN + layout.headers + segment + TAG_LEN, count)
    }

    fn header(&mut self) -> [u8; HEADER_LEN] {
        let mut header = [4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[8..].copy_from_slice(&self.counter.to_le_bytes());
        self.counter += 1;
        header
    }
}

impl Singles {
    fn takes(&self, len: usize) -> bool {
        len <= self.segment && self.count < SEGMENTS_MAX && self.bytes.len() + len <= TRAIN_MAX
    }
}

/// The headers of one segment, with checksums over its payload.
pub(super) fn write_headers(
    out: &mut [u8],
    header: &[u8],
    payload: &[u8],
    segment: usize,
    layout: Layout,
    number: usize,
) {
    let out = &mut out[..layout.headers];
    let start = number * segment;
    let end = payload.len().min(start + segment);
    let slice = &payload[start..end];
    out.copy_from_slice(header);
    if !layout.v6 {
        let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(number as u16);
        out[4..6].copy_from_slice(&id.to_be_bytes());
    }
    layout.set_length(out, slice.len());
    let transport = &mut out[layout.ip..];
    if layout.protocol == TCP {
        let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
        transport[4..8].copy_from_slice(&sequence.wrapping_add(start as u32).to_be_bytes());
        transport[13] &= if end < payload.len() { !FIN_PSH } else { 0xff };
        transport[13] &= if start > 0 { !CWR } else { 0xff };
    }
    let at = layout.checksum_offset();
    transport[at..at + 2].fill(0);
    let own = checksum::sum(transport) + checksum::sum(slice);
    let sum = checksum::finish(own + layout.pseudo(header, layout.headers - layout.ip + slice.len()));
    transport[at..at + 2].copy_from_slice(&sum);
}

fn send(socket: &UdpSocket, parts: &[IoSlice<'_>], segment: usize, count: usize) -> io::Result<()> {
    let size = segment as u16;
    let train = [ControlMessage::UdpGsoSegments(&size)];
    let control = if count > 1 { &train[..] } else { &[] };
    match sendmsg::<()>(socket.as_raw_fd(), parts, control, MsgFlags::empty(), None).map_err(io::Error::from) {
        Err(error) if !super::passes(&error) => Err(error),
        _ => Ok(()),
    }
}
