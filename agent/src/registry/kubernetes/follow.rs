//! One kind of object, followed: listed, then watched from there; listed again when the server has forgotten the way.
//!
//! ```text
//! list (paged) -> watch from its version -> the watch ends, as it does by the clock: watch from the last version
//!    ^                                        |
//!    \---- 410: the version is too old -------/      anything else: the connection ends, and all begins with a pause
//!     \--- the server is behind that version: it was restored
//! ```
//!
//! A server that was restored accepts a watch from a version that it has yet to reach, and says nothing; so each watch is
//! preceded by the question at which version the server is.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Fault;
use super::object::{Kind, Object, is_going, version};
use super::server::{Events, PAGE, Server};
use crate::registry::jitter;

/// How long the server keeps one watch open, and jitter.
const OPEN: Duration = Duration::from_secs(240);
/// A watch that says nothing for this long is dead: bookmarks come once a minute.
const SILENCE: Duration = Duration::from_secs(150);
/// Watches that end sooner than this are opened again after a pause.
const HASTE: Duration = Duration::from_secs(2);
/// Pages of one list: more than this is a server that repeats itself.
const PAGES: usize = 10_000;
/// Objects of one kind: more than this are no mesh's, and would cost the memory of the node.
const OBJECTS: usize = 100_000;
/// However quiet all is, everything is read again after this: watches have lost events before.
const RELIST: Duration = Duration::from_secs(3600);

/// What was heard.
#[derive(Debug)]
pub(super) enum News {
    /// All of a kind there is, and at which version.
    Listed(Kind, Vec<Object>, String),
    /// New, or changed.
    Changed(Kind, Value),
    Gone(Kind, Value),
    /// Nothing happened up to this version.
    Reached(Kind, String),
    /// What was heard of this kind is not to be built on: it has to be listed again.
    Doubted(Kind),
}

/// Where an earlier connection got to.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) version: String,
    /// When all was read.
    pub(super) listed_at: Instant,
}

/// How a watch ended that did not fail.
enum Next {
    Resume(String),
    Relist,
}

/// Follows until something fails, or another cluster answers. `start` is where an earlier connection got to.
pub(super) async fn follow(
    server: Server,
    cluster: String,
    kind: Kind,
    start: Option<Start>,
    news: mpsc::Sender<News>,
) -> Fault {
    let mut follower = Follower { server, cluster, kind, limit: PAGE, news };
    match follower.run(start).await {
        Err(fault) => fault,
        Ok(never) => match never {},
    }
}

struct Follower {
    server: Server,
    /// Whose objects these are.
    cluster: String,
    kind: Kind,
    /// Objects in one page; fewer where they were too large.
    limit: u32,
    news: mpsc::Sender<News>,
}

impl Follower {
    async fn run(&mut self, start: Option<Start>) -> Result<std::convert::Infallible, Fault> {
        let mut relist =
            start.as_ref().map_or_else(Instant::now, |start| start.listed_at) + RELIST / 2 + jitter(RELIST);
        let mut next = start.map_or(Next::Relist, |start| Next::Resume(start.version));
        loop {
            let began = Instant::now();
            // Whoever answers now need not be who answered before.
            if self.server.cluster_id().await? != self.cluster {
                return Err(Fault::Local("another cluster answers than before".to_owned()));
            }
            let from = match next {
                Next::Resume(version) if began < relist && !self.is_behind(&version).await? => version,
                _ => {
                    relist = began + RELIST / 2 + jitter(RELIST);
                    self.list().await?
                }
            };
            next = self.watch(from).await?;
            if began.elapsed() < HASTE {
                sleep(HASTE / 2 + jitter(HASTE)).await;
            }
        }
    }

    /// Whether the server has yet to reach this version. Versions that are no numbers cannot be compared.
    async fn is_behind(&self, reached: &str) -> Result<bool, Fault> {
        let now = self.server.version(self.kind).await?;
        let behind = went_back(reached, &now);
        if behind {
            tracing::warn!(kind = ?self.kind, reached, now, "the API server went back in time");
            self.tell(News::Doubted(self.kind)).await?;
        }
        Ok(behind)
    }

