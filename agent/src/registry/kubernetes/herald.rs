//! Writes Events about this node where `kubectl describe node` shows them. By a task of its own, so that nothing here ever keeps
//! the registry waiting. That an Event cannot be written is logged once, and harms nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use warren_overlay::record::NodeName;

use super::events::{Memory, event};
use super::object::Kind;
use super::server::Server;
use super::store::Store;
use super::{Fault, jitter};
use crate::registry::{Concern, Concerns};

/// What all nodes see at once is told within half of this.
const SPREAD: Duration = Duration::from_secs(60);
/// How often the same Event is tried, and how far apart; each time with jitter.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(60);

/// What the registry has found, and how to reach the API server.
#[derive(Clone)]
struct Heard {
    server: Server,
    regarding: ObjectReference,
    concerns: Concerns,
}

/// The registry's end.
pub(super) struct Herald {
    found: Concerns,
    heard: watch::Sender<Option<Heard>>,
    /// Ends with it.
    _task: JoinSet<()>,
}

impl Herald {
    /// `control` is what the control plane finds.
    pub(super) fn start(node: NodeName, control: watch::Receiver<Concerns>) -> Self {
        let (heard, hears) = watch::channel(None);
        let memory = Memory::new(jitter(SPREAD));
        let mut task = JoinSet::new();
        task.spawn(Writer { node, memory, control, heard: hears, complained: false }.run());
        Self { found: Concerns::new(), heard, _task: task }
    }

    /// What the registry found, or that it found nothing, to be told with the rest.
    pub(super) fn note(&mut self, concern: Concern, said: Option<String>) {
        match said {
            Some(said) => self.found.insert(concern, said),
            None => self.found.remove(&concern),
        };
    }

    /// Has it written, in a while.
    pub(super) fn tell(&self, server: &Server, store: &Store, node: &NodeName) {
        let (regarding, concerns) = (regarding(store, node), self.found.clone());
        self.heard.send_if_modified(|heard| {
            let same = |was: &Heard| was.regarding == regarding && was.concerns == concerns;
            let is_news = !heard.as_ref().is_some_and(same);
            *heard = Some(Heard { server: server.clone(), regarding, concerns });
            is_news
        });
    }

    /// There is nowhere to write for now.
    pub(super) fn hush(&self) {
        self.heard.send_replace(None);
    }
}

/// The Node, as the kubelet and node-problem-detector have it: an operator who wonders about a node describes the Node, and
/// it is there when the WarrenNode is refused or cannot be written. A host without one has only its WarrenNode.
fn regarding(store: &Store, node: &NodeName) -> ObjectReference {
    let (version, kind, object) = match store.get(Kind::Node, node.as_str()) {
        Some(object) => ("v1", "Node", Some(object)),
        None => ("warren.dev/v1alpha1", "WarrenNode", store.get(Kind::Record, node.as_str())),
    };
    ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(node.to_string()),
        uid: object.map(|object| object.uid.clone()),
        ..ObjectReference::default()
    }
}

/// The task.
struct Writer {
    node: NodeName,
    memory: Memory,
    control: watch::Receiver<Concerns>,
    heard: watch::Receiver<Option<Heard>>,
    complained: bool,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let heard = self.heard.borrow_and_update().clone();
            let wake = match heard {
                Some(heard) => self.tell(heard).await,
                None => None,
            };
            tokio::select! {
                changed = self.heard.changed() => if changed.is_err() { return },
                Ok(()) = self.control.changed() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Writes what is to be said; when to look again.
    async fn tell(&mut self, Heard { server, regarding, concerns }: Heard) -> Option<Instant> {
        let mut wrong = self.control.borrow_and_update().clone();
        wrong.extend(concerns);
        for said in self.memory.look(&wrong, Instant::now()) {
            self.write(&server, &event(&self.node, regarding.clone(), &said, Timestamp::now())).await;
        }
        self.memory.deadline(Instant::now())
    }

    /// What fails for good (a role, an admission policy) is not tried again.
    async fn write(&mut self, server: &Server, event: &Event) {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                sleep(PAUSE + jitter(PAUSE)).await;
            }
            match server.create_event(event).await {
                Ok(()) => return self.complained = false,
                // An attempt that was not answered had arrived.
                Err(fault) if fault.code() == Some(409) => return,
                Err(fault) => {
                    self.complain(&fault);
                    if !(fault.may_pass() || matches!(fault, Fault::Client(_))) {
                        return;
                    }
                }
            }
        }
    }

    fn complain(&mut self, fault: &Fault) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(%fault, "Events cannot be written; what is wrong stands in `warren status` all the same");
        }
    }
}
