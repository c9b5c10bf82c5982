//! `warren cluster enforce strict|permissive`: changes the enforcement and nothing else. To `strict` only when nobody would
//! be cut off, as far as can be seen from here; back to `permissive` always.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use warren_overlay::mesh::{Enforcement, Snapshot};

use super::Access;
use super::coverage::{Coverage, Facts, Nodes, coverage};
use super::standing::Standing;
use crate::admin::{self, Answer, ClientError, Question};
use crate::cli::say;
use crate::config::Config;
use crate::status::Status;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// `strict`: tunnel or nothing; refused while a node would be cut off. `permissive`: nodes without an agent are reached
    /// in clear, and counted; pairs of nodes that had a tunnel stay encrypted.
    enforcement: Wanted,
    /// As an administrator of this Kubernetes cluster: its Nodes must have an agent too. Without --endpoints, its API server
    /// is the registry, and the WarrenCluster there is changed.
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Go on although nodes would be cut off. For these it is an outage: nobody reaches their Pods until their agents run.
    /// It is never a leak: `strict` drops what it used to send in clear.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    Strict,
    Permissive,
}

impl Args {
    fn kubeconfig(&self) -> Option<&Path> {
        #[cfg(feature = "kubernetes")]
        return self.kubeconfig.as_deref();
        #[cfg(not(feature = "kubernetes"))]
        return None;
    }
}

/// Changes it. The configuration is asked only for what the flags leave open; in `run_dir` is the socket of this host's agent.
pub(super) async fn run(
    args: &Args,
    access: Access,
    config: impl FnOnce() -> Result<Config, String>,
    run_dir: PathBuf,
) -> Result<(), String> {
    let mut standing = Standing::read(args.kubeconfig(), access, config).await?;
    let (wanted, done) = match args.enforcement {
        Wanted::Strict if standing.cluster.enforcement != Enforcement::Strict => {
            let agent = if args.force { ask(&run_dir).unwrap_or_default() } else { ask(&run_dir)? };
            let facts = Facts { snapshot: &standing.snapshot, nodes: &standing.nodes, agent: agent.as_ref() };
            (Enforcement::Strict, strict(&coverage(&facts), args.force)? + BEGINS)
        }
        Wanted::Permissive if standing.cluster.enforcement != Enforcement::Permissive => {
            (Enforcement::Permissive, PERMISSIVE.to_owned())
        }
        _ => {
            say(format_args!("{} is {} already", standing.place, name(standing.cluster.enforcement)));
            return Ok(());
        }
    };
    if !standing.write(wanted).await? {
        return Err("somebody else changed the cluster at this moment; run this again".to_owned());
    }
    say(format_args!("{} is {}: its agents follow within seconds\n{done}", standing.place, name(wanted)));
    Ok(())
}

/// A file that somebody wrote during the roll-out says how it was then.
const BEGINS: &str = "\na node that starts for the first time goes by overlay.enforcement of its own configuration until the registry \
                      has answered: have it say strict there, too";

/// What is in force after that.
const PERMISSIVE: &str =
    "nodes that never had a tunnel with each other now talk in clear, and that is counted; all others stay encrypted";

/// As the configuration has it.
pub(super) fn name(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Strict => "strict",
        Enforcement::Permissive => "permissive",
    }
}

/// What the agent on this host says, if there is one. One that is there and does not answer may know who would be cut off.
fn ask(run_dir: &Path) -> Result<Option<Status>, String> {
    match admin::ask(run_dir, &Question::Status {}) {
        Ok(Answer::Status(status)) => Ok(Some(*status)),
        Err(ClientError::Unreachable { cause, .. })
            if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            Ok(None)
        }
        Ok(_) => Err(unheard("it answered something else")),
        Err(error) => Err(unheard(&error.to_string())),
    }
}

fn unheard(why: &str) -> String {
    format!("the agent on this host was not heard, so nothing was changed: {why}; --force goes on without its word")
}

/// What to say when it is done; or why it is not.
fn strict(found: &Coverage, force: bool) -> Result<String, String> {
    match (found.is_full(), force) {
        (true, _) => Ok(seen(found)),
        (false, true) => Ok(format!("cut off until their agents run:\n{}", found.lines())),
        (false, false) => Err(refusal(found)),
    }
}

fn seen(found: &Coverage) -> String {
    let agent = match &found.agent {
        Some(agent) => format!("all of them, and {agent} has had a tunnel with each of its peers"),
        None => "all of them; no agent of this cluster answers on this host, so nothing is known of tunnels".to_owned(),
    };
    format!(
        "nodes that ought to have an agent: {}; an accepted record: {agent}. Pairs of two other nodes are not seen from here: \
         warren_guard_passed_packets_total grew on any node that sent in clear",
        found.nodes
    )
}

fn refusal(found: &Coverage) -> String {
    format!(
        "strict would cut off {}, so nothing was changed:\n{}\nstart the agent there, or see in `warren status` there why \
         nobody accepts it; take back what nodes left that are gone (`warren cluster release NAME`, `kubectl delete node NAME`); \
         --force of `warren cluster enforce` goes on nevertheless",
        if found.lacking() == 1 { "a node".to_owned() } else { format!("{} nodes", found.lacking()) },
        found.lines()
    )
}

/// Refuses as `enforce strict` does, from what the registry alone knows.
pub(super) fn check(snapshot: &Snapshot) -> Result<(), String> {
    let found = coverage(&Facts { snapshot, nodes: &Nodes::new(), agent: None });
    if found.is_full() { Ok(()) } else { Err(refusal(&found)) }
}
