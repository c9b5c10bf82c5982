//! Joins received segments of one flow into superpackets, by reference: the frame that goes to the kernel is a list of
//! slices of the buffer in which the packets were opened.
//!
//! Only neighbours are joined, so the order never changes. A segment joins when its headers differ from the first one's
//! in nothing but length, sequence, identification, PSH and checksums, and when its checksum is right: the kernel will not
//! look at it again; a bare packet's is right by authentication. A datagram without one (VXLAN) joins as it is. What a VXLAN
//! device of this host takes apart is joined as TCP inside of a tunnel, if that is what it is. Everything else passes alone,
//! and untouched unless it is bare.
//!
//! A pushed segment does not end a superpacket, as it does in the kernel's own GRO: the whole is pushed then (RFC 9293,
//! section 3.9.1: that loses nothing). A sender pushes at the end of each write and a train ends somewhere else, so
//! that most trains would make two superpackets, each with an acknowledgement of its own.

use std::ops::Range;

use super::run::{Run, pseudo};
use super::{Gso, VNET_HDR_LEN, VnetHeader, bare};
use crate::checksum::Sum;
use crate::packet::View;

/// Most slices in one frame; with the vnet header well below the kernel's 1024.
pub const PARTS_MAX: usize = 128;

/// A packet that came out of a tunnel or an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where it starts in the buffer.
    pub start: usize,
    /// What it is.
    pub view: View,
    /// Its transport checksum was left out.
    pub bare: bool,
    /// Its destination takes VXLAN apart: this host's own kernel, at the port of one of its VXLAN devices.
    pub to_vtep: bool,
}

/// A frame for the TUN: the vnet header, then these slices of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Write<'c> {
    /// First part of the frame.
    pub vnet: [u8; VNET_HDR_LEN],
    /// The packet: the first slice holds all headers.
    pub parts: &'c [Range<usize>],
    /// Segments in the frame.
    pub segments: usize,
}

impl Write<'_> {
    /// A superpacket of TCP inside of a tunnel.
    pub fn is_tunnel(&self) -> bool {
        VnetHeader::is_tunnel(&self.vnet)
    }
}

/// What the TUN takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    /// Packets whose checksum is still to be made: the device has a vnet header.
    pub checksums: bool,
    /// TCP superpackets.
    pub tcp: bool,
    /// UDP superpackets.
    pub udp: bool,
    /// TCP superpackets inside of VXLAN.
    pub tunnels: bool,
}

/// Joins the packets of one train. Kept by the worker; allocates once.
#[derive(Debug)]
pub struct Coalescer {
    takes: Takes,
    parts: Vec<Range<usize>>,
    run: Option<Run>,
}

impl Coalescer {
    /// Nothing is under way.
    pub fn new(takes: Takes) -> Self {
        Self { takes, parts: Vec::with_capacity(PARTS_MAX), run: None }
    }

    /// The TUN takes no superpackets of tunnels after all.
    pub fn join_no_tunnels(&mut self) {
        self.takes.tunnels = false;
    }

    /// Takes the next packet, which may be bare. Whatever can no longer grow goes to `write`.
    pub fn push(&mut self, buf: &mut [u8], packet: Opened, write: &mut impl FnMut(&mut [u8], &Write<'_>)) {
        let Opened { start, view, bare, .. } = packet;
        let candidate = Run::begin(buf, packet, self.takes);
        if let (Some(run), Some(next)) = (self.run.as_mut(), candidate.as_ref())
            && self.parts.len() < run.segments_max()
            && run.take(buf, next)
        {
            self.parts.push(start + next.header_len..start + view.len);
            return;
        }
        self.flush(buf, write);
        match candidate {
            Some(run) => {
                self.parts.push(start..start + view.len);
                self.run = Some(run);
            }
            None => {
                let vnet = if bare { self.alone(buf, start, view) } else { [0; VNET_HDR_LEN] };
                let alone = start..start + view.len;
                write(buf, &Write { vnet, parts: std::slice::from_ref(&alone), segments: 1 });
            }
        }
    }

    /// Writes what is left; call at the end of every train.
    pub fn flush(&mut self, buf: &mut [u8], write: &mut impl FnMut(&mut [u8], &Write<'_>)) {
        let Some(run) = self.run.take() else { return };
        let segments = self.parts.len();
        let vnet = match segments {
            1 if run.packet.bare => self.alone(buf, run.packet.start, run.packet.view),
            1 => [0; VNET_HDR_LEN],
            _ => run.patch(buf),
        };
        write(buf, &Write { vnet, parts: &self.parts, segments });
        self.parts.clear();
    }

    /// What a bare packet needs that nothing is joined to.
    fn alone(&self, buf: &mut [u8], start: usize, view: View) -> [u8; VNET_HDR_LEN] {
        let Some((offset, _)) = bare::checksum_field(view.protocol) else { return [0; VNET_HDR_LEN] };
        let transport = &mut buf[start + view.transport..start + view.len];
        let partial = pseudo(&view, transport.len()).partial();
        transport[offset..offset + 2].copy_from_slice(&partial);
        if !self.takes.checksums {
            let sum = bare::never_zero(Sum::default().add_bytes(transport).finish(), view.protocol);
            transport[offset..offset + 2].copy_from_slice(&sum);
            return [0; VNET_HDR_LEN];
        }
        let (csum_start, csum_offset) = (view.transport as u16, offset as u16);
        VnetHeader { needs_csum: true, gso: Gso::None, gso_size: 0, csum_start, csum_offset, tunnel: None }
            .encode(false, 0)
    }
}
