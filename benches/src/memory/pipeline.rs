//! The whole way of a packet without the kernel: cut, seal, open, check the source, join.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use warren_crypto::PrivateKey;
use warren_crypto::association::{AssociationKey, INDEX_BIT, Receiver, Sender, Suite};
use warren_crypto::message::{BUFFER_LEN, DATA_HEADER_LEN};
use warren_crypto::tunnel::{Identity, Opened, Tunnel, TunnelConfig};
use warren_overlay::checksum::Sum;
use warren_overlay::drops::DropReason;
use warren_overlay::forward::{Batch, Inbound, Open, Seal, Table, seal_frame};
use warren_overlay::offload::{Gso, Takes, VnetHeader};
use warren_overlay::packet::View;

use crate::cases::Value;

/// Inner MTU.
pub const MTU: usize = 1440;
/// Payload of a superpacket, bytes.
pub const SUPERPACKET: usize = 61_600;
/// Payload of a small packet, bytes.
pub const SMALL: usize = 64;
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Passes between two looks at the clock.
const PASSES: u64 = 16;
/// Longest measurement of one length: a session lasts two minutes.
const SECONDS_MAX: f64 = 20.0;

/// About how long it takes: three suites, each alone, on every core, and with small packets.
pub(crate) fn estimate(seconds: f64) -> f64 {
    9.0 * seconds.min(SECONDS_MAX)
}

/// One core, every core, and small packets on one core.
pub(crate) fn measure(suite: Option<Suite>, seconds: f64) -> Vec<Value> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let bits = 8.0 * SUPERPACKET as f64 / 1e9;
    let one = bits * passes_per_second(1, SUPERPACKET, suite, seconds);
    let all = bits * passes_per_second(cores, SUPERPACKET, suite, seconds);
    let small = passes_per_second(1, SMALL, suite, seconds);
    vec![
        Value { metric: "gbps_one_core", value: one },
        Value { metric: "gbps_all_cores", value: all },
        Value { metric: "cores", value: cores as f64 },
        Value { metric: "scaling", value: all / (cores as f64 * one) },
        Value { metric: "small_pps_one_core", value: small },
    ]
}

/// Packets of this payload per second on so many threads, each with a session of its own.
fn passes_per_second(threads: usize, payload: usize, suite: Option<Suite>, seconds: f64) -> f64 {
    let time = Duration::from_secs_f64(seconds.min(SECONDS_MAX));
    let together = Barrier::new(threads);
    let one = || match suite {
        Some(suite) => {
            let (mut sender, mut receiver) = association(suite);
            passes(payload, (&mut sender, &mut receiver), &together, time)
        }
        None => {
            let (mut near, mut far) = session();
            passes(payload, (&mut near, &mut far), &together, time)
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().filter_map(|one| one.join().ok()).sum()
    })
}

fn passes<S: Seal, O: Open>(payload: usize, ends: (&mut S, &mut O), together: &Barrier, time: Duration) -> f64 {
    let (packet, view, vnet) = packet(payload);
    let (mut buffer, mut pipeline) = (packet.clone(), Pipeline::default());
    let (sealer, opener) = ends;
    pipeline.pass(&mut buffer, view, vnet, (sealer, opener));
    together.wait();
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        for _ in 0..PASSES {
            buffer.copy_from_slice(&packet);
            pipeline.pass(&mut buffer, view, vnet, (sealer, opener));
        }
        count += PASSES;
    }
    count as f64 / began.elapsed().as_secs_f64()
}

/// Buffers and the forwarding table of both ends.
pub struct Pipeline {
    batch: Batch,
    inbound: Inbound,
    table: Table,
}

impl Default for Pipeline {
    fn default() -> Self {
        let prefix = |n: u8| ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, n, 0, 0), 24).into();
        let table = Table::new([(prefix(1), 0)], [prefix(2)]);
        Self {
            batch: Batch::default(),
            inbound: Inbound::new(Takes { checksums: true, tcp: true, udp: true, tunnels: true }),
            table,
        }
    }
}

impl Pipeline {
    /// Once from a frame of one TUN to a frame of the other.
    ///
    /// # Panics
    /// When a packet is lost: then nothing was measured.
    pub fn pass<S: Seal, O: Open>(&mut self, packet: &mut [u8], view: View, vnet: VnetHeader, ends: (&mut S, &mut O)) {
        let (sealer, opener) = ends;
        seal_frame((packet, view, vnet), (0, MTU), sealer, &mut self.batch, |_| (), |_| ()).expect("sealed");
        let Self { batch, inbound, table } = self;
        batch.drain(|_, segment, payload| {
            // The network's copy.
            inbound.room()[..payload.len()].copy_from_slice(payload);
            let train = inbound.arrived(payload.len());
            for start in train.clone().step_by(segment) {
                inbound.open(table, 0, start..(start + segment).min(train.end), opener).expect("opened");
            }
            inbound.deliver(|buf, write| {
                black_box((buf.len(), write.parts.len()));
            });
        });
    }
}

