//! One object as the API server hands it out, read with suspicion: whatever is missing or wrong harms nobody but the
//! object itself.

use serde::Deserialize;
use serde_json::{Map, Value};
use warren_overlay::record::RECORD_MAX;

use super::prefixes::cilium;

/// The longest name that Kubernetes takes.
const TEXT_MAX: usize = 253;
/// Longer than any UID.
const UID_MAX: usize = 64;

/// Kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The Node that this agent runs on.
    Node,
    Cluster,
    Block,
    Record,
    /// Calico's: a block that this or another node takes addresses from.
    Affinity,
    /// The CiliumNode of this agent's Node.
    CiliumNode,
}

impl Kind {
    /// Those that are this registry.
    pub(super) const REGISTRY: [Self; 4] = [Self::Node, Self::Cluster, Self::Block, Self::Record];
}

/// What of an object is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) uid: String,
    /// Seconds since 1970; `None` where the server does not say.
    pub(super) created: Option<u64>,
    /// UID of the Node that owns it.
    pub(super) owner: Option<String>,
    /// The specification as JSON, a record in the layout that all registries share. No more of it than it takes to
    /// refuse it as oversized.
    pub(super) spec: Vec<u8>,
    /// State and reason of its condition `Allocated`.
    pub(super) allocated: Option<(String, String)>,
    /// Deleted, and kept by finalizers alone.
    pub(super) going: bool,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    uid: String,
}

impl Object {
    /// `None` for what has no name.
    pub(super) fn read(kind: Kind, mut value: Value) -> Option<Self> {
        let spec = value.get_mut("spec").map(Value::take).unwrap_or_default();
        let text = |at: &str| {
            value.pointer(at).and_then(Value::as_str).filter(|text| text.len() <= TEXT_MAX).unwrap_or_default()
        };
        let name = text("/metadata/name").to_owned();
        let owners = value.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
        let owner = owners
            .filter_map(|one| Owner::deserialize(one).ok())
            .find(|one| one.kind == "Node" && one.uid.len() <= UID_MAX);
        Some(Self {
            going: is_going(kind, &value),
            uid: Some(text("/metadata/uid")).filter(|uid| uid.len() <= UID_MAX).unwrap_or_default().to_owned(),
            created: seconds(text("/metadata/creationTimestamp")),
            owner: owner.map(|owner| owner.uid),
            spec: bytes(match kind {
                Kind::Record => as_record(&name, spec),
                Kind::Node => super::node::as_spec(&spec, &value),
                Kind::CiliumNode => cilium::kept(&spec),
                Kind::Cluster | Kind::Block | Kind::Affinity => spec,
            }),
            allocated: allocated(&value),
            name: (!name.is_empty()).then_some(name)?,
        })
    }

    /// Its specification as this type.
    pub(super) fn spec<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.spec).ok()
    }
}

/// Deleted, and kept by finalizers alone: as good as gone, whoever put them there. A Node is there until it is gone: it is
/// drained meanwhile.
pub(super) fn is_going(kind: Kind, value: &Value) -> bool {
    kind != Kind::Node && value.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// The resource version of any object.
pub(super) fn version(value: &Value) -> Option<String> {
    let version = value.pointer("/metadata/resourceVersion")?.as_str()?;
    (!version.is_empty() && version.len() <= 64).then(|| version.to_owned())
}

/// The record as other registries have it: it names its node, and the key is called `public_key`.
fn as_record(name: &str, spec: Value) -> Value {
    let Value::Object(mut spec) = spec else { return spec };
    if let Some(key) = spec.remove("publicKey") {
        spec.insert("public_key".to_owned(), key);
    }
    spec.insert("name".to_owned(), name.into());
    Value::Object(spec)
}

/// The opposite of [`as_record`].
pub(super) fn as_spec(record: Value) -> Value {
    let Value::Object(mut spec) = record else { return record };
    if let Some(key) = spec.remove("public_key") {
        spec.insert("publicKey".to_owned(), key);
    }
    spec.remove("name");
    Value::Object(spec)
}

fn bytes(value: Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(&value).unwrap_or_default();
    bytes.truncate(RECORD_MAX + 1);
    bytes
}

/// RFC 3339 as Kubernetes writes it.
fn seconds(time: &str) -> Option<u64> {
    let time = serde_json::from_value::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>(time.into()).ok()?;
    u64::try_from(time.0.as_second()).ok()
}

fn allocated(value: &Value) -> Option<(String, String)> {
    let conditions = value.pointer("/status/conditions")?.as_array()?;
    let text = |of: &Map<String, Value>, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut conditions = conditions.iter().filter_map(Value::as_object);
    let ours = conditions.find(|one| text(one, "type").as_deref() == Some("Allocated"))?;
    let (status, reason) = (text(ours, "status")?, text(ours, "reason")?);
    (status.len() <= TEXT_MAX && reason.len() <= TEXT_MAX).then_some((status, reason))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_reads_like_one_of_any_other_registry() {
        let spec = json!({"version": 1, "publicKey": "k", "name": "forged", "sequence": 7});
        let value =
            json!({"metadata": {"name": "a", "uid": "u", "creationTimestamp": "1970-01-01T00:01:00Z"}, "spec": spec});
        let object = Object::read(Kind::Record, value).unwrap();
        let read: Value = object.spec().unwrap();
        assert_eq!(read, json!({"version": 1, "public_key": "k", "name": "a", "sequence": 7}));
        assert_eq!(as_spec(read), json!({"version": 1, "publicKey": "k", "sequence": 7}));
        assert_eq!(object.created, Some(60));
    }

    #[test]
    fn whatever_is_wrong_with_an_object_is_wrong_with_it_alone() {
        let hostile = [json!(null), json!([]), json!("x"), json!({"metadata": 7}), json!({"metadata": {"name": ""}})];
        for value in hostile {
            assert_eq!(Object::read(Kind::Block, value), None);
        }
        let odd = json!({"metadata": {"name": "a", "uid": 7, "creationTimestamp": "yesterday",
            "ownerReferences": [7, {"kind": "Node"}]}, "spec": [1], "status": {"conditions": "none"}});
        let object = Object::read(Kind::Record, odd).unwrap();
        assert_eq!((object.uid.as_str(), object.created, object.owner.clone()), ("", None, None));
        assert_eq!(object.spec, b"[1]");
    }

    #[test]
    fn no_more_is_kept_of_an_object_than_it_takes_to_refuse_it() {
        let value = json!({"metadata": {"name": "a"}, "spec": {"agent": "x".repeat(1 << 20)}});
        assert_eq!(Object::read(Kind::Record, value).unwrap().spec.len(), RECORD_MAX + 1);
        let long = "x".repeat(1 << 20);
        let value = json!({"metadata": {"name": "a", "uid": long, "ownerReferences": [{"kind": "Node", "uid": long}]},
            "status": {"conditions": [{"type": "Allocated", "status": "True", "reason": long}]}});
        let object = Object::read(Kind::Record, value).unwrap();
        assert_eq!((object.uid.as_str(), object.owner, object.allocated), ("", None, None));
    }
}
