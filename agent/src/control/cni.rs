//! This node's prefixes where its CNI decides about them: what the files say holds, and what they said last holds while
//! they are gone or broken. A CNI that restarts must not take the Pods' routes with it. And what the agent itself puts
//! there: the gate, and a network for a node without a CNI.

use super::Control;
use crate::cidrs::{Found, Given, look};
use crate::cni::{Network, Wanted};
use crate::config::{Cidrs, Config};

/// Takes over what the CNI's files say, if the configuration asks for them; why nothing, if nothing. The API server has said
/// nothing yet.
pub(crate) fn follow(config: &mut Config) -> Option<Result<Found, String>> {
    let said = look(config.node.cidrs_from.as_ref()?);
    if let Ok(found) = &said {
        config.node.cidrs = Cidrs::Listed(found.given.cidrs.clone());
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
                let Found { given, from, lacking } = found;
                let Given { cidrs, kept, lost } = &given;
                tracing::info!(?cidrs, ?kept, ?lost, from, "the CNI gives these to this node");
                if lacking != self.no_cidrs
                    && let Some(lacking) = &lacking
                {
                    tracing::warn!(lacking, "not all of this node's addresses are carried");
                }
                self.no_cidrs = lacking;
                // None yet: whatever is allocated to this node stays so.
                if given.speaks() {
                    self.adopt(given).await;
                }
            }
            Err(problem) => {
                let kept = self.own().cidrs;
                tracing::warn!(%problem, ?kept, "the CNI does not say this node's prefixes");
                self.no_cidrs = Some(problem);
            }
        }
    }

    async fn adopt(&mut self, given: Given) {
        let is_remote = self.config.node.cidrs_from.as_ref().is_some_and(|place| place.source.is_remote());
        let cidrs = if is_remote { Cidrs::Given(given) } else { Cidrs::Listed(given.cidrs) };
        if self.config.node.cidrs == cidrs {
            return;
        }
        self.config.node.cidrs = cidrs.clone();
        self.look_at_underlay().await;
        self.reconcile().await;
        self.cidrs.send_replace(cidrs);
    }

    /// Brings the CNI's folder in line, once the guard stands: whoever starts a Pod by it relies on that.
    pub(super) fn keep_cni(&mut self) {
        if self.host_problem.is_some() {
            return;
        }
        let problems = self.wanted_of_cni().keep();
        for problem in problems.iter().filter(|problem| !self.cni_problems.contains(problem)) {
            tracing::warn!(%problem, "the CNI's configuration");
        }
        self.cni_problems = problems;
    }

    fn wanted_of_cni(&self) -> Wanted {
        let network = || {
            let (cidrs, networks) = (self.mesh.own_cidrs.clone(), self.desired().networks);
            Network { cidrs, networks, mtu: self.mtu }
        };
        Wanted {
            folder: self.config.node.cni_dir.clone(),
            plugins: self.config.cni.bin_dir.clone(),
            state_dir: self.config.node.state_dir.clone(),
            gate: self.config.cni.gate,
            network: self.config.cni.install.then(network),
        }
    }
}
