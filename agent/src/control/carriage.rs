//! What carries data to a peer, and why that is not associations, or not for all of it. Pure.

use warren_overlay::mesh::Origin;

use crate::config::Associations;
use crate::dataplane::{Obstacle, PeerReport};
use crate::status::{ASSOCIATIONS, AssociationStatus, DROPPED, TUNNEL};

/// What is known of it.
pub(super) struct Carriage<'a> {
    /// `overlay.associations`, or what a pinned suite makes of it.
    pub(super) stance: Associations,
    /// Each sends on a lane of its own.
    pub(super) workers: usize,
    /// Where the peer is known from.
    pub(super) origin: Origin,
    pub(super) report: &'a PeerReport,
}

impl Carriage<'_> {
    /// The word for it.
    pub(super) fn data(&self) -> &'static str {
        match (&self.report.association, self.stance) {
            (Ok(_), _) => ASSOCIATIONS,
            (Err(_), Associations::Require) => DROPPED,
            (Err(_), Associations::Prefer | Associations::Off) => TUNNEL,
        }
    }

    /// The associations, if there are any.
    pub(super) fn association(&self) -> Option<AssociationStatus> {
        let association = self.report.association.ok()?;
        Some(AssociationStatus {
            suite: association.suite.name().to_owned(),
            lanes: association.lanes,
            own_ports: association.own_ports,
            age: association.age.as_secs(),
            // The exchange knows no other way; but a worker without a lane may send in the tunnel.
            post_quantum: self.is_whole() || self.stance == Associations::Require,
        })
    }

    /// Data of this node's, or some of it, is dropped for lack of an association.
    pub(super) fn is_dropped(&self) -> bool {
        self.stance == Associations::Require && !self.is_whole()
    }

    /// Why data, or some of it, does not travel in associations.
    pub(super) fn why_tunnel(&self) -> Option<String> {
        match self.report.association {
            Ok(_) if self.is_whole() => None,
            Ok(association) => Some(self.in_part(association.lanes)),
            Err(obstacle) => Some(self.in_the_way(obstacle).to_owned()),
        }
    }

    /// Every worker sends on an association.
    fn is_whole(&self) -> bool {
        self.report.association.is_ok_and(|association| association.lanes >= self.workers)
    }

    fn in_part(&self, lanes: usize) -> String {
        let rest = if self.stance == Associations::Require { "is dropped" } else { "goes in the tunnel" };
        format!("lanes arrive for {lanes} of {} workers: what the others send {rest}", self.workers)
    }

    fn in_the_way(&self, obstacle: Obstacle) -> &'static str {
        match (obstacle, self.origin) {
            _ if self.stance == Associations::Off => "they are off here (overlay.associations)",
            (_, Origin::Static) if !self.report.speaks_associations => "peer.associations is not set for it here",
            (_, Origin::Registry) if !self.report.speaks_associations => {
                "they are off there, or it is too old for them"
            }
            _ if self.report.handshake_age.is_none() => "there is no session",
            (Obstacle::Unwanted, _) => "nothing was sent lately",
            (Obstacle::Agreeing, _) => "not yet: they are being agreed on",
            (Obstacle::Trying, _) => "not yet: their lanes are being tried",
            (Obstacle::Silent, _) => "their lanes do not arrive, though the tunnel does",
            (Obstacle::Unanswered, _) => "it does not answer: are they off there?",
            (Obstacle::NoSuite, _) => "no suite in common: see overlay.suite here and there",
        }
    }
}

#[cfg(test)]
mod tests;
