//! The custom resources of group `warren.dev/v1alpha1`, all cluster-scoped: what stands in the API server of the nodes,
//! their prefixes and the cluster. The definitions that a cluster is given are made from these types.
//!
//! Nothing is read by them: what a server hands out is read with suspicion, by `object`.

#![expect(unreachable_pub, reason = "the derive repeats each type where nobody can reach it")]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The only name that a `WarrenCluster` may have: one Kubernetes cluster is one overlay.
pub const CLUSTER_NAME: &str = "default";

/// What a node publishes of itself. The object is named after the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "warren.dev",
    version = "v1alpha1",
    kind = "WarrenNode",
    shortname = "wn",
    category = "warren",
    status = "WarrenNodeStatus",
    doc = "What a node's agent publishes of itself; written by that agent alone.",
    printcolumn = r#"{"name":"Endpoints","type":"string","jsonPath":".spec.endpoints"}"#,
    printcolumn = r#"{"name":"CIDRs","type":"string","jsonPath":".spec.cidrs"}"#,
    printcolumn = r#"{"name":"MTU","type":"integer","jsonPath":".spec.mtu"}"#,
    printcolumn = r#"{"name":"Allocated","type":"string","jsonPath":".status.conditions[?(@.type=='Allocated')].status"}"#,
    printcolumn = r#"{"name":"Agent","type":"string","jsonPath":".spec.agent"}"#,
    printcolumn = r#"{"name":"Public key","type":"string","jsonPath":".spec.publicKey","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct WarrenNodeSpec {
    /// Layout of the record; agents refuse layouts that they do not know.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// The node's public key, 44 characters of base64.
    #[schemars(regex(pattern = "^[A-Za-z0-9+/]{43}=$"))]
    pub public_key: String,
    /// Where its tunnel listens, as address:port, best first.
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub endpoints: Vec<String>,
    /// The node's own addresses.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(max = 45)))]
    pub addresses: Vec<String>,
    /// The Pod prefixes that it claims; each must be allocated to it by a WarrenBlock.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 49)))]
    pub cidrs: Vec<String>,
    /// The largest inner packet that it takes, in bytes.
    #[schemars(range(min = 1280))]
    pub mtu: u16,
    /// Its data-path threads.
    pub workers: u16,
    /// The suites that it speaks, best first.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    pub suites: Vec<String>,
    /// What else it can do.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    pub features: Vec<String>,
    /// The agent's version.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub agent: String,
    /// Grows with every record of this node, so that a restored store cannot pass an old one for news.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub sequence: i64,
}

/// How the node fares with its allocations. Written when a condition changes its state, never with counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct WarrenNodeStatus {
    /// `Allocated`: every prefix that the node should have is its own.
    #[serde(default)]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One condition, as everywhere in Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(regex(pattern = "^(True|False|Unknown)$"))]
    pub status: String,
    /// Since when, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, in one word.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// "This prefix belongs to that node". The object is named after the prefix, with dashes for dots, colons and the slash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "warren.dev",
    version = "v1alpha1",
    kind = "WarrenBlock",
    shortname = "wb",
    category = "warren",
    doc = "An allocation: this prefix belongs to that node. It never changes; the oldest one owns.",
    validation = Rule::new(
        "self.metadata.name == self.spec.cidr.replace('.', '-').replace(':', '-').replace('/', '-')"
    ).message("the name must be the prefix with dashes for dots, colons and the slash, as 10-1-2-0-24"),
    printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.cidr"}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.node"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("an allocation never changes: delete it and make another"))]
pub struct WarrenBlockSpec {
    /// The prefix, without host bits.
    #[schemars(length(max = 43), regex(pattern = "^[0-9a-f][0-9a-f:.]*/[0-9]{1,3}$"))]
    pub cidr: String,
    /// Its owner.
    #[schemars(length(max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub node: String,
}

/// What holds for the whole overlay. The object is named `default`; only administrators write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "warren.dev",
    version = "v1alpha1",
    kind = "WarrenCluster",
    shortname = "wc",
    category = "warren",
    doc = "What holds for the whole overlay; written by administrators.",
    validation = Rule::new("self.metadata.name == 'default'").message("the one WarrenCluster is called default"),
    printcolumn = r#"{"name":"Networks","type":"string","jsonPath":".spec.networks"}"#,
    printcolumn = r#"{"name":"Enforcement","type":"string","jsonPath":".spec.enforcement"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct WarrenClusterSpec {
    /// The prefixes that belong to the overlay, a superset of all Pod CIDRs.
    #[schemars(length(min = 1, max = 64), inner(length(max = 49)))]
    pub networks: Vec<String>,
    /// `strict`: tunnel or nothing. `permissive`, for a roll-out: nodes without an agent are still reached in clear.
    #[schemars(regex(pattern = "^(strict|permissive)$"))]
    pub enforcement: String,
}
