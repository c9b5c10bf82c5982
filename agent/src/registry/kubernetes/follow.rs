//! One kind of object, followed: listed, then watched from there; listed again when the server has forgotten the way.
//!
//! ```text
//! list (paged) -> watch from its version -> the watch ends, as it does by the clock: watch from the last version
//!    ^                                        |
//!    \---- 410: the version is too old -------/      busy, not well, silent: the same request again, after a pause
//!     \--- the server is behind that version: it was restored       anything else, or too often: the connection ends
//! ```
//!
//! A server that was restored accepts a watch from a version that it has yet to reach, and says nothing; so each watch is
//! preceded by the question at which version the server is. Which cluster it is of is asked before all is read again, and
//! after a watch that broke.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Fault;
use super::object::{Kind, Object, version};
use super::patience::Patience;
use super::server::{Events, PAGE, PAGES, Page, Server};
use crate::registry::jitter;

/// How long the server keeps one watch open, and jitter.
const OPEN: Duration = Duration::from_secs(240);
/// A watch that says nothing for this long is dead: bookmarks come once a minute.
const SILENCE: Duration = Duration::from_secs(150);
/// Watches that end sooner than this are opened again after a pause.
const HASTE: Duration = Duration::from_secs(2);
/// After a watch that broke, as those of all nodes may have at once: half of it at most, at random.
const HERD: Duration = Duration::from_secs(4);
/// So often a list is begun anew whose version the server forgot between two pages.
const ANEW: u32 = 2;
/// Objects of one kind: more than this are no mesh's, and would cost the memory of the node.
pub(super) const OBJECTS: usize = 100_000;
/// However quiet all is, everything is read again after half of this up to the whole: watches have lost events before.
const RELIST: Duration = Duration::from_secs(24 * 3600);

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
    /// It cannot be heard for now, and why; until it is [`News::Mended`].
    Ailing(Kind, String),
    Mended(Kind),
}

/// Where an earlier connection got to.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) version: String,
    /// When all was read.
    pub(super) listed_at: Instant,
}

/// What to do next.
#[derive(Clone)]
enum Next {
    Resume(String),
    Relist,
}

/// How a watch ended that did not fail.
struct End {
    next: Next,
    /// When it was to, and not because the way to the server broke.
    by_the_clock: bool,
}

impl End {
    fn broke(next: Next) -> Self {
        Self { next, by_the_clock: false }
    }
}

