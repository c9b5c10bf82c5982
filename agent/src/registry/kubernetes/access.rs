//! Every kind of request that the agent makes, each with its reason. Tests hold the requests that are really made, the roles
//! in `deploy/kubernetes` and `docs/kubernetes-rbac.md` to these tables.

/// The API group of the custom resources.
const GROUP: &str = "warren.dev";

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Plural name, with its subresource.
    pub resource: &'static str,
    /// As RBAC names it.
    pub verb: &'static str,
    /// The only object of it that is asked for.
    pub name: Option<&'static str>,
    /// The only namespace in which.
    pub namespace: Option<&'static str>,
    /// Why.
    pub why: &'static str,
}

const fn access(group: &'static str, resource: &'static str, verb: &'static str, why: &'static str) -> Access {
    Access { group, resource, verb, name: None, namespace: None, why }
}

const fn same_cluster(why: &'static str) -> Access {
    Access { name: Some("kube-system"), ..access("", "namespaces", "get", why) }
}

/// All of the registry's.
#[rustfmt::skip]
pub const ACCESS: &[Access] = &[
    access("", "nodes", "list", "its own Node alone, by field selector: the UID that owns its objects, `spec.podCIDRs`, and which of its addresses `status.addresses` shows"),
    access("", "nodes", "watch", "the same, as it changes"),
    same_cluster("its UID tells one cluster from another: an agent never takes another cluster's records for its own's"),
    access(GROUP, "warrenclusters", "list", "the cluster network and the enforcement"),
    access(GROUP, "warrenclusters", "watch", "the same, as it changes"),
    access(GROUP, "warrenblocks", "list", "which prefix belongs to which node"),
    access(GROUP, "warrenblocks", "watch", "the same, as it changes"),
    access(GROUP, "warrenblocks", "create", "claims its own prefixes"),
    access(GROUP, "warrenblocks", "delete", "gives back what is no longer its own, or was owned by a Node that was made anew"),
    access(GROUP, "warrennodes", "list", "the records of all nodes"),
    access(GROUP, "warrennodes", "watch", "the same, as they change"),
    access(GROUP, "warrennodes", "create", "server-side apply of its own record, the first time"),
    access(GROUP, "warrennodes", "patch", "server-side apply of its own record"),
    access(GROUP, "warrennodes", "delete", "`warren leave`; and its own record when the Node was made anew"),
    access(GROUP, "warrennodes/status", "patch", "the condition `Allocated`, when it changes"),
    Access { namespace: Some("default"), ..access("events.k8s.io", "events", "create", "what an operator must know of its Node: Events about what has no namespace are kept in `default`") },
];

/// Calico's group.
const CALICO: &str = "crd.projectcalico.org";
/// Of the cluster that says a node's prefixes.
const SAME: &str = "its UID tells one cluster from another: prefixes are not taken from another one's objects";

/// What `node.cidrs` asks for where it is this word, whatever the registry is. Each has a role of its own, in
/// `deploy/kubernetes/components/cidrs-WORD`. The registry asks for what `kubernetes` does anyway.
#[rustfmt::skip]
pub const SOURCES: &[(&str, &[Access])] = &[
    ("kubernetes", &[
        same_cluster(SAME),
        access("", "nodes", "list", "its own Node alone, by field selector: `spec.podCIDRs`"),
        access("", "nodes", "watch", "the same, as it changes"),
    ]),
    ("calico", &[
        same_cluster(SAME),
        access(CALICO, "blockaffinities", "list", "which blocks are this node's; those of all nodes, since another node's say which of its blocks this one has lost"),
        access(CALICO, "blockaffinities", "watch", "the same, as they change"),
    ]),
    ("cilium", &[
        same_cluster(SAME),
        access("cilium.io", "ciliumnodes", "list", "its own CiliumNode alone, by field selector: `spec.ipam.podCIDRs`"),
        access("cilium.io", "ciliumnodes", "watch", "the same, as it changes"),
    ]),
];

/// `docs/kubernetes-rbac.md`.
#[cfg(test)]
fn page() -> String {
    let mut page = String::from(
        "# What the agent asks of the API server\n\n\
         All of it. The rules are in [deploy/kubernetes/base/rbac.yaml](../deploy/kubernetes/base/rbac.yaml); which node's objects a\n\
         token may write is for [admission.yaml](../deploy/kubernetes/base/admission.yaml) to say, beside it. This page is written from\n\
         the agent's own table (`WARREN_WRITE_DOCS=1 cargo test -p warren kubernetes::access`), and tests hold\n\
         table, rules and the requests that were really made to each other.\n\n\
         ## As the registry\n\n\
         | group | resource | verb | why |\n|---|---|---|---|\n",
    );
    page.extend(ACCESS.iter().map(row));
    page.push_str(
        "\n## For `node.cidrs`\n\n\
         Only where it is this word, with either registry; nothing is written. Each has a role of its own, which the component\n\
         `deploy/kubernetes/components/cidrs-WORD` or the chart's `cidrs=WORD` brings along. With the registry in Kubernetes,\n\
         `kubernetes` needs nothing more than the table above.\n",
    );
    for (source, all) in SOURCES {
        page.push_str(&format!("\n### `{source}`\n\n| group | resource | verb | why |\n|---|---|---|---|\n"));
        page.extend(all.iter().map(row));
    }
    page
}

#[cfg(test)]
fn row(Access { group, resource, verb, name, namespace, why }: &Access) -> String {
    let group = if group.is_empty() { "core" } else { group };
    let only = name.map(|name| format!(" `{name}` only"));
    let only = only.or(namespace.map(|name| format!(" in `{name}` only"))).unwrap_or_default();
    format!("| {group} | `{resource}`{only} | `{verb}` | {why} |\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_page_in_the_repository_is_that_of_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes-rbac.md");
        if std::env::var_os("WARREN_WRITE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap_or_default() == page(), "docs/kubernetes-rbac.md is stale");
    }

    #[test]
    fn nothing_is_asked_for_twice_or_by_wildcard() {
        for all in std::iter::once(&ACCESS).chain(SOURCES.iter().map(|(_, all)| all)) {
            let mut seen = std::collections::BTreeSet::new();
            for access in *all {
                assert!(seen.insert((access.group, access.resource, access.verb)) && !access.why.is_empty());
                assert!(![access.group, access.resource, access.verb].contains(&"*"));
            }
        }
    }
}
