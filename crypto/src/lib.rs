//! Keys, wire layouts, the WireGuard tunnel, and the associations beside it.
//!
//! What it never does: open a socket or a file, start a thread, or log. Only two places touch the machine:
//! key generation draws from the OS, and [`tunnel`] wraps boringtun, which reads the clock and `OsRng` itself.

#[cfg(feature = "association")]
pub mod association;
#[cfg(feature = "association")]
pub mod exchange;
pub mod keys;
pub mod message;
#[cfg(feature = "tunnel")]
pub mod tunnel;

pub use keys::{KeyError, PresharedKey, PrivateKey, PublicKey};
