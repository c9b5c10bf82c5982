//! This node's prefixes as objects of the API server say them: its Node, Calico's block affinities, its CiliumNode. They are
//! followed like the registry's own objects, whatever the registry is. Writes nothing, and never guesses.
//!
//! When the server goes away or says nonsense, that is told; what was said before stays in force, for the control plane.

mod calico;
pub(super) mod cilium;

use std::collections::BTreeSet;

use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use warren_overlay::record::{CIDRS_MAX, NodeName};

use super::follow::{News, OBJECTS, follow};
use super::object::Kind;
use super::server::Server;
use super::store::Store;
use super::{BACKOFF, CALM, DEBOUNCE, Fault, HERD, brief, connect, jitter};
use crate::cidrs::{Found, Given, Source};
use crate::config::Kubernetes;
use crate::registry::Event;
use calico::Said;

/// What the task keeps between connections.
struct Asker {
    config: Kubernetes,
    node: NodeName,
    source: Source,
    kind: Kind,
    store: Store,
    /// Which cluster answered first, this time or before the agent started.
    cluster: Option<String>,
    /// What the node had, and nobody said to be another's since.
    had: BTreeSet<IpNet>,
    /// What the node had, and was taken from it by name: the last of it.
    lost: BTreeSet<IpNet>,
    /// Why nothing can be heard for now.
    ailing: Option<String>,
    said: Option<Result<Found, String>>,
    events: mpsc::Sender<Event>,
}

