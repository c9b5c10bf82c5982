//! The admin socket: JSON lines over `<run_dir>/warren.sock`, for root and for the user that the agent runs as.
//!
//! One request a connection, one reply. Bounded: line length, time, connections. It shows no secret and changes
//! nothing but `mesh accept` and `leave`.

mod client;
mod server;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use client::{ClientError, Presence, ask, presence};
pub use server::{AdminError, end, serve};

use crate::status::{AssociationStatus, Status};

/// The socket's file name.
pub const SOCKET: &str = "warren.sock";
/// The longest request, in bytes.
const REQUEST_MAX: u64 = 4 << 10;
/// The longest reply, in bytes: 5,000 peers.
const REPLY_MAX: u64 = 16 << 20;

/// A question on the wire. Those without a field have braces: serde would otherwise let any field pass beside the tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Everything that `warren status` shows.
    Status {},
    /// Which path would traffic to this peer take.
    Verify {
        /// The peer's name.
        peer: String,
    },
    /// Let the held change of the mesh happen.
    AcceptMesh {},
    /// Withdraw the record and stop.
    Leave {},
}

/// An answer on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Question::Status`].
    Status(Box<Status>),
    /// To [`Question::Verify`].
    Verify(Verify),
    /// Done; what was done.
    Done(String),
    /// Not done; what is wrong and what to do.
    Failed(String),
}

/// What `warren verify` found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// The peer.
    pub peer: String,
    /// The address that was looked up.
    pub destination: String,
    /// What the kernel would do with a packet to it.
    pub route: String,
    /// The route leads into the tunnel.
    pub via_tunnel: bool,
    /// There is a session.
    pub session: bool,
    /// Milliseconds that a fresh handshake took.
    pub rtt_ms: Option<f64>,
    /// Traffic to this peer leaves, and is encrypted.
    pub encrypted: bool,
    /// Data to this peer, or some of it, is dropped as `no_association`.
    #[serde(default)]
    pub dropped: bool,
    /// As [`crate::status::PeerStatus::data`].
    #[serde(default)]
    pub data: String,
    /// The associations on which data is sent to it; `None` while there are none.
    #[serde(default)]
    pub association: Option<AssociationStatus>,
    /// Workers of this node: each wants a lane.
    #[serde(default)]
    pub workers: u16,
    /// Why data, or some of it, does not travel in associations.
    #[serde(default)]
    pub why_tunnel: Option<String>,
    /// For people.
    pub detail: String,
}

/// A question together with where its answer goes.
#[derive(Debug)]
pub enum Request {
    /// Everything that `warren status` shows.
    Status(oneshot::Sender<Status>),
    /// Which path would traffic to this peer take.
    Verify {
        /// The peer's name.
        peer: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Verify, String>>,
    },
    /// Let the held change of the mesh happen; what was held, or why there is nothing.
    AcceptMesh(oneshot::Sender<Result<String, String>>),
    /// Withdraw the record and stop.
    Leave(oneshot::Sender<Result<String, String>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_a_question_does_not_have_is_refused_by_name() {
        for question in ["status", "accept_mesh", "leave", "verify\",\"peer\":\"b"] {
            let line = |more: &str| format!("{{\"command\":\"{question}\"{more}}}");
            let asked: Question = serde_json::from_str(&line("")).expect("a question");
            assert_eq!(serde_json::to_string(&asked).expect("JSON"), line(""), "the way it always was on the wire");
            let refused = serde_json::from_str::<Question>(&line(",\"force\":true")).expect_err("nobody knows it");
            assert!(refused.to_string().contains("unknown field `force`"), "{question}: {refused}");
        }
    }
}
