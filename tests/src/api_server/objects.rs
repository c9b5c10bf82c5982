//! What the server holds: objects by resource and name, and what happened to them since it last forgot.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Plural names of what it knows.
pub const NODES: &str = "nodes";
/// Pods; of all namespaces, since the lab has but one.
pub const PODS: &str = "pods";
/// WarrenClusters.
pub const CLUSTERS: &str = "warrenclusters";
/// WarrenBlocks.
pub const BLOCKS: &str = "warrenblocks";
/// WarrenNodes.
pub const RECORDS: &str = "warrennodes";
/// Calico's BlockAffinities.
pub const AFFINITIES: &str = "blockaffinities";
/// CiliumNodes.
pub const CILIUM_NODES: &str = "ciliumnodes";

/// Events, of `default` alone.
pub const EVENTS: &str = "events";

/// Why a request was refused: status, reason, message.
pub(super) type Refused = (u16, &'static str, String);

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub(super) version: u64,
    pub(super) resource: String,
    pub(super) what: &'static str,
    pub(super) object: Value,
}

/// Everything at one version.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    kept: BTreeMap<(String, String), Value>,
    pub(super) version: u64,
    /// What happened up to this version is forgotten.
    pub(super) forgotten: u64,
    pub(super) history: Vec<Happened>,
    uids: u64,
    cluster: u64,
}

impl Objects {
    pub(super) fn new() -> Self {
        Self { kept: BTreeMap::new(), version: 1000, forgotten: 0, history: Vec::new(), uids: 0, cluster: 1 }
    }

    /// The UID of the cluster's own namespace.
    pub(super) fn cluster_uid(&self) -> String {
        format!("cluster-{}", self.cluster)
    }

    pub(super) fn become_another(&mut self) {
        *self = Self { cluster: self.cluster + 1, ..Self::new() };
    }

    pub(super) fn get(&self, resource: &str, name: &str) -> Option<&Value> {
        self.kept.get(&(resource.to_owned(), name.to_owned()))
    }