/// Follows until the control plane is gone. `cluster` is the one that answered before the agent started, `had` what the node has
/// already.
pub async fn run(
    config: Kubernetes,
    node: NodeName,
    source: Source,
    cluster: Option<String>,
    had: BTreeSet<IpNet>,
    events: mpsc::Sender<Event>,
) {
    let kind = match source {
        Source::Calico => Kind::Affinity,
        Source::Cilium => Kind::CiliumNode,
        _ => Kind::Node,
    };
    let (store, lost, ailing, said) = (Store::default(), BTreeSet::new(), None, None);
    let mut asker = Asker { config, node, source, kind, store, cluster, had, lost, ailing, said, events };
    let mut pause = BACKOFF.0;
    loop {
        let began = Instant::now();
        let fault = asker.connection().await;
        asker.ailing = None;
        if asker.say(Err(explain(source, &fault))).await.is_err() {
            return;
        }
        if began.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        sleep(if pause == BACKOFF.0 { jitter(HERD) } else { pause + jitter(pause) }).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

impl Asker {
    /// One connection, from its making to why it ended.
    async fn connection(&mut self) -> Fault {
        let (server, cluster) = match self.open().await {
            Ok(opened) => opened,
            Err(fault) => return fault,
        };
        let (told, mut news) = mpsc::channel(64);
        let following = follow(server, cluster, self.kind, self.store.start(self.kind), told);
        tokio::pin!(following);
        let mut told_at = None;
        let mut due = None;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Err(fault) = self.tell().await {
                        return fault;
                    }
                    (told_at, due) = (Some(Instant::now()), None);
                    continue;
                }
                Some(heard) = news.recv() => self.take(heard),
                fault = &mut following => return fault,
            }
            // The affinities of all nodes are looked through each time.
            let next = Instant::now() + DEBOUNCE;
            due = due.or_else(|| Some(told_at.map_or(next, |at: Instant| next.max(at + CALM))));
        }
    }

    /// Connects, and makes sure that this is the cluster that it was.
    async fn open(&mut self) -> Result<(Server, String), Fault> {
        let server = Server::new(connect::connect(&self.config).await?, self.node.clone());
        let id = server.cluster_id().await?;
        if let Some(before) = self.cluster.as_ref().filter(|before| **before != id) {
            return Err(Fault::Local(format!(
                "this API server is of another cluster ({id} instead of {before}): check kubernetes.server and \
                 kubernetes.kubeconfig; if this host changed clusters, stop the agent and remove mesh.json from node.state_dir, \
                 which forgets all it knows of the old one"
            )));
        }
        self.cluster = Some(id.clone());
        Ok((server, id))
    }

    fn take(&mut self, heard: News) {
        match &heard {
            // Said for a moment only, before the object is gone.
            News::Changed(Kind::Affinity, value) | News::Gone(Kind::Affinity, value) => {
                let gone = calico::given_back(value, &self.node).and_then(|block| self.had.take(&block));
                self.lost.extend(gone);
            }
            News::Ailing(_, why) => self.ailing = Some(format!("{why}; trying again")),
            News::Mended(_) => self.ailing = None,
            _ => {}
        }
        self.store.apply(heard);
    }

    /// Tells what is known, once it is; or that nothing is heard for now.
    async fn tell(&mut self) -> Result<(), Fault> {
        if let Some(why) = self.ailing.clone() {
            return self.say(Err(why)).await;
        }
        if self.store.count(self.kind).is_none() {
            return Ok(());
        }
        let said = match self.source {
            Source::Calico => self.of_calico(),
            Source::Cilium => {
                let given = cilium::prefixes(self.store.get(self.kind, self.node.as_str()));
                given.and_then(|cidrs| self.found(Given { cidrs, ..Given::default() }, None))
            }
            _ => self.of_node().and_then(|cidrs| self.found(Given { cidrs, ..Given::default() }, None)),
        };
        self.say(said).await
    }

    /// That nobody names a block any more is no word that it is another's: objects vanish by mistake, and with a backup that
    /// is restored.
    fn of_calico(&mut self) -> Result<Found, String> {
        if self.store.overflown().next().is_some() {
            return Err(format!("Calico has more than {OBJECTS} block affinities: which are this node's is not known"));
        }
        let Said { blocks, lost, mut problems } = calico::said(self.store.all(self.kind), &self.node, &self.had);
        self.had.retain(|had| !lost.contains(had));
        self.had.extend(&blocks);
        self.lose(lost, &blocks);
        let kept = &self.had - &blocks;
        if blocks.is_empty() && !kept.is_empty() {
            problems.push(
                "Calico has no block of this node any more, and no other node has those that were: they stay this node's"
                    .to_owned(),
            );
        }
        let room = CIDRS_MAX.saturating_sub(blocks.len());
        if kept.len() > room {
            problems.push(format!(
                "{} blocks that Calico no longer names stay this node's, and there is room for {room}: those in use here go first",
                kept.len()
            ));
        }
        let given = Given { cidrs: blocks, kept, lost: self.lost.clone(), ..Given::default() };
        self.found(given, (!problems.is_empty()).then(|| brief(&problems)))
    }

    /// Remembers what was lost and not had again since. Where the node has other prefixes these alone say what it gives back;
    /// so no more is remembered than a node can have.
    fn lose(&mut self, lost: BTreeSet<IpNet>, blocks: &BTreeSet<IpNet>) {
        self.lost.extend(lost);
        self.lost.retain(|lost| !blocks.contains(lost));
        while self.lost.len() > CIDRS_MAX {
            self.lost.pop_first();
        }
    }

    fn of_node(&self) -> Result<BTreeSet<IpNet>, String> {
        let node = &self.node;
        if self.store.get(self.kind, node.as_str()).is_none() {
            return Err(format!("there is no Node {node:?}: node.name must be the Node's, see WARREN_NODE_NAME"));
        }
        match self.store.pod_cidrs(node) {
            Some(given) if !given.is_empty() => Ok(given.into_iter().collect()),
            Some(_) => Err(format!(
                "the Node {node:?} has no spec.podCIDRs: this cluster gives none, or not yet; list them in node.cidrs, or use \
                 overlay.mode = \"nodes\" with node.cidrs = []"
            )),
            None => Err(format!("the Node {node:?} has spec.podCIDRs that are no prefixes: list them in node.cidrs")),
        }
    }

    fn found(&self, given: Given, lacking: Option<String>) -> Result<Found, String> {
        let what = match self.source {
            Source::Calico => "the BlockAffinities of",
            Source::Cilium => "the CiliumNode",
            _ => "spec.podCIDRs of the Node",
        };
        let from = format!("{what} {}", self.node);
        let count = given.cidrs.len();
        if count > CIDRS_MAX {
            return Err(format!(
                "{from}: {count} prefixes, and a node can have {CIDRS_MAX}: give out larger ones (Calico's blockSize), or use \
                 overlay.mode = \"nodes\" with node.cidrs = []"
            ));
        }
        Ok(Found { given, from, cluster: self.cluster.clone(), lacking })
    }

    /// Says it, when it is something else than before.
    async fn say(&mut self, said: Result<Found, String>) -> Result<(), Fault> {
        if self.said.as_ref() == Some(&said) {
            return Ok(());
        }
        self.said = Some(said.clone());
        self.events.send(Event::Cidrs(said)).await.map_err(|_| Fault::Left)
    }
}

/// Why nothing is heard, and what to do.
fn explain(source: Source, fault: &Fault) -> String {
    let instead = "list this node's prefixes in node.cidrs, or use overlay.mode = \"nodes\" with node.cidrs = []";
    match (source, fault.code()) {
        (Source::Calico, Some(404)) => format!(
            "this cluster knows no BlockAffinity of crd.projectcalico.org/v1: Calico keeps them in an etcd of its own or as \
             projectcalico.org/v3, or it is not Calico that gives out the prefixes; {instead}"
        ),
        (Source::Cilium, Some(404)) => {
            format!(
                "this cluster knows no CiliumNode of cilium.io/v2: is Cilium its CNI, and installed? Else {instead}"
            )
        }
        (_, Some(403)) => format!(
            "{fault}; what node.cidrs = \"{source}\" needs is in deploy/kubernetes/components/cidrs-{source}, or the chart's \
             cidrs={source}"
        ),
        _ => format!("{fault}; trying again"),
    }
}
