//! TUN queues and UDP sockets: bytes and addresses, nothing else.
//!
//! What it never does: look into a packet beyond the vnet header, allocate where packets pass, start a thread, or log.
//! It is the only crate of the workspace with `unsafe`; each use states the facts that make it sound.

mod cmsg;
mod poll;
mod receive;
mod send;
pub mod steer;
pub mod tun;
pub mod udp;

pub use poll::{Ready, Waker, wait};
pub use receive::{Rooms, TRAINS_MAX};
pub use tun::{Tun, TunConfig, TunQueue};
pub use udp::{Received, Sent, Train, UdpConfig, UdpSocket, bind};
