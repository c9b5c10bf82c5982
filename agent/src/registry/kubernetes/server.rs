//! Requests to the API server: the only place where any is made. Replies are bounded in size and time; nothing that they
//! hold is logged here.

use std::time::Duration;

use futures::io::AsyncReadExt as _;
use futures::{AsyncBufRead, AsyncBufReadExt as _, TryStreamExt as _};
use hyper::body::Body as _;
use k8s_openapi::api::events::v1::Event;
use kube::Client;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchParams};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::time::timeout;
use warren_overlay::record::NodeName;

use super::Fault;
use super::events::NAMESPACE;
use super::fault::refusal;
use super::object::{Kind, Object};

/// Objects in one page, where they are not large.
pub(super) const PAGE: u32 = 500;
/// Pages of one list: more than this is a server that repeats itself.
pub(super) const PAGES: usize = 10_000;
/// The largest reply that is taken: more than two objects of the largest that etcd keeps.
const REPLY_MAX: u64 = 4 << 20;
/// The largest event that is taken: an object is smaller than etcd's 1.5 MiB.
const EVENT_MAX: u64 = 4 << 20;
/// Of a refusal, no more is read.
const REFUSAL_MAX: u64 = 64 << 10;
/// How long any reply may take, but that of a watch.
const ANSWER: Duration = Duration::from_secs(15);
/// How long that to a write may take: nothing is heard meanwhile. What was done all the same, the watch tells.
const WRITTEN: Duration = Duration::from_secs(5);
/// Whose fields these are, for server-side apply.
const MANAGER: &str = "warren-agent";

/// One API server, as one node sees it.
#[derive(Clone)]
pub(super) struct Server {
    client: Client,
    node: NodeName,
}

/// A page of a list.
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    pub(super) version: Option<String>,
    pub(super) rest: Option<String>,
}

/// What stands there after an apply.
pub(super) struct Applied {
    /// The object, which may be new.
    pub(super) uid: Option<String>,
    /// By which the watch tells of it.
    pub(super) version: Option<String>,
}

impl Kind {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Node => "/api/v1/nodes",
            Self::Cluster => "/apis/warren.dev/v1alpha1/warrenclusters",
            Self::Block => "/apis/warren.dev/v1alpha1/warrenblocks",
            Self::Record => "/apis/warren.dev/v1alpha1/warrennodes",
            Self::Affinity => "/apis/crd.projectcalico.org/v1/blockaffinities",
            Self::CiliumNode => "/apis/cilium.io/v2/ciliumnodes",
        }
    }
}

impl Server {
    pub(super) fn new(client: Client, node: NodeName) -> Self {
        Self { client, node }
    }

    /// Which cluster this is: what nobody deletes in it. Any server's cache of it will do.
    pub(super) async fn cluster_id(&self) -> Result<String, Fault> {
        let request = Request::new("/api/v1/namespaces").get("kube-system", &GetParams::any())?;
        let uid = self.answer(request).await?.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        uid.filter(|uid| !uid.is_empty() && uid.len() <= 64).ok_or(Fault::Nonsense("a namespace without a UID"))
    }

    pub(super) async fn page(&self, kind: Kind, limit: u32, rest: Option<String>) -> Result<Page, Fault> {
        let params = ListParams { limit: Some(limit), continue_token: rest, ..self.selection(kind) };
        page(&self.client, kind.path(), &params).await
    }

    /// The record of this node as it stands, and not as a cache or a watch has it.
    pub(super) async fn own_record(&self) -> Result<Option<Object>, Fault> {
        let params = ListParams::default().fields(&format!("metadata.name={}", self.node));
        let all = page(&self.client, Kind::Record.path(), &params).await?.items.into_iter();
        let mut all = all.filter_map(|item| Object::read(Kind::Record, item));
        Ok(all.find(|object| object.name == self.node.as_str()))
    }

    /// At which version it is.
    pub(super) async fn version(&self, kind: Kind) -> Result<String, Fault> {
        let params = ListParams { limit: Some(1), ..self.selection(kind) };
        let list = self.answer(Request::new(kind.path()).list(&params)?).await?;
        super::object::version(&list).ok_or(Fault::Nonsense("a list without a version"))
    }

    /// Events since this version, a line each.
    pub(super) async fn watch(&self, kind: Kind, version: &str, seconds: u32) -> Result<Events, Fault> {
        let ListParams { field_selector, .. } = self.selection(kind);
        let params = WatchParams { field_selector, timeout: Some(seconds), bookmarks: true, ..WatchParams::default() };
        let opening = open(&self.client, Request::new(kind.path()).watch(&params, version)?);
        Ok(Events(timeout(ANSWER, opening).await.map_err(|_| Fault::Silent)??))
    }