    /// Everything; the version that it is of.
    async fn list(&mut self) -> Result<String, Fault> {
        let (mut objects, mut rest) = (Vec::new(), None);
        for _ in 0..PAGES {
            let page = match self.server.page(self.kind, self.limit, rest.clone()).await {
                Err(Fault::Large) if self.limit > 1 => {
                    self.limit = (self.limit / 16).max(1);
                    continue;
                }
                page => page?,
            };
            let items = page.items.into_iter().filter(|item| !is_going(self.kind, item));
            objects.extend(items.filter_map(|item| Object::read(self.kind, item)));
            if objects.len() > OBJECTS {
                return Err(Fault::Nonsense("more objects than a mesh has"));
            }
            rest = page.rest;
            if rest.is_none() {
                let version = page.version.ok_or(Fault::Nonsense("a list without a version"))?;
                self.tell(News::Listed(self.kind, objects, version.clone())).await?;
                return Ok(version);
            }
        }
        Err(Fault::Nonsense("a list without an end"))
    }

    async fn watch(&mut self, from: String) -> Result<Next, Fault> {
        let seconds = (OPEN / 2 + jitter(OPEN)).as_secs() as u32;
        match self.server.watch(self.kind, &from, seconds).await {
            Ok(events) => self.hear(events, from).await,
            // 504: some servers say that they do not know that version yet.
            Err(fault) if matches!(fault.code(), Some(410 | 504)) => Ok(Next::Relist),
            Err(fault) => Err(fault),
        }
    }

    async fn hear(&mut self, mut events: Events, mut reached: String) -> Result<Next, Fault> {
        loop {
            let mut event = match timeout(SILENCE, events.next()).await.unwrap_or(Err(Fault::Silent)) {
                Ok(Some(event)) => event,
                // An end like any other: whether anybody is there, the next watch shows.
                Ok(None) | Err(Fault::Broken(_)) => return Ok(Next::Resume(reached)),
                Err(fault) => {
                    // Not even bookmarks, or what nobody understands: who knows what else was not said.
                    self.tell(News::Doubted(self.kind)).await?;
                    return Err(fault);
                }
            };
            let object = event.get_mut("object").map(Value::take).unwrap_or_default();
            let what = event.get("type").and_then(Value::as_str).unwrap_or_default();
            if what == "ERROR" {
                return refused(&object);
            }
            let heard = version(&object).ok_or(Fault::Nonsense("an event without a version"))?;
            if went_back(&reached, &heard) {
                return Ok(Next::Relist);
            }
            reached = heard;
            let news = match what {
                "ADDED" | "MODIFIED" => News::Changed(self.kind, object),
                "DELETED" => News::Gone(self.kind, object),
                "BOOKMARK" => News::Reached(self.kind, reached.clone()),
                _ => return Err(Fault::Nonsense("an event of an unknown type")),
            };
            self.tell(news).await?;
        }
    }

    async fn tell(&self, news: News) -> Result<(), Fault> {
        self.news.send(news).await.map_err(|_| Fault::Left)
    }
}

/// Whether the second version is before the first.
pub(super) fn went_back(from: &str, to: &str) -> bool {
    matches!((from.parse::<u64>(), to.parse::<u64>()), (Ok(from), Ok(to)) if to < from)
}

/// An error inside a watch that began well.
fn refused(status: &Value) -> Result<Next, Fault> {
    let code = status.get("code").and_then(Value::as_u64).unwrap_or_default();
    if code == 410 {
        return Ok(Next::Relist);
    }
    let said = status.get("message").and_then(Value::as_str).unwrap_or_default();
    Err(Fault::Said(u16::try_from(code).unwrap_or(500), said.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_back_only_as_numbers() {
        assert!(went_back("10", "9"));
        assert!(!went_back("9", "10") && !went_back("9", "9") && !went_back("b", "a") && !went_back("9", "x"));
    }
}
