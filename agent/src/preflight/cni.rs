//! This node's prefixes, where its CNI decides about them.

use super::Finding;
use crate::config::Config;
use crate::control::cni::follow;

/// The configuration with what the CNI says now, and what it says.
pub(super) fn asked(mut config: Config) -> (Config, Option<Finding>) {
    let is_remote = config.node.cidrs_from.as_ref().is_some_and(|place| place.source.is_remote());
    let finding = follow(&mut config).map(|said| match said {
        Ok(found) => {
            let cidrs: Vec<_> = found.given.cidrs.iter().map(ToString::to_string).collect();
            Finding::fine(format!("CIDRs {}, by {}", cidrs.join(", "), found.from))
        }
        Err(_) if is_remote => remote(&config),
        // The CNI may come after the agent.
        Err(why) => match why.split_once(": ") {
            Some((what, remedy)) => Finding::warning(format!("no CIDRs: {what}"), remedy),
            None => Finding::warning("no CIDRs", why),
        },
    });
    (config, finding)
}

/// Nothing is asked of the API server here; whether anybody says where it is can be seen.
fn remote(config: &Config) -> Finding {
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    match &config.api_server.kubeconfig {
        Some(path) => Finding::fine(format!("CIDRs will be asked of the API server, by {}", path.display())),
        None if in_pod => Finding::fine("CIDRs will be asked of the API server"),
        None => Finding::warning(
            "no CIDRs: node.cidrs asks the API server, and this is no Pod of Kubernetes",
            "set kubernetes.kubeconfig, with kubernetes.enabled = false where the registry is another",
        ),
    }
}