    /// In the order of their names, those behind `after`.
    pub(super) fn list(&self, resource: &str, after: &str) -> Vec<&Value> {
        let all = self.kept.iter().filter(|((kind, name), _)| kind == resource && name.as_str() > after);
        all.map(|(_, object)| object).collect()
    }

    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.forgotten = self.version;
        self.history.clear();
    }

    pub(super) fn wipe(&mut self, resource: &str) {
        self.kept.retain(|(kind, _), _| kind != resource);
        self.compact();
    }

    /// As an administrator: nothing is asked.
    pub(super) fn put(&mut self, resource: &str, object: Value) {
        let name = name_of(&object);
        match self.get(resource, &name).cloned() {
            Some(mut before) => {
                before["spec"] = object["spec"].clone();
                self.store(resource, before, "MODIFIED");
            }
            None => _ = self.make(resource, object),
        }
    }

    /// `POST`.
    pub(super) fn create(&mut self, resource: &str, object: Value) -> Result<Value, Refused> {
        let name = name_of(&object);
        if name.is_empty() {
            return Err((422, "Invalid", "name is required".into()));
        }
        if self.get(resource, &name).is_some() {
            return Err((409, "AlreadyExists", format!("{resource} {name:?} already exists")));
        }
        Ok(self.make(resource, object))
    }

    /// `PATCH` as server-side apply, forced: the object, and whether it is new.
    pub(super) fn apply(&mut self, resource: &str, name: &str, wanted: Value) -> Result<(Value, bool), Refused> {
        if name_of(&wanted) != name {
            return Err((400, "BadRequest", "the name of the object does not match the name on the URL".into()));
        }
        let Some(before) = self.get(resource, name).cloned() else {
            return Ok((self.make(resource, wanted), true));
        };
        let mut after = before.clone();
        after["spec"] = wanted["spec"].clone();
        after["metadata"]["ownerReferences"] = wanted["metadata"]["ownerReferences"].clone();
        Ok((self.replace(resource, &before, after), false))
    }

    /// `PATCH` of the specification as a merge, of this version if one is named.
    pub(super) fn merge(&mut self, resource: &str, name: &str, change: &Value) -> Result<Value, Refused> {
        let before = self.get(resource, name).cloned().ok_or_else(|| missing(resource, name))?;
        let seen = &change["metadata"]["resourceVersion"];
        if !seen.is_null() && *seen != before["metadata"]["resourceVersion"] {
            return Err((409, "Conflict", "the object has been modified".into()));
        }
        let mut after = before.clone();
        for (key, value) in change["spec"].as_object().into_iter().flatten() {
            after["spec"][key] = value.clone();
        }
        Ok(self.replace(resource, &before, after))
    }

    /// Server-side apply of the status alone.
    pub(super) fn apply_status(&mut self, resource: &str, name: &str, wanted: &Value) -> Result<Value, Refused> {
        let before = self.get(resource, name).cloned().ok_or_else(|| missing(resource, name))?;
        let mut after = before.clone();
        after["status"] = wanted["status"].clone();
        Ok(self.replace(resource, &before, after))
    }

    /// `DELETE`, of this UID if one is named.
    pub(super) fn delete(&mut self, resource: &str, name: &str, uid: Option<&str>) -> Result<(), Refused> {
        let found = self.get(resource, name).ok_or_else(|| missing(resource, name))?;
        let has = found["metadata"]["uid"].as_str().unwrap_or_default();
        if uid.is_some_and(|uid| uid != has) {
            return Err((409, "Conflict", format!("the UID in the precondition does not match {has}")));
        }
        self.remove(resource, name);
        Ok(())
    }

    /// Without asking; and what it owned goes with it, as the garbage collector would see to.
    pub(super) fn remove(&mut self, resource: &str, name: &str) {
        let Some(object) = self.kept.remove(&(resource.to_owned(), name.to_owned())) else { return };
        let uid = object["metadata"]["uid"].clone();
        self.happened(resource, "DELETED", object);
        let owned = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
        };
        let orphans: Vec<_> =
            self.kept.iter().filter(|(_, object)| owned(object)).map(|(key, _)| key.clone()).collect();
        orphans.iter().for_each(|(kind, name)| self.remove(kind, name));
    }

    /// Marks it as deleted, as long as a finalizer keeps it.
    pub(super) fn begin_removal(&mut self, resource: &str, name: &str) {
        let Some(mut object) = self.get(resource, name).cloned() else { return };
        object["metadata"]["deletionTimestamp"] = now().into();
        object["metadata"]["finalizers"] = json!(["test.example/stays"]);
        self.store(resource, object, "MODIFIED");
    }

    fn make(&mut self, resource: &str, mut object: Value) -> Value {
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("uid-{}", self.uids).into();
        if metadata.get("creationTimestamp").is_none() {
            metadata["creationTimestamp"] = now().into();
        }
        self.store(resource, object, "ADDED")
    }

    /// What changes nothing makes no new version and no event.
    fn replace(&mut self, resource: &str, before: &Value, after: Value) -> Value {
        if *before == after { after } else { self.store(resource, after, "MODIFIED") }
    }

    fn store(&mut self, resource: &str, object: Value, what: &'static str) -> Value {
        let name = name_of(&object);
        let stored = self.happened(resource, what, object);
        self.kept.insert((resource.to_owned(), name), stored.clone());
        stored
    }

    fn happened(&mut self, resource: &str, what: &'static str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let event = Happened { version: self.version, resource: resource.to_owned(), what, object: object.clone() };
        self.history.push(event);
        object
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn missing(resource: &str, name: &str) -> Refused {
    (404, "NotFound", format!("{resource} {name:?} not found"))
}

/// What an error looks like.
pub(super) fn status((code, reason, message): &Refused) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code})
}

/// RFC 3339, to the second, as Kubernetes writes it.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date of the Gregorian calendar, by eras of 400 years that begin in March.
    let era_days = days + 719_468;
    let (era, day_of_era) = (era_days / 146_097, era_days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}
