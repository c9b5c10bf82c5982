//! This node's prefixes where its CNI decides about them: what the files say holds, and what they said last holds while
//! they are gone or broken. A CNI that restarts must not take the Pods' routes with it. And what the agent itself puts
//! there: the gate, and a network for a node without a CNI.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::Control;
use crate::cidrs::{Found, Given, Source, look};
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
    /// The CNI was asked and has not answered yet. A node that it has given nothing so far is as it should be.
    pub(super) fn has_no_prefixes_yet(&self) -> bool {
        self.no_cidrs.is_some() && self.mesh.own_cidrs.is_empty()
    }

    /// The files say something else than before.
    pub(super) async fn hear_of_cidrs(&mut self, said: Result<Found, String>) {
        match said {
            Ok(found) => {
                let Found { given, from, cluster, lacking } = found;
                let Given { cidrs, kept, lost, .. } = &given;
                tracing::info!(?cidrs, ?kept, ?lost, from, "the CNI gives these to this node");
                if lacking != self.few_cidrs
                    && let Some(lacking) = &lacking
                {
                    tracing::warn!(lacking, "not all of this node's addresses are carried");
                }
                (self.no_cidrs, self.few_cidrs) = (None, lacking);
                if self.asks_api_server() {
                    (self.given, self.api_server) = (Some(given), cluster);
                    self.remember();
                    self.follow_given().await;
                } else {
                    self.adopt(Cidrs::Listed(given.cidrs)).await;
                }
            }
            Err(problem) => {
                let kept = self.own().cidrs;
                tracing::warn!(%problem, ?kept, "the CNI does not say this node's prefixes");
                self.no_cidrs = Some(problem);
            }
        }
    }

    fn asks_api_server(&self) -> bool {
        self.config.node.cidrs_from.as_ref().is_some_and(|place| place.source.is_remote())
    }

    /// Takes over what the API server said last, with the addresses in use here as they are now. Where these cannot be read,
    /// nothing changes: the next look is soon.
    pub(super) async fn follow_given(&mut self) {
        let Some(given) = self.given.clone() else { return };
        let used = match self.host.used(&self.config.overlay.device).await {
            Ok(used) => self.strays(&given, used),
            Err(error) => return tracing::warn!(%error, "which addresses are in use here is not known"),
        };
        // None yet: whatever is allocated to this node stays so.
        if given.speaks() {
            self.adopt(Cidrs::Given(Given { used: used.clone(), ..given })).await;
        }
        if self.config.node.cidrs_from.as_ref().is_some_and(|place| place.source == Source::Calico) {
            let own = &self.mesh.own_cidrs;
            let is_lent = |address: &IpAddr| !own.iter().any(|cidr| cidr.contains(address));
            self.lent.look(Instant::now(), &used.into_iter().filter(is_lent).collect());
        }
    }

    /// Of these addresses those of the cluster network that are in no prefix that the node is to have.
    fn strays(&self, given: &Given, used: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let networks = self.cluster().networks;
        let inside = |address: &IpAddr| networks.is_empty() || networks.iter().any(|network| network.contains(address));
        let is_stray = |address: &IpAddr| inside(address) && !given.cidrs.iter().any(|cidr| cidr.contains(address));
        used.into_iter().filter(is_stray).collect()
    }

    /// Nobody has said which prefixes this node has, and why.
    pub(super) fn lacks_cidrs(&self) -> Option<String> {
        self.no_cidrs.as_ref().map(|why| format!("node.cidrs: {why}"))
    }

    /// What the API server took from this node, and addresses of which are in use here.
    pub(super) fn held_cidrs(&self) -> Option<String> {
        let Cidrs::Given(given) = &self.config.node.cidrs else { return None };
        let held: Vec<_> =
            self.mesh.own_cidrs.iter().filter(|cidr| given.holds(cidr)).map(ToString::to_string).collect();
        (!held.is_empty()).then(|| {
            format!(
                "node.cidrs: {} is this node's no longer, says the API server, and addresses in it are in use here: it stays \
                 this node's until none is, and another node that is to have it is refused; make the Pods that have them anew",
                held.join(", ")
            )
        })
    }

    async fn adopt(&mut self, cidrs: Cidrs) {
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
