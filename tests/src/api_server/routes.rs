//! What a request asks for, and what it is answered.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Request;
use super::objects::{
    AFFINITIES, BLOCKS, CILIUM_NODES, CLUSTERS, EVENTS, NODES, Objects, PODS, RECORDS, Refused, status,
};
use super::{Asked, Mood, Shared};

/// Objects in one page, whatever a client asks for: so that it has to go on.
const PAGE: usize = 3;

/// What is sent back.
pub(super) enum Answer {
    Whole(u16, Value),
    Watch(Watch),
}

/// A watch under way.
pub(super) struct Watch {
    pub(super) resource: String,
    /// The name of the only object.
    pub(super) only: Option<String>,
    pub(super) since: u64,
    pub(super) lasts: Duration,
    pub(super) is_over: bool,
}

impl Watch {
    pub(super) fn bookmark(&self) -> Value {
        json!({"type": "BOOKMARK", "object": {"kind": "Any", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.since.to_string(), "creationTimestamp": null}}})
    }
}

/// The parts of a path.
struct Target {
    group: &'static str,
    resource: String,
    name: Option<String>,
    subresource: Option<String>,
}

/// Where what stands: path, group, resources.
const GROUPS: [(&str, &str, &[&str]); 5] = [
    ("/api/v1/", "", &[NODES, PODS, "namespaces"]),
    ("/apis/warren.dev/v1alpha1/", "warren.dev", &[CLUSTERS, BLOCKS, RECORDS]),
    ("/apis/crd.projectcalico.org/v1/", "crd.projectcalico.org", &[AFFINITIES]),
    ("/apis/cilium.io/v2/", "cilium.io", &[CILIUM_NODES]),
    ("/apis/events.k8s.io/v1/namespaces/default/", "events.k8s.io", &[EVENTS]),
];

fn target(path: &str) -> Option<Target> {
    let (rest, group, known) =
        GROUPS.into_iter().find_map(|(at, group, known)| Some((path.strip_prefix(at)?, group, known)))?;
    let mut parts = rest.split('/').map(str::to_owned);
    let resource = parts.next()?;
    known.contains(&resource.as_str()).then(|| Target {
        group,
        resource,
        name: parts.next(),
        subresource: parts.next(),
    })
}

fn verb(request: &Request, target: &Target) -> &'static str {
    match (request.method.as_str(), &target.name) {
        ("GET", Some(_)) => "get",
        ("GET", None) if request.parameter("watch").as_deref() == Some("true") => "watch",
        ("GET", None) => "list",
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        _ => "unknown",
    }
}

/// Answers, and notes what was asked.
pub(super) fn answer(request: &Request, shared: &Shared, mood: &Mood) -> Answer {
    let refused = |refused: Refused| Answer::Whole(refused.0, status(&refused));
    let unknown = || refused((404, "NotFound", "the server could not find the requested resource".into()));
    let Some(target) = target(&request.path) else { return unknown() };
    let verb = verb(request, &target);
    note(shared, request, &target, verb);
    if *mood == Mood::Strange && !["", "events.k8s.io"].contains(&target.group) {
        return unknown();
    }
    if *mood == Mood::Busy && is_odd(shared) {
        return refused((429, "TooManyRequests", "Too many requests, please try again later.".into()));
    }
    match (verb, mood) {
        ("create" | "patch" | "delete", Mood::Refusing(code)) => {
            refused((*code, "InternalError", "failed calling webhook".into()))
        }
        ("create", Mood::Eventless(code)) if target.resource == EVENTS => {
            refused((*code, "Forbidden", "events.events.k8s.io is forbidden".into()))
        }
        ("list", _) => list(request, shared, &target, mood),
        ("watch", _) => watch(request, &target).map_or_else(refused, Answer::Watch),
        ("patch", _) if shared.compares.load(Relaxed) && claims_more(request, &shared.objects(), &target) => {
            let said = "ValidatingAdmissionPolicy 'warren-node-facts' denied request: a prefix of the record is not among the \
                        podCIDRs of its Node";
            refused((422, "Invalid", said.into()))
        }
        _ => {
            let done = one(request, &mut shared.objects(), &target, verb);
            shared.changes.send_modify(|changes| *changes += 1);
            done.map_or_else(refused, |(code, body)| Answer::Whole(code, body))
        }
    }
}

fn note(shared: &Shared, request: &Request, target: &Target, verb: &str) {
    let resource = match &target.subresource {
        Some(subresource) => format!("{}/{subresource}", target.resource),
        None => target.resource.clone(),
    };
    let asked = Asked {
        group: target.group.to_owned(),
        resource,
        verb: verb.to_owned(),
        name: target.name.clone(),
        query: request.query.clone(),
    };
    shared.asked.lock().expect("no request panics").push(asked);
}

/// Whether the last request was the first of its kind, the third, and so on.
fn is_odd(shared: &Shared) -> bool {
    let asked = shared.asked.lock().expect("no request panics");
    let Some(last) = asked.last() else { return false };
    asked.iter().filter(|asked| (&asked.verb, &asked.resource) == (&last.verb, &last.resource)).count() % 2 == 1
}

