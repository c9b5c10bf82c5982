//! nftables, ours and others'.

use std::collections::BTreeSet;

use nftables::helper::{DEFAULT_NFT, NftablesError, get_current_ruleset_raw};

use super::Finding;
use crate::config::{Cidrs, Config};
use crate::host::forward::refusing;

pub(super) fn nft() -> Finding {
    match get_current_ruleset_raw(DEFAULT_NFT, ["list", "tables"]) {
        Ok(_) => Finding::fine("nft"),
        Err(NftablesError::NftExecution { inner, .. }) => Finding::fatal(
            format!("nft cannot be run ({inner}), so there would be no guard"),
            "install the package nftables",
        ),
        Err(NftablesError::NftFailed { stderr, .. }) => {
            let reason = stderr.lines().next().unwrap_or("no reason given").to_owned();
            Finding::fatal(
                format!("nft is refused by the kernel ({reason})"),
                "the kernel needs CONFIG_NF_TABLES_INET (`modprobe nf_tables`), and the agent CAP_NET_ADMIN",
            )
        }
        Err(error) => {
            Finding::fatal(format!("nft does not answer as it should ({error})"), "install nftables 0.9.3 or later")
        }
    }
}

/// Somebody who drops what Pods send; only of concern where there are Pods.
pub(super) fn forward(config: &Config) -> Vec<Finding> {
    if config.node.cidrs == Cidrs::Listed(BTreeSet::new()) && config.etcd.is_none() {
        return Vec::new();
    }
    let refusing = refusing(&config.overlay.device, &config.overlay.networks);
    let finding = |problem: String| {
        let (what, remedy) = problem.split_once(": ").unwrap_or((&problem, ""));
        Finding::warning(what, remedy)
    };
    refusing.into_iter().map(finding).collect()
}
