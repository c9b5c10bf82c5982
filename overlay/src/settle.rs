//! Which queue of the device a packet is written to.
//!
//! The device learns from what is written: after a packet was written to a queue, the other direction of its flow is
//! read from that queue. But the reply that a packet causes at once is read before the device has learnt from it. If
//! each packet were written to the queue of the worker that received it, each end would therefore follow what the other
//! did a round trip ago: a flow that began on different queues would change between them for ever, and with them between
//! workers and lanes, and its packets overtake each other.
//!
//! So the queue depends on the flow alone, by the same rule at both ends and for both directions. A connection changes
//! its queue once at most, when the first packet comes back; with equal numbers of workers at both ends one worker has
//! both directions.

use std::net::IpAddr;

use crate::packet::{TCP, UDP, addresses};

/// The queue for a packet that begins with `header`; the first one for what is no packet.
pub fn queue(header: &[u8], queues: usize) -> usize {
    if queues <= 1 {
        return 0;
    }
    let Ok((source, destination)) = addresses(header) else { return 0 };
    let [from, to] = ports(header);
    // A sum, so that the directions do not differ.
    let mixed = mix(0, end(source, from).wrapping_add(end(destination, to)));
    (mixed >> 32) as usize % queues
}

fn end(address: IpAddr, port: u16) -> u64 {
    mix(fold(address), u64::from(port))
}

fn fold(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            mix((bits >> 64) as u64, bits as u64)
        }
    }
}

/// Nobody gains by choosing flows that share a queue: a flow may be as fast as a queue is.
fn mix(one: u64, other: u64) -> u64 {
    let mixed = (one.rotate_left(25) ^ other).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// Both ports, where they stand right behind a plain header; 0 for everything else, and so for all parts of a fragmented
/// packet alike.
fn ports(header: &[u8]) -> [u16; 2] {
    let at = match header {
        [first, ..] if first >> 4 == 4 && header.get(6..8).is_some_and(|bits| bits[0] & 0x3f == 0 && bits[1] == 0) => {
            header.get(9).filter(|protocol| [TCP, UDP].contains(protocol)).map(|_| usize::from(first & 0x0f) * 4)
        }
        [first, ..] if first >> 4 == 6 => header.get(6).filter(|next| [TCP, UDP].contains(next)).map(|_| 40),
        _ => None,
    };
    match at.and_then(|at| header.get(at..at + 4)) {
        Some(&[a, b, c, d]) => [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])],
        _ => [0; 2],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The headers of a UDP packet between two hosts.
    fn packet([source, destination]: [u8; 2], [from, to]: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, source, 10, 0, 0, destination];
        packet.extend([from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat());
        packet
    }

    /// Both ends of a flow that answer each packet at once: from which queue each reads its direction, round trip after
    /// round trip, when `written` says where a worker writes.
    fn play(begin: [usize; 2], mut written: impl FnMut(usize, usize) -> usize) -> Vec<[usize; 2]> {
        let mut learnt = begin;
        let turn = |_| {
            // The answer leaves by what was known before the packet came.
            let now = learnt;
            learnt = [written(0, now[1]), written(1, now[0])];
            now
        };
        (0..8).map(turn).collect()
    }

    #[test]
    fn a_flow_settles_when_the_first_packet_came_back_wherever_it_began() {
        for queues in [[1, 1], [1, 4], [2, 2], [2, 4], [3, 4], [8, 8], [5, 64]] {
            for begin in (0..queues[0]).flat_map(|one| (0..queues[1]).map(move |two| [one, two])) {
                let headers = [packet([2, 1], [80, 1000]), packet([1, 2], [1000, 80])];
                let reads = play(begin, |end, _| queue(&headers[end], queues[end]));
                assert!(reads[1..].iter().all(|now| *now == reads[1]), "{queues:?} from {begin:?}: {reads:?}");
            }
        }
    }

    #[test]
    fn it_would_never_settle_if_each_worker_wrote_to_its_own_queue() {
        let reads = play([0, 1], |_, received| received);
        assert_eq!(reads[6..], [[0, 1], [1, 0]]);
    }

    #[test]
    fn both_directions_have_one_queue() {
        for port in 1000..1100 {
            assert_eq!(queue(&packet([1, 2], [port, 80]), 4), queue(&packet([2, 1], [80, port]), 4));
        }
    }

    #[test]
    fn flows_spread_over_all_queues() {
        let mut counts = [0; 8];
        for port in 0..8000 {
            counts[queue(&packet([2, 1], [80, port]), 8)] += 1;
        }
        assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_parts_of_a_fragmented_packet_go_to_one_queue() {
        for port in 1000..1050 {
            let [mut first, mut last] = [packet([2, 1], [80, port]), packet([2, 1], [port, 7])];
            first[6] = 0x20;
            last[7] = 185;
            assert_eq!(queue(&first, 8), queue(&last, 8));
        }
    }

    #[test]
    fn what_is_cut_off_anywhere_still_has_a_queue() {
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, UDP, 64];
        v6.extend([0xfd; 16].into_iter().chain([0xfc; 16]).chain([1, 2, 3, 4, 0, 8, 0, 0]));
        for whole in [packet([2, 1], [1, 2]), v6] {
            assert!((0..=whole.len()).all(|len| queue(&whole[..len], 3) < 3));
        }
    }
}