/// Follows until something fails, or another cluster answers. `start` is where an earlier connection got to.
pub(super) async fn follow(
    server: Server,
    cluster: String,
    kind: Kind,
    start: Option<Start>,
    news: mpsc::Sender<News>,
) -> Fault {
    let next = start.as_ref().map_or(Next::Relist, |start| Next::Resume(start.version.clone()));
    let listed_at = start.map_or_else(Instant::now, |start| start.listed_at);
    let (relist, patience) = (listed_at + RELIST / 2 + jitter(RELIST), Patience::default());
    // Whoever made the connection has just looked.
    let is_known = true;
    let mut follower = Follower { server, cluster, kind, limit: PAGE, news, next, relist, is_known, patience };
    match follower.run().await {
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
    next: Next,
    /// When to read everything again.
    relist: Instant,
    /// Whoever answers is who answered before.
    is_known: bool,
    patience: Patience,
}

impl Follower {
    async fn run(&mut self) -> Result<std::convert::Infallible, Fault> {
        loop {
            if let Err(fault) = self.round().await {
                self.endure(fault).await?;
            }
        }
    }

    /// One watch, with what it takes to begin it.
    async fn round(&mut self) -> Result<(), Fault> {
        let began = Instant::now();
        self.recognise().await?;
        let from = match self.next.clone() {
            Next::Resume(version) if began < self.relist && !self.is_behind(&version).await? => version,
            _ => self.list().await?,
        };
        self.next = Next::Resume(from.clone());
        let End { next, by_the_clock } = self.watch(from).await?;
        self.is_known = by_the_clock && matches!(next, Next::Resume(_)) && Instant::now() < self.relist;
        self.next = next;
        if began.elapsed() < HASTE {
            sleep(HASTE / 2 + jitter(HASTE)).await;
        } else if !by_the_clock {
            sleep(jitter(HERD)).await;
        }
        Ok(())
    }

    /// Whoever answers now need not be who answered before.
    async fn recognise(&mut self) -> Result<(), Fault> {
        if !self.is_known && self.server.cluster_id().await? != self.cluster {
            return Err(Fault::Local("another cluster answers than before".to_owned()));
        }
        self.is_known = true;
        Ok(())
    }

    /// Waits, where the same request may well be answered in a moment, and says why.
    async fn endure(&mut self, fault: Fault) -> Result<(), Fault> {
        let Some(pause) = self.patience.with(&fault) else { return Err(fault) };
        // Who refuses is still there; who is silent may come back as another.
        self.is_known &= fault.code().is_some();
        self.tell(News::Ailing(self.kind, fault.to_string())).await?;
        sleep(pause).await;
        Ok(())
    }

    /// It goes on.
    async fn mend(&mut self) -> Result<(), Fault> {
        if self.patience.renew() {
            self.tell(News::Mended(self.kind)).await?;
        }
        Ok(())
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

    /// Everything, up to what a mesh can have; the version that it is of.
    async fn list(&mut self) -> Result<String, Fault> {
        let (mut objects, mut rest, mut anew) = (Vec::new(), None, ANEW);
        for _ in 0..PAGES {
            let page = match self.page(rest.clone()).await {
                Err(Fault::Large) if self.limit > 1 => {
                    self.limit = (self.limit / 16).max(1);
                    continue;
                }
                // What is left would be of another version.
                Err(fault) if fault.code() == Some(410) && rest.is_some() && anew > 0 => {
                    (rest, anew) = (None, anew - 1);
                    objects.clear();
                    continue;
                }
                page => page?,
            };
            objects.extend(page.items.into_iter().filter_map(|item| Object::read(self.kind, item)));
            rest = page.rest;
            if rest.is_none() || objects.len() >= OBJECTS {
                objects.truncate(OBJECTS);
                let version = page.version.ok_or(Fault::Nonsense("a list without a version"))?;
                self.tell(News::Listed(self.kind, objects, version.clone())).await?;
                self.relist = Instant::now() + RELIST / 2 + jitter(RELIST);
                return Ok(version);
            }
        }
        Err(Fault::Nonsense("a list without an end"))
    }

    /// A page; asked for again where that may help, since a list that ends in the middle begins anew.
    async fn page(&mut self, rest: Option<String>) -> Result<Page, Fault> {
        loop {
            match self.server.page(self.kind, self.limit, rest.clone()).await {
                Err(fault) if fault.may_pass() => self.endure(fault).await?,
                Err(fault) => return Err(fault),
                Ok(page) => {
                    self.mend().await?;
                    return Ok(page);
                }
            }
        }
    }

    async fn watch(&mut self, from: String) -> Result<End, Fault> {
        let lasts = OPEN / 2 + jitter(OPEN);
        let end = Instant::now() + lasts;
        match self.server.watch(self.kind, &from, lasts.as_secs() as u32).await {
            Ok(events) => {
                self.mend().await?;
                // The way to the server stands: whoever waits for that need not wait for a bookmark.
                self.tell(News::Reached(self.kind, from.clone())).await?;
                self.hear(events, from, end).await
            }
            // 504: some servers say that they do not know that version yet.
            Err(fault) if matches!(fault.code(), Some(410 | 504)) => Ok(End::broke(Next::Relist)),
            Err(fault) => Err(fault),
        }
    }

    async fn hear(&mut self, mut events: Events, mut reached: String, end: Instant) -> Result<End, Fault> {
        loop {
            // What is asked for again after a fault goes on from here.
            self.next = Next::Resume(reached.clone());
            let event = timeout(SILENCE, events.next()).await.map_err(|_| Fault::Silent);
            let mut event = match event.and_then(|event| event) {
                Ok(Some(event)) => event,
                // Whole seconds are what it was asked to last.
                Ok(None) if Instant::now() + Duration::from_secs(1) >= end => {
                    return Ok(End { next: Next::Resume(reached), by_the_clock: true });
                }
                // An end like any other: whether anybody is there, the next watch shows.
                Ok(None) | Err(Fault::Broken(_)) => return Ok(End::broke(Next::Resume(reached))),
                Err(fault) => {
                    // Not even bookmarks, or what nobody understands: who knows what else was not said.
                    self.tell(News::Doubted(self.kind)).await?;
                    self.next = Next::Relist;
                    return Err(fault);
                }
            };
            let object = event.get_mut("object").map(Value::take).unwrap_or_default();
            let what = event.get("type").and_then(Value::as_str).unwrap_or_default();
            if what == "ERROR" {
                return refused(&object).map(End::broke);
            }
            let heard = version(&object).ok_or(Fault::Nonsense("an event without a version"))?;
            if went_back(&reached, &heard) {
                return Ok(End::broke(Next::Relist));
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
    Err(Fault::said(u16::try_from(code).unwrap_or(500), said.to_owned()))
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