/// Whether this is a record with a prefix that its Node does not have.
fn claims_more(request: &Request, objects: &Objects, target: &Target) -> bool {
    if target.resource != RECORDS || target.subresource.is_some() {
        return false;
    }
    let record: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let node = objects.get(NODES, target.name.as_deref().unwrap_or_default());
    let given = node.and_then(|node| node["spec"]["podCIDRs"].as_array()).cloned().unwrap_or_default();
    record["spec"]["cidrs"].as_array().into_iter().flatten().any(|cidr| !given.contains(cidr))
}

/// The name that a field selector names.
fn selected(request: &Request) -> Option<String> {
    request.parameter("fieldSelector")?.strip_prefix("metadata.name=").map(str::to_owned)
}

/// Whether the object has all labels that a selector names.
fn is_labelled(object: &Value, selector: &str) -> bool {
    let mut wanted = selector.split(',').filter_map(|one| one.split_once('='));
    wanted.all(|(key, value)| object["metadata"]["labels"][key] == value)
}

fn list(request: &Request, shared: &Shared, target: &Target, mood: &Mood) -> Answer {
    if *mood == Mood::Lying {
        return Answer::Whole(
            200,
            json!({"kind": "List", "metadata": {"resourceVersion": ""}, "items": [7, {}, null]}),
        );
    }
    let after = request.parameter("continue").unwrap_or_default();
    if !after.is_empty() && is_forgotten(shared) {
        let refused: Refused =
            (410, "Expired", "The provided continue parameter is too old to display a consistent list.".into());
        return Answer::Whole(refused.0, status(&refused));
    }
    let objects = shared.objects();
    let (only, labels) = (selected(request), request.parameter("labelSelector"));
    let found = objects.list(&target.resource, &after).into_iter();
    let found = found.filter(|object| labels.as_ref().is_none_or(|labels| is_labelled(object, labels)));
    let limit = request.parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE).min(PAGE);
    let found: Vec<_> =
        found.filter(|object| only.as_ref().is_none_or(|only| object["metadata"]["name"] == **only)).collect();
    let page = &found[..found.len().min(limit)];
    let rest = page.last().filter(|_| found.len() > limit).map(|last| last["metadata"]["name"].clone());
    Answer::Whole(
        200,
        json!({"kind": "List", "apiVersion": "v1", "items": page,
        "metadata": {"resourceVersion": objects.version.to_string(), "continue": rest.unwrap_or_default()}}),
    )
}

/// Whether the rest of a list is asked for too late.
fn is_forgotten(shared: &Shared) -> bool {
    let mut forgets = shared.forgets.lock().expect("no request panics");
    let forgotten = *forgets > 0;
    *forgets = forgets.saturating_sub(1);
    forgotten
}

/// From a version that is yet to come too: without a word until it is there, as a real one does.
fn watch(request: &Request, target: &Target) -> Result<Watch, Refused> {
    let since = request.parameter("resourceVersion").and_then(|version| version.parse().ok());
    let since: u64 = since.ok_or((400, "BadRequest", "a watch from nowhere".into()))?;
    let seconds = request.parameter("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(300);
    let (only, resource) = (selected(request), target.resource.clone());
    Ok(Watch { resource, only, since, lasts: Duration::from_secs(seconds), is_over: false })
}

/// Requests for one object.
fn one(request: &Request, objects: &mut Objects, target: &Target, verb: &str) -> Result<(u16, Value), Refused> {
    let name = target.name.as_deref().unwrap_or_default();
    let body = || serde_json::from_slice(&request.body).map_err(|_| (400, "BadRequest", "no JSON".to_owned()));
    match (verb, target.resource.as_str(), target.subresource.as_deref()) {
        ("get", "namespaces", None) => {
            Ok((200, json!({"kind": "Namespace", "metadata": {"name": name, "uid": objects.cluster_uid()}})))
        }
        ("create", resource, None) => objects.create(resource, body()?).map(|object| (201, object)),
        ("patch", RECORDS, subresource) => {
            check_apply(request)?;
            match subresource {
                None => {
                    objects.apply(RECORDS, name, body()?).map(|(object, new)| (if new { 201 } else { 200 }, object))
                }
                _ => objects.apply_status(RECORDS, name, &body()?).map(|object| (200, object)),
            }
        }
        ("patch", CLUSTERS, None) => {
            check_patch(request, "application/merge-patch+json")?;
            objects.merge(CLUSTERS, name, &body()?).map(|object| (200, object))
        }
        ("delete", resource, None) => {
            let options: Value = body()?;
            let uid = options["preconditions"]["uid"].as_str();
            objects.delete(resource, name, uid).map(|()| (200, json!({"kind": "Status", "status": "Success"})))
        }
        _ => Err((405, "MethodNotAllowed", "the server does not allow this method".into())),
    }
}

/// Server-side apply, and nothing else that `PATCH` can be.
fn check_apply(request: &Request) -> Result<(), Refused> {
    check_patch(request, "application/apply-patch+yaml")?;
    match request.parameter("fieldManager").filter(|manager| !manager.is_empty()) {
        Some(_) => Ok(()),
        None => Err((400, "BadRequest", "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager is required".into())),
    }
}

fn check_patch(request: &Request, kind: &str) -> Result<(), Refused> {
    if request.content_type == kind {
        return Ok(());
    }
    Err((415, "UnsupportedMediaType", request.content_type.clone()))
}
