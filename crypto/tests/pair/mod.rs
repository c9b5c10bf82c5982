//! Two tunnels that face each other, and the packets they exchange.
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use warren_crypto::message::{BUFFER_LEN, INITIATION_LEN};
use warren_crypto::tunnel::{Identity, Initiator, Opened, Tunnel, TunnelConfig, TunnelError};
use warren_crypto::{PresharedKey, PrivateKey};

/// Where every datagram of a test comes from.
pub(crate) const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Far above what any test does in a second.
pub(crate) const UNLIMITED: u64 = 1 << 40;

/// One end: the tunnel, its node, and where its output goes.
pub(crate) struct End {
    pub(crate) tunnel: Tunnel,
    pub(crate) identity: Identity,
    out: Vec<u8>,
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Packet(Vec<u8>),
    Keepalive,
    Reply(Vec<u8>),
}

/// How two ends are made. Building twice makes them anew with the same keys.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) keys: [PrivateKey; 2],
    pub(crate) preshared: [Option<PresharedKey>; 2],
    pub(crate) keepalive: [Option<u16>; 2],
    pub(crate) handshakes_per_second: [u64; 2],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            keys: [PrivateKey::generate(), PrivateKey::generate()],
            preshared: [None, None],
            keepalive: [None; 2],
            handshakes_per_second: [UNLIMITED; 2],
        }
    }
}

impl Setup {
    /// Two ends that know each other, at rest.
    pub(crate) fn build(&self) -> [End; 2] {
        [0, 1].map(|side| {
            let config = TunnelConfig {
                peer: self.keys[1 - side].public_key(),
                preshared_key: self.preshared[side].clone(),
                persistent_keepalive: self.keepalive[side],
                number: side as u32 + 7,
            };
            End::new(Identity::new(self.keys[side].clone(), self.handshakes_per_second[side]), config)
        })
    }
}

impl End {
    pub(crate) fn new(identity: Identity, config: TunnelConfig) -> Self {
        Self { tunnel: Tunnel::new(&identity, config), identity, out: vec![0; BUFFER_LEN] }
    }

    pub(crate) fn initiate(&mut self) -> Option<Vec<u8>> {
        let len = self.tunnel.initiate(0, &mut self.out)?;
        Some(self.out[..len].to_vec())
    }

    pub(crate) fn tick(&mut self) -> Option<Vec<u8>> {
        self.identity.reset_limiter();
        let len = self.tunnel.tick(0, &mut self.out)?;
        Some(self.out[..len].to_vec())
    }

    pub(crate) fn seal(&mut self, packet: &[u8]) -> Result<Vec<u8>, TunnelError> {
        let len = self.tunnel.seal(packet, &mut self.out)?;
        Ok(self.out[..len].to_vec())
    }

    pub(crate) fn open(&mut self, datagram: &[u8]) -> Result<Outcome, TunnelError> {
        open(&mut self.tunnel, datagram, &mut self.out)
    }

    /// Opens with an output buffer of `room` bytes.
    pub(crate) fn open_within(&mut self, datagram: &[u8], room: usize) -> Result<Outcome, TunnelError> {
        open(&mut self.tunnel, datagram, &mut self.out[..room])
    }

    /// As a node does: an initiation is identified before a tunnel may see it.
    pub(crate) fn receive(&mut self, datagram: &[u8]) -> Result<Outcome, TunnelError> {
        if datagram.len() == INITIATION_LEN
            && let Initiator::Cookie(reply) = self.identity.identify(FROM, datagram, &mut self.out)?
        {
            return Ok(Outcome::Reply(reply.to_vec()));
        }
        self.open(datagram)
    }

    /// Opens a datagram that must be answered.
    pub(crate) fn answer(&mut self, datagram: &[u8]) -> Vec<u8> {
        match self.open(datagram) {
            Ok(Outcome::Reply(reply)) => reply,
            other => panic!("expected an answer, got {other:?}"),
        }
    }
}

fn open(tunnel: &mut Tunnel, datagram: &[u8], out: &mut [u8]) -> Result<Outcome, TunnelError> {
    Ok(match tunnel.open(FROM, datagram, out)? {
        Opened::Packet(packet) => Outcome::Packet(packet.to_vec()),
        Opened::Keepalive => Outcome::Keepalive,
        Opened::Reply(reply) => Outcome::Reply(reply.to_vec()),
    })
}

/// A whole handshake, begun by the first end; both can seal afterwards.
pub(crate) fn shake(a: &mut End, b: &mut End) {
    let initiation = a.initiate().expect("an end at rest initiates");
    let response = b.answer(&initiation);
    let confirmation = a.answer(&response);
    assert_eq!(b.open(&confirmation), Ok(Outcome::Keepalive));
}

/// An inner IPv4 packet with `id` in its payload and `payload` bytes after it.
pub(crate) fn ipv4(id: u32, payload: usize) -> Vec<u8> {
    let total = 24 + payload;
    let mut packet = vec![0u8; total];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
    packet[16..20].copy_from_slice(&[10, 0, 1, 1]);
    packet[20..24].copy_from_slice(&id.to_be_bytes());
    packet
}

/// A preshared key of these bytes.
pub(crate) fn preshared(bytes: [u8; 32]) -> PresharedKey {
    STANDARD.encode(bytes).parse().expect("32 bytes in base64")
}
