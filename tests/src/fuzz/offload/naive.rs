//! Segmentation as one would write it on paper: every packet built anew, every checksum summed word by word.

use warren_overlay::offload::VNET_HDR_LEN;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The longest headers that the cutter takes.
const HEADER_MAX: usize = 256;

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The length that a packet names itself.
pub(super) fn len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 6 { 40 + word(packet, 4) } else { word(packet, 2) }
}

/// RFC 1071, word by word.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    words.fold(0u32, |sum, word| (sum + word) % 0xffff) as u16
}

/// The field that makes a sum right: with 0 and 0xffff being one number, the one that a summing machine gives.
fn field(parts: &[&[u8]]) -> [u8; 2] {
    let all_zero = parts.iter().all(|part| part.iter().all(|byte| *byte == 0));
    match sum(parts) {
        0 if all_zero => [0xff, 0xff],
        0 => [0, 0],
        sum => (!sum).to_be_bytes(),
    }
}

/// Addresses, length and protocol, as RFC 9293 and RFC 8200, 8.1 have them.
fn pseudo(packet: &[u8], transport: usize, protocol: u8) -> Vec<u8> {
    let addresses = if packet[0] >> 4 == 6 { &packet[8..40] } else { &packet[12..20] };
    let len = (packet.len() - transport) as u32;
    [addresses, &len.to_be_bytes(), &[0, 0, 0, protocol]].concat()
}

/// Makes a packet's checksums right.
pub(super) fn put_checksums(packet: &mut [u8], transport: usize, protocol: u8) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = field(&[&packet[..transport]]);
        packet[10..12].copy_from_slice(&sum);
    }
    put_transport_checksum(packet, transport, protocol);
}

fn put_transport_checksum(packet: &mut [u8], transport: usize, protocol: u8) {
    let at = transport + offset(protocol);
    packet[at..at + 2].fill(0);
    let sum = field(&[&pseudo(packet, transport, protocol), &packet[transport..]]);
    packet[at..at + 2].copy_from_slice(&if protocol == UDP && sum == [0, 0] { [0xff, 0xff] } else { sum });
}

/// Where the checksum is in the transport header.
fn offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

/// Where the transport header is, which protocol, and whether it is a fragment; of a packet that the view took.
fn transport(packet: &[u8]) -> (usize, u8, bool) {
    if packet[0] >> 4 == 4 {
        return (usize::from(packet[0] & 15) * 4, packet[9], word(packet, 6) & 0x3fff != 0);
    }
    let (mut at, mut next, mut fragment) = (40, packet[6], false);
    loop {
        let len = match next {
            0 | 43 | 60 => (usize::from(packet[at + 1]) + 1) * 8,
            51 => (usize::from(packet[at + 1]) + 2) * 4,
            44 => 8,
            _ => return (at, next, fragment),
        };
        fragment |= next == 44;
        let later = next == 44 && word(packet, at + 2) & 0xfff8 != 0;
        next = packet[at];
        at += len;
        if later {
            return (at, next, fragment);
        }
    }
}

/// Whether a packet may be bare: whole TCP or UDP, right behind an IP header with nothing in between.
pub(super) fn may_be_bare(packet: &[u8]) -> bool {
    let (t, protocol, fragment) = transport(packet);
    let header = match protocol {
        TCP => 20,
        UDP => 8,
        _ => return false,
    };
    t == if packet[0] >> 4 == 6 { 40 } else { 20 } && !fragment && len(packet) >= t + header
}

/// Whether the kernel left open just the checksum that a bare packet goes without.
pub(super) fn is_left_open(packet: &[u8], vnet: &[u8; VNET_HDR_LEN]) -> bool {
    let (t, protocol, _) = transport(packet);
    may_be_bare(packet) && (vnet[1] & 0x7f != 0 || *vnet == asking(t, protocol, vnet))
}

/// This vnet header, were it to ask for the transport checksum of one packet.
fn asking(t: usize, protocol: u8, vnet: &[u8; VNET_HDR_LEN]) -> [u8; VNET_HDR_LEN] {
    let mut asking = *vnet;
    asking[0] |= 1;
    asking[6..8].copy_from_slice(&(t as u16).to_ne_bytes());
    asking[8..10].copy_from_slice(&(offset(protocol) as u16).to_ne_bytes());
    asking
}

/// A bare packet with the checksum that it goes without, and the vnet header that asks a kernel to make it.
pub(super) fn dressed(bare: &[u8]) -> (Vec<u8>, [u8; VNET_HDR_LEN]) {
    let (t, protocol, _) = transport(bare);
    let mut packet = bare.to_vec();
    put_transport_checksum(&mut packet, t, protocol);
    (packet, asking(t, protocol, &[0; VNET_HDR_LEN]))
}

/// A bare packet without the two bytes that mean nothing in it.
pub(super) fn without_checksum(bare: &[u8]) -> Vec<u8> {
    let (t, protocol, _) = transport(bare);
    let at = t + offset(protocol);
    [&bare[..at], &bare[at + 2..]].concat()
}

