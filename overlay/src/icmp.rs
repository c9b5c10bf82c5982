//! "Too big" answers, so that a sender learns the path's MTU (RFC 792 and 1191 for IPv4, RFC 4443 section 3.2 for IPv6).

use std::net::IpAddr;

use crate::checksum::Sum;
use crate::packet::View;

/// As much of the original as the answer carries; with headers well below 576 and 1280 bytes.
const QUOTE_MAX: usize = 512;
/// The longest answer.
pub const ANSWER_MAX: usize = 40 + 8 + QUOTE_MAX;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Writes the answer to `packet` into `out`; gives its length. `None` where no answer is due: to fragments behind the
/// first, to ICMP (an error about an error), or across address families.
pub fn too_big(packet: &[u8], view: &View, from: IpAddr, mtu: u16, out: &mut [u8; ANSWER_MAX]) -> Option<usize> {
    if view.fragment || matches!(view.protocol, ICMP | ICMPV6) {
        return None;
    }
    let quote = packet.get(..view.len.min(QUOTE_MAX))?;
    out.fill(0);
    match (from, view.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = 28 + quote.len();
            out[..2].copy_from_slice(&[0x45, 0xc0]);
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            out[8..10].copy_from_slice(&[64, ICMP]);
            out[12..16].copy_from_slice(&from.octets());
            out[16..20].copy_from_slice(&to.octets());
            out[20..22].copy_from_slice(&[3, 4]);
            out[26..28].copy_from_slice(&mtu.to_be_bytes());
            out[28..len].copy_from_slice(quote);
            let (ip, icmp) =
                (Sum::default().add_bytes(&out[..20]).finish(), Sum::default().add_bytes(&out[20..len]).finish());
            out[10..12].copy_from_slice(&ip);
            out[22..24].copy_from_slice(&icmp);
            Some(len)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = 48 + quote.len();
            out[0] = 0x60;
            out[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            out[6..8].copy_from_slice(&[ICMPV6, 64]);
            out[8..24].copy_from_slice(&from.octets());
            out[24..40].copy_from_slice(&to.octets());
            out[40] = 2;
            out[46..48].copy_from_slice(&mtu.to_be_bytes());
            out[48..len].copy_from_slice(quote);
            let pseudo = Sum::default().add_pseudo(from.into(), to.into(), ICMPV6).add_u16((len - 40) as u16);
            let sum = pseudo.add_bytes(&out[40..len]).finish();
            out[42..44].copy_from_slice(&sum);
            Some(len)
        }
        _ => None,
    }
}
