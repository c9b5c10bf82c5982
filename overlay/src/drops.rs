//! Why a packet was lost: one enum that is the error, the metric label and the documentation.

/// A reason to drop a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Not an IPv4 or IPv6 packet, or one whose lengths contradict each other.
    Malformed,
    /// A vnet header that asks for an offload which the packet cannot have.
    BadOffload,
    /// No peer owns the destination.
    NoRoute,
    /// Outbound: the source is no address of this node or its Pods, the peer would refuse it.
    SourceNotOurs,
    /// Inbound: the source does not route back to the peer that sent it (cryptokey routing).
    SourceSpoofed,
    /// Inbound: the destination is not this node nor one of its Pods.
    DestinationNotOurs,
    /// An address that the overlay keeps for itself, or that must never cross it (loopback, link-local, multicast).
    ReservedAddress,
    /// A bounded queue had no room: of packets that wait for a session, of datagrams for another worker, of control
    /// frames, or of what a turn takes in.
    QueueFull,
    /// The peer has no known endpoint.
    NoEndpoint,
    /// Larger than the path to the peer takes; the sender was told.
    TooBig,
    /// Not WireGuard.
    NotWireGuard,
    /// A message for a tunnel that does not exist.
    UnknownTunnel,
    /// An initiation by a key that is no peer's.
    UnknownPeer,
    /// Authentication failed.
    Forged,
    /// A counter seen before, too old, or at the limit.
    Replay,
    /// A data message without a session.
    NoSession,
    /// Data outside of an association, where `associations = "require"`.
    NoAssociation,
    /// A refused handshake.
    Handshake,
    /// A control frame, or a part of one, of a type or layout that this version does not know.
    UnknownFrame,
    /// A control frame that fits no exchange under way, is too old, or comes too soon.
    RefusedFrame,
    /// The network refused the datagram.
    SendFailed,
    /// The TUN refused the packet.
    TunWriteFailed,
}

impl DropReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 22] = [
        Self::Malformed,
        Self::BadOffload,
        Self::NoRoute,
        Self::SourceNotOurs,
        Self::SourceSpoofed,
        Self::DestinationNotOurs,
        Self::ReservedAddress,
        Self::QueueFull,
        Self::NoEndpoint,
        Self::TooBig,
        Self::NotWireGuard,
        Self::UnknownTunnel,
        Self::UnknownPeer,
        Self::Forged,
        Self::Replay,
        Self::NoSession,
        Self::NoAssociation,
        Self::Handshake,
        Self::UnknownFrame,
        Self::RefusedFrame,
        Self::SendFailed,
        Self::TunWriteFailed,
    ];

    /// The name in metrics, logs and `warren status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadOffload => "bad_offload",
            Self::NoRoute => "no_route",
            Self::SourceNotOurs => "source_not_ours",
            Self::SourceSpoofed => "source_spoofed",
            Self::DestinationNotOurs => "destination_not_ours",
            Self::ReservedAddress => "reserved_address",
            Self::QueueFull => "queue_full",
            Self::NoEndpoint => "no_endpoint",
            Self::TooBig => "too_big",
            Self::NotWireGuard => "not_wireguard",
            Self::UnknownTunnel => "unknown_tunnel",
            Self::UnknownPeer => "unknown_peer",
            Self::Forged => "forged",
            Self::Replay => "replay",
            Self::NoSession => "no_session",
            Self::NoAssociation => "no_association",
            Self::Handshake => "handshake",
            Self::UnknownFrame => "unknown_frame",
            Self::RefusedFrame => "refused_frame",
            Self::SendFailed => "send_failed",
            Self::TunWriteFailed => "tun_write_failed",
        }
    }
}