/// A TCP packet with so much payload; a superpacket where it is more than a segment's.
///
/// # Panics
/// Never: the packet is a right one.
pub fn packet(payload: usize) -> (Vec<u8>, View, VnetHeader) {
    let len = 40 + payload;
    let mut packet = vec![0x5a; len];
    packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2]);
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    let sum = Sum::default().add_bytes(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum);
    packet[20..40].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
    let view = View::parse(&packet).expect("a packet");
    packet.extend_from_slice(&[0; 16]);
    let gso = if payload > 1400 { Gso::Tcp } else { Gso::None };
    (packet, view, VnetHeader { needs_csum: true, gso, gso_size: 1400, csum_start: 20, csum_offset: 16, tunnel: None })
}

/// The sending end of an association.
pub struct Sending(Sender);
/// The receiving end.
pub struct Receiving(Receiver);

impl Seal for Sending {
    const MARKS: bool = true;

    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        self.0.seal(plaintext, out).map_err(|_| DropReason::NoSession)
    }
}

impl Open for Receiving {
    const MARKS: bool = true;

    fn open(&mut self, arena: &mut [u8], datagram: Range<usize>, _: usize) -> Result<Range<usize>, DropReason> {
        let start = datagram.start + DATA_HEADER_LEN;
        let packet = self.0.open(&mut arena[datagram]).map_err(|_| DropReason::Forged)?;
        Ok(start..start + packet.len())
    }
}

/// Both ends of an association of this suite.
pub fn association(suite: Suite) -> (Sending, Receiving) {
    let key = AssociationKey::new([7; 32]);
    (Sending(Sender::new(suite, &key, INDEX_BIT)), Receiving(Receiver::new(suite, &key, INDEX_BIT)))
}

/// One end of a WireGuard session.
pub struct Session(Tunnel);

impl Seal for Session {
    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        self.0.seal(plaintext, out).map_err(|_| DropReason::NoSession)
    }
}

impl Open for Session {
    fn open(&mut self, arena: &mut [u8], datagram: Range<usize>, spare: usize) -> Result<Range<usize>, DropReason> {
        let (trains, out) = arena.split_at_mut(spare);
        match self.0.open(HERE, &trains[datagram], out).map_err(|_| DropReason::Forged)? {
            Opened::Packet(packet) => Ok(spare..spare + packet.len()),
            _ => Ok(spare..spare),
        }
    }
}

/// Two tunnels with a session between them.
///
/// # Panics
/// When the handshake does not succeed.
pub fn session() -> (Session, Session) {
    let [mut near, mut far] = at_rest();
    shake(&mut near, &mut far, &mut [vec![0; BUFFER_LEN], vec![0; BUFFER_LEN]]);
    (Session(near), Session(far))
}

/// Two tunnels for each other.
pub fn at_rest() -> [Tunnel; 2] {
    let identities = [(); 2].map(|()| Identity::new(PrivateKey::generate(), u64::MAX));
    [0, 1].map(|side| {
        let peer = identities[1 - side].public;
        let config = TunnelConfig { peer, preshared_key: None, persistent_keepalive: None, number: side as u32 };
        Tunnel::new(&identities[side], config)
    })
}

/// A whole handshake.
///
/// # Panics
/// When it does not succeed.
pub fn shake(near: &mut Tunnel, far: &mut Tunnel, [first, second]: &mut [Vec<u8>; 2]) {
    let len = near.initiate(0, first).expect("a tunnel at rest initiates");
    let Ok(Opened::Reply(response)) = far.open(HERE, &first[..len], second) else { panic!("no response") };
    let Ok(Opened::Reply(keepalive)) = near.open(HERE, response, first) else { panic!("no session") };
    assert!(matches!(far.open(HERE, keepalive, second), Ok(Opened::Keepalive)), "no confirmation");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superpacket_and_a_small_packet_pass_whole_through_every_suite() {
        for payload in [SMALL, SUPERPACKET] {
            for suite in [Some(Suite::Aes256Gcm), Some(Suite::ChaCha20Poly1305), None] {
                assert!(passes_per_second(2, payload, suite, 0.01) > 0.0, "{payload} {suite:?}");
            }
        }
    }
}
