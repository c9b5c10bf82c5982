//! What an observer of the underlay can tell of a datagram.

/// First bytes of a data message.
const DATA: [u8; 4] = [4, 0, 0, 0];
/// Shortest data message: header and tag.
const SHORTEST: usize = 32;

/// What travels between two agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Handshakes and cookies.
    Handshake,
    /// Inside the WireGuard session.
    Tunnel,
    /// On an association with this receiver index.
    Association(u32),
}

/// Tells which it is, by its header.
pub fn kind(datagram: &[u8]) -> Kind {
    let Some(index) = datagram.get(4..8).filter(|_| datagram.starts_with(&DATA) && datagram.len() >= SHORTEST) else {
        return Kind::Handshake;
    };
    match u32::from_le_bytes(index.try_into().expect("four bytes")) {
        index if index >> 31 == 1 => Kind::Association(index),
        _ => Kind::Tunnel,
    }
}

/// The worker that a receiver index names, of so many.
pub fn worker(index: u32, workers: usize) -> usize {
    (index & 0xff) as usize % workers
}

/// A forged data message of the tunnel with the node's first peer.
pub fn forged(len: usize) -> Vec<u8> {
    let mut datagram = DATA.to_vec();
    datagram.resize(DATA.len() + 4, 0);
    datagram.resize(len.max(SHORTEST), 0x55);
    datagram
}

/// A data message for a worker's association that nobody knows.
pub fn noise(worker: u8, number: u64) -> Vec<u8> {
    let mut datagram = DATA.to_vec();
    datagram.extend([worker, 0x55, 0x55, 0x80]);
    datagram.extend(number.to_le_bytes());
    datagram.resize(64, 0x55);
    datagram
}
