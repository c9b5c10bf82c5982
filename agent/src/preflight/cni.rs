//! This node's prefixes, where its CNI decides about them.

use super::Finding;
use crate::config::Config;
use crate::control::cni::follow;

/// The configuration with what the CNI says now, and what it says.
pub(super) fn asked(mut config: Config) -> (Config, Option<Finding>) {
    let finding = follow(&mut config).map(|said| match said {
        Ok(found) => {
            let cidrs: Vec<_> = found.cidrs.iter().map(ToString::to_string).collect();
            Finding::fine(format!("CIDRs {}, by {}", cidrs.join(", "), found.from.display()))
        }
        // The CNI may come after the agent.
        Err(why) => match why.split_once(": ") {
            Some((what, remedy)) => Finding::warning(format!("no CIDRs: {what}"), remedy),
            None => Finding::warning("no CIDRs", why),
        },
    });
    (config, finding)
}