/// Makes a packet's checksum one that means nothing; leaves a packet that has none where it looks for one.
pub(super) fn spoil_checksum(packet: &mut [u8]) {
    let at = match packet.first().map(|byte| byte >> 4) {
        Some(4) => 20 + packet.get(9).map_or(0, |protocol| offset(*protocol)),
        _ => 40 + packet.get(6).map_or(0, |protocol| offset(*protocol)),
    };
    packet.get_mut(at..at + 2).into_iter().for_each(|field| field.copy_from_slice(&[0x5a, 0xa5]));
}

/// The packets that a frame stands for; nothing when it makes no sense or one of them is too long. `packet` is one that
/// the view took; bytes behind its own length do not belong to it.
pub(super) fn cut(packet: &[u8], vnet: &[u8; VNET_HDR_LEN], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let packet = &packet[..len(packet)];
    let number = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
    let (t, protocol, fragment) = transport(packet);
    let (size, kind) = (number(4), vnet[1] & 0x7f);
    if kind == 0 {
        let whole = complete(packet, (vnet[0] & 1 != 0).then(|| (number(6), number(8))), t, protocol)?;
        return (whole.len() <= mtu).then_some(vec![whole]);
    }
    let header = match (kind, protocol) {
        (1 | 4, TCP) => t + usize::from(*packet.get(t + 12)? >> 4) * 4,
        (5, UDP) => t + 8,
        _ => return None,
    };
    let short = header < t + if protocol == TCP { 20 } else { 8 };
    if fragment || short || header > packet.len() || header > HEADER_MAX || size == 0 {
        return None;
    }
    let (headers, payload) = packet.split_at(header);
    let mut chunks: Vec<&[u8]> = payload.chunks(size).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let count = chunks.len();
    let segment = |(at, chunk)| segment(headers, chunk, (at, at * size, at + 1 == count), t, protocol);
    let packets: Vec<_> = chunks.into_iter().enumerate().map(segment).collect();
    packets.iter().all(|packet| packet.len() <= mtu).then_some(packets)
}

/// One segment: number `at`, whose payload starts at `sent`.
fn segment(headers: &[u8], chunk: &[u8], (at, sent, last): (usize, usize, bool), t: usize, protocol: u8) -> Vec<u8> {
    let mut packet = [headers, chunk].concat();
    let len = packet.len();
    if packet[0] >> 4 == 6 {
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    } else {
        let id = (word(&packet, 4) + at) as u16;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&id.to_be_bytes());
    }
    if protocol == TCP {
        let sequence = (word(&packet, t + 4) << 16 | word(&packet, t + 6)) + sent;
        packet[t + 4..t + 8].copy_from_slice(&(sequence as u32).to_be_bytes());
        // FIN and PSH belong to the last segment, CWR to the first.
        let (fin_psh, cwr) = (if last { 0 } else { 0x09 }, if at == 0 { 0 } else { 0x80 });
        packet[t + 13] &= !(fin_psh | cwr);
    } else {
        packet[t + 4..t + 6].copy_from_slice(&((len - t) as u16).to_be_bytes());
    }
    put_checksums(&mut packet, t, protocol);
    packet
}

/// A single packet whose checksum the kernel may have left open: `open` says where its sum starts, and from there where
/// its field is.
fn complete(packet: &[u8], open: Option<(usize, usize)>, t: usize, protocol: u8) -> Option<Vec<u8>> {
    let mut whole = packet.to_vec();
    let Some((start, offset)) = open else { return Some(whole) };
    let at = start + offset;
    if start < t || at + 2 > whole.len() {
        return None;
    }
    let sum = field(&[&whole[start..]]);
    whole[at..at + 2].copy_from_slice(&if protocol == UDP && sum == [0, 0] { [0xff, 0xff] } else { sum });
    Some(whole)
}

/// Whether both checksums of a packet are right; UDP may have none (RFC 768).
pub(super) fn is_intact(packet: &[u8]) -> bool {
    let (t, protocol, _) = transport(packet);
    let header = packet[0] >> 4 == 6 || sum(&[&packet[..t]]) == 0;
    let none = protocol == UDP && packet[t + 6..t + 8] == [0, 0];
    header && (none || sum(&[&pseudo(packet, t, protocol), &packet[t..]]) == 0)
}

/// A packet without what may differ when it was joined and cut again: IPv4 identification, checksums (which are judged
/// apart) and, where a run ended, PSH.
pub(super) fn essence(packet: &[u8], last: bool) -> Vec<u8> {
    let (t, protocol, _) = transport(packet);
    let mut essence = packet.to_vec();
    if packet[0] >> 4 == 4 {
        essence[4..6].fill(0);
        essence[10..12].fill(0);
    }
    let at = t + offset(protocol);
    essence[at..at + 2].fill(0);
    if protocol == TCP && last {
        essence[t + 13] &= !0x08;
    }
    essence
}
