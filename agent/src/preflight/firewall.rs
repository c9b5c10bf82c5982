//! nftables, ours and others'.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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

/// The kernel's modules that the guard's filter is made of; nothing to say where they are not listed, as in containers.
pub(super) fn traffic_control() -> Option<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let folder = Path::new("/lib/modules").join(release.trim());
    let listed = ["modules.builtin", "modules.dep"].map(|file| fs::read_to_string(folder.join(file)));
    let listed = listed.into_iter().collect::<Result<String, _>>().ok()?;
    Some(filters(&listed))
}

fn filters(listed: &str) -> Finding {
    let needed = ["sch_ingress", "cls_bpf"];
    let lacking: Vec<_> = needed.into_iter().filter(|module| !listed.contains(&format!("/{module}.ko"))).collect();
    if lacking.is_empty() {
        return Finding::fine("filters of traffic control");
    }
    Finding::warning(
        format!(
            "the kernel has no {}, so the guard does not see what traffic control redirects (eBPF host routing)",
            lacking.join(" and no ")
        ),
        "use a kernel with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF, or no CNI that routes so",
    )
}

/// Somebody who drops what Pods send; only of concern where there are Pods.
pub(super) fn forward(config: &Config) -> Vec<Finding> {
    let none = config.node.cidrs == Cidrs::Listed(BTreeSet::new()) && config.node.cidrs_from.is_none();
    if none && !config.has_store() {
        return Vec::new();
    }
    let refusing = refusing(&config.overlay.device, &config.overlay.networks);
    let finding = |problem: String| {
        let (what, remedy) = problem.split_once(": ").unwrap_or((&problem, ""));
        Finding::warning(what, remedy)
    };
    refusing.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_modules_of_the_filter_is_warned_of_and_no_reason_not_to_run() {
        let whole = "kernel/net/sched/sch_ingress.ko\nkernel/net/sched/cls_bpf.ko.xz: kernel/x.ko\n";
        assert!(filters(whole).ok);
        let lacking = filters("kernel/net/sched/sch_ingress.ko\n");
        assert!(!lacking.ok && !lacking.is_fatal() && lacking.what.contains("no cls_bpf,"), "{lacking}");
        assert!(filters("").what.contains("no sch_ingress and no cls_bpf,"));
    }
}