    pub(super) async fn create_block(&self, block: &Value) -> Result<(), Fault> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let body = serde_json::to_vec(block).unwrap_or_default();
        self.write(Request::new(Kind::Block.path()).create(&params, body)?).await.map(drop)
    }

    pub(super) async fn create_event(&self, event: &Event) -> Result<(), Fault> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
        let body = serde_json::to_vec(event).unwrap_or_default();
        self.write(Request::new(path).create(&PostParams::default(), body)?).await.map(drop)
    }

    pub(super) async fn apply_record(&self, record: &Value) -> Result<Applied, Fault> {
        let params = PatchParams::apply(MANAGER).force();
        let request = Request::new(Kind::Record.path()).patch(self.node.as_str(), &params, &Patch::Apply(record))?;
        self.write(request).await.map(|object| applied(&object))
    }

    pub(super) async fn apply_status(&self, status: &Value) -> Result<Applied, Fault> {
        let params = PatchParams::apply(MANAGER).force();
        let body = json!({"apiVersion": "warren.dev/v1alpha1", "kind": "WarrenNode",
            "metadata": {"name": self.node}, "status": status});
        let request = Request::new(Kind::Record.path()).patch_subresource(
            "status",
            self.node.as_str(),
            &params,
            &Patch::Apply(&body),
        )?;
        self.write(request).await.map(|object| applied(&object))
    }

    /// Deletes that very object and no other of its name.
    pub(super) async fn delete(&self, kind: Kind, name: &str, uid: &str) -> Result<(), Fault> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.write(Request::new(kind.path()).delete(name, &params)?).await.map(drop)
    }

    /// Of Nodes and CiliumNodes its own alone.
    fn selection(&self, kind: Kind) -> ListParams {
        match kind {
            Kind::Node | Kind::CiliumNode => ListParams::default().fields(&format!("metadata.name={}", self.node)),
            _ => ListParams::default(),
        }
    }

    /// The reply to what changes nothing.
    async fn answer(&self, request: http::Request<Vec<u8>>) -> Result<Value, Fault> {
        answer(&self.client, request).await
    }

    /// The reply to what changes something.
    async fn write(&self, request: http::Request<Vec<u8>>) -> Result<Value, Fault> {
        timeout(WRITTEN, whole(&self.client, request)).await.map_err(|_| Fault::Silent)?
    }
}

/// Of everything at a path what is kept of it, page by page, with fewer in one where they are too large.
pub(super) async fn all<T>(
    client: &Client,
    path: &str,
    mut params: ListParams,
    mut keep: impl FnMut(Value) -> Option<T>,
) -> Result<Vec<T>, Fault> {
    let (mut kept, mut limit) = (Vec::new(), params.limit.unwrap_or(PAGE));
    for _ in 0..PAGES {
        params.limit = Some(limit);
        match page(client, path, &params).await {
            Err(Fault::Large) if limit > 1 => limit = (limit / 16).max(1),
            Err(fault) => return Err(fault),
            Ok(page) => {
                kept.extend(page.items.into_iter().filter_map(&mut keep));
                if page.rest.is_none() {
                    return Ok(kept);
                }
                params.continue_token = page.rest;
            }
        }
    }
    Err(Fault::Nonsense("a list without end"))
}

/// A page of what stands at a path.
async fn page(client: &Client, path: &str, params: &ListParams) -> Result<Page, Fault> {
    let mut list = answer(client, Request::new(path).list(params)?).await?;
    let version = super::object::version(&list);
    let rest = list.pointer("/metadata/continue").and_then(Value::as_str).filter(|rest| !rest.is_empty());
    let rest = rest.map(str::to_owned);
    match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(Page { items, version, rest }),
        // An empty list of Go is sometimes none.
        Some(Value::Null) => Ok(Page { items: Vec::new(), version, rest }),
        _ => Err(Fault::Nonsense("a list without items")),
    }
}

/// The reply, whole, for as long as a reply may take.
pub(super) async fn answer(client: &Client, request: http::Request<Vec<u8>>) -> Result<Value, Fault> {
    timeout(ANSWER, whole(client, request)).await.map_err(|_| Fault::Silent)?
}

async fn whole(client: &Client, request: http::Request<Vec<u8>>) -> Result<Value, Fault> {
    let mut body = Vec::new();
    open(client, request).await?.take(REPLY_MAX).read_to_end(&mut body).await?;
    if body.len() as u64 == REPLY_MAX {
        return Err(Fault::Large);
    }
    serde_json::from_slice(&body).map_err(|_| Fault::Nonsense("a reply that is no JSON"))
}

/// The reply as it comes, if it is none that refuses.
async fn open(client: &Client, request: http::Request<Vec<u8>>) -> Result<Reply, Fault> {
    let (head, body) = client.send(request.map(kube::client::Body::from)).await?.into_parts();
    let mut reply = bytes(body);
    if head.status.is_success() {
        return Ok(reply);
    }
    let mut said = Vec::new();
    // What came of it is told, however it ended.
    let _ = (&mut reply).take(REFUSAL_MAX).read_to_end(&mut said).await;
    Err(refusal(&head, &said))
}

/// A body as it comes.
type Reply = std::pin::Pin<Box<dyn AsyncBufRead + Send>>;

fn bytes(body: kube::client::Body) -> Reply {
    let mut body = Box::pin(body);
    let frames = futures::stream::poll_fn(move |context| body.as_mut().poll_frame(context));
    let data = frames.try_filter_map(|frame| std::future::ready(Ok(frame.into_data().ok())));
    Box::pin(data.map_err(std::io::Error::other).into_async_read())
}

fn applied(object: &Value) -> Applied {
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
    Applied { uid, version: super::object::version(object) }
}

/// What a watch says.
pub(super) struct Events(Reply);

impl Events {
    /// The next event; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Value>, Fault> {
        let mut line = Vec::new();
        (&mut self.0).take(EVENT_MAX).read_until(b'\n', &mut line).await?;
        match line.last() {
            None => Ok(None),
            Some(b'\n') => {
                serde_json::from_slice(&line).map(Some).map_err(|_| Fault::Nonsense("an event that is no JSON"))
            }
            // Cut off in the middle: the next watch says it again.
            Some(_) if line.len() as u64 == EVENT_MAX => Err(Fault::Nonsense("an event that is too large")),
            Some(_) => Ok(None),
        }
    }
}
