//! Every kind of request that the agent makes, each with its reason. Tests hold the requests that are really made,
//! `deploy/kubernetes/base/rbac.yaml` and `docs/kubernetes-rbac.md` to this table.

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
    /// Why.
    pub why: &'static str,
}

const fn access(group: &'static str, resource: &'static str, verb: &'static str, why: &'static str) -> Access {
    Access { group, resource, verb, name: None, why }
}

/// All of them.
#[rustfmt::skip]
pub const ACCESS: &[Access] = &[
    access("", "nodes", "list", "its own Node alone, by field selector: the UID that owns its objects, `spec.podCIDRs`, and which of its addresses `status.addresses` shows"),
    access("", "nodes", "watch", "the same, as it changes"),
    Access { name: Some("kube-system"), ..access("", "namespaces", "get", "its UID tells one cluster from another: an agent never takes another cluster's records for its own's") },
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
         | group | resource | verb | why |\n|---|---|---|---|\n",
    );
    for Access { group, resource, verb, name, why } in ACCESS {
        let group = if group.is_empty() { "core" } else { group };
        let only = name.map(|name| format!(" `{name}` only")).unwrap_or_default();
        page.push_str(&format!("| {group} | `{resource}`{only} | `{verb}` | {why} |\n"));
    }
    page
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
        let mut seen = std::collections::BTreeSet::new();
        for access in ACCESS {
            assert!(seen.insert((access.group, access.resource, access.verb)) && !access.why.is_empty());
            assert!(![access.group, access.resource, access.verb].contains(&"*"));
        }
    }
}
