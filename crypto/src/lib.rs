//! Keys, wire layouts and the WireGuard tunnel.
//!
//! What it never does: open a socket or a file, start a thread, or log. Only two places touch the machine:
//! key generation draws from the OS, and [`tunnel`] wraps boringtun, which reads the clock and `OsRng` itself.

pub mod keys;
pub mod message;
#[cfg(feature = "tunnel")]
pub mod tunnel;

pub use keys::{KeyError, PresharedKey, PrivateKey, PublicKey};
