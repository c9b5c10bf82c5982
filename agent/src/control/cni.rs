//! This node's prefixes where its CNI decides about them: what the files say holds, and what they said last holds while
//! they are gone or broken. A CNI that restarts must not take the Pods' routes with it.

use std::collections::BTreeSet;

use super::Control;
use crate::cidrs::{Found, look};
use crate::config::{Cidrs, Config};

/// Takes over what the CNI's files say, if the configuration asks for them; why nothing, if nothing.
pub(crate) fn follow(config: &mut Config) -> Option<Result<Found, String>> {
    let said = look(config.node.cidrs_from.as_ref()?);
    if let Ok(found) = &said {
        config.node.cidrs = Cidrs::Listed(found.cidrs.clone());
    }
    Some(said)
}

impl Control {
    /// The CNI was asked and has not answered yet.
    pub(super) fn has_no_prefixes_yet(&self) -> bool {
        self.no_cidrs.is_some() && self.mesh.own_cidrs.is_empty()
    }

    /// The files say something else than before.
    pub(super) async fn hear_of_cidrs(&mut self, said: Result<Found, String>) {
        match said {
            Ok(found) => {
                tracing::info!(cidrs = ?found.cidrs, from = %found.from.display(), "the CNI gives these to this node");
                self.no_cidrs = None;
                self.adopt(found.cidrs).await;
            }
            Err(problem) => {
                let kept = self.own().cidrs;
                tracing::warn!(%problem, ?kept, "the CNI does not say this node's prefixes");
                self.no_cidrs = Some(problem);
            }
        }
    }

    async fn adopt(&mut self, cidrs: BTreeSet<ipnet::IpNet>) {
        let cidrs = Cidrs::Listed(cidrs);
        if self.config.node.cidrs == cidrs {
            return;
        }
        self.config.node.cidrs = cidrs;
        self.look_at_underlay().await;
        self.reconcile().await;
        // The registry claims and publishes for the prefixes that it was started with.
        self.start_registries();
    }
}
