//! `warren cluster …`: what an administrator does in the store. Set the cluster up, add nodes, take back what they left,
//! make a roll-out strict.

mod access;
mod add_node;
mod coverage;
mod enforce;
mod fault;
mod output;
mod standing;

use std::collections::BTreeSet;
use std::path::PathBuf;

use etcd_client::Client;
use ipnet::IpNet;
use warren_overlay::mesh::{Cluster, Enforcement};
use warren_overlay::record::NodeName;

use crate::cli::say;
use crate::config::{Config, Etcd};
use crate::registry::etcd::{self, Keys, Want};
use fault::Fault;

/// How to reach the store; what is left out comes from the configuration file, if there is one.
#[derive(Clone, Debug, clap::Args)]
pub struct Access {
    /// URLs of the etcd members (`etcd.endpoints`).
    #[arg(long, value_name = "URL", value_delimiter = ',', global = true)]
    endpoints: Vec<String>,
    /// Name of the cluster in the store (`etcd.cluster`) [default: default].
    #[arg(long, global = true)]
    cluster: Option<String>,
    /// PEM file of the authority that signed etcd's certificate.
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
    /// PEM file of the client certificate.
    #[arg(long, value_name = "FILE", global = true, requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, value_name = "FILE", global = true, requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// etcd user.
    #[arg(long, global = true, requires = "password_file")]
    username: Option<String>,
    /// File with the user's password.
    #[arg(long, value_name = "FILE", global = true, requires = "username")]
    password_file: Option<PathBuf>,
}

/// What an administrator does.
#[derive(Clone, Debug, clap::Args)]
pub struct Command {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Set the cluster up. Harmless when it is already set up the same way.
    Init {
        /// Prefix that belongs to the overlay; give one for each network and family.
        #[arg(long = "network", value_name = "CIDR", required = true)]
        networks: Vec<IpNet>,
        /// Begin as a roll-out: nodes without an agent are still reached in clear, and counted.
        #[arg(long)]
        permissive: bool,
        /// Change a cluster that is already set up.
        #[arg(long)]
        change: bool,
        /// Give the cluster this identity again after its store was lost; agents name it in `warren status`.
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
    /// Change the enforcement alone: `strict` as soon as every node has an agent, as far as the registry and the agent on
    /// this host know, or back to `permissive`.
    Enforce(enforce::Args),
    /// Allocate a node's CIDRs, make its etcd user where the store has authentication, and print its configuration file.
    AddNode(Box<add_node::Args>),
    /// Take back a node's CIDRs, its record, and its etcd user, for good.
    Release {
        /// The node.
        name: NodeName,
        /// Prefix of its that the store no longer knows of, but agents still remember; may be given several times.
        #[arg(long = "cidr", value_name = "CIDR")]
        forgotten: Vec<IpNet>,
    },
}

/// Runs a verb. `config` is asked only for what the flags leave open, `run_dir` for where this host's agent answers.
///
/// # Errors
/// What is wrong and what to do.
pub fn run(
    command: Command,
    config: impl FnOnce() -> Result<Config, String>,
    run_dir: impl FnOnce() -> PathBuf,
) -> Result<u8, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    if let Verb::Enforce(args) = &command.verb {
        return runtime.block_on(enforce::run(args, command.access, config, run_dir())).map(|()| 0);
    }
    let etcd = access::resolve(command.access, config)?;
    let done = runtime.block_on(async {
        let mut client = etcd::connect(&etcd).await?;
        let keys = Keys::new(&etcd.cluster);
        match command.verb {
            Verb::Init { networks, permissive, change, id } => {
                let wanted = cluster_of(networks, permissive, id)?;
                init(&mut client, &keys, wanted, change).await
            }
            // It need not be in etcd, and was done above.
            Verb::Enforce(_) => Ok(()),
            Verb::AddNode(args) => add_node::run(&mut client, &keys, &etcd, *args).await,
            Verb::Release { name, forgotten } => release(&mut client, &keys, &name, &forgotten).await,
        }
    });
    done.map_err(|fault: Fault| fault.tell(&etcd.endpoints))?;
    Ok(0)
}

/// The cluster as the flags say it; with an empty identity where they say none.
fn cluster_of(networks: Vec<IpNet>, permissive: bool, id: Option<String>) -> Result<Cluster, String> {
    if let Some(bad) = networks.iter().find(|network| network.addr() != network.network()) {
        return Err(format!("--network {bad} has host bits set; did you mean {}?", bad.trunc()));
    }
    let id = id.unwrap_or_default();
    if id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("--id: at most 64 hexadecimal digits, as `warren status` names it".to_owned());
    }
    let enforcement = if permissive { Enforcement::Permissive } else { Enforcement::Strict };
    Ok(Cluster { id, networks: networks.into_iter().collect(), enforcement })
}

async fn init(client: &mut Client, keys: &Keys, mut wanted: Cluster, change: bool) -> Result<(), Fault> {
    let failed = || Fault::of("the cluster was not set up");
    let (existing, seen) = cluster(client, keys).await?.unzip();
    if wanted.id.is_empty() {
        wanted.id = existing.as_ref().map_or_else(|| access::random_word(16), |existing| existing.id.clone());
    }
    if existing.as_ref() == Some(&wanted) {
        say("the cluster is already set up like this");
        return Ok(());
    }
    if let Some(existing) = existing {
        if !change {
            return Err("the cluster is already set up in another way; add --change to change it".to_owned().into());
        }
        if (existing.enforcement, wanted.enforcement) == (Enforcement::Permissive, Enforcement::Strict) {
            enforce::check(&etcd::list(client, keys).await.map_err(failed())?.snapshot(keys).0)?;
        }
    }
    if !etcd::put_cluster(client, keys, &wanted, seen.unwrap_or(0)).await.map_err(failed())? {
        return Err("somebody else changed the cluster at this moment; run this again to compare".to_owned().into());
    }
    say("the cluster is set up; add nodes with `warren cluster add-node NAME`");
    Ok(())
}

/// The cluster, and at which revision it was written.
async fn cluster(client: &mut Client, keys: &Keys) -> Result<Option<(Cluster, i64)>, Fault> {
    let found = client.get(keys.cluster(), None).await.map_err(Fault::of("the cluster cannot be read"))?;
    let Some(value) = found.kvs().first() else { return Ok(None) };
    let damaged = |error| Fault::Told(format!("{} is damaged: {error}", keys.cluster()));
    let cluster = serde_json::from_slice(value.value()).map_err(damaged)?;
    Ok(Some((cluster, value.mod_revision())))
}

async fn release(client: &mut Client, keys: &Keys, name: &NodeName, forgotten: &[IpNet]) -> Result<(), Fault> {
    let failed = Fault::of_allocation(format!("{name} was not released"));
    let released = etcd::release(client, keys, name, forgotten).await.map_err(failed)?;
    access::remove_user(client, name).await?;
    match released.as_slice() {
        [] => say(format_args!("{name} had no CIDRs; whatever else it had is gone")),
        cidrs => say(format_args!("released {}", cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
    }
    Ok(())
}

/// What `add-node` allocates.
fn wants(cidrs: &[IpNet], networks: &BTreeSet<IpNet>, length: (u8, u8)) -> Vec<Want> {
    if !cidrs.is_empty() {
        return cidrs.iter().map(|cidr| Want::This(*cidr)).collect();
    }
    let families: BTreeSet<bool> = networks.iter().map(|network| network.addr().is_ipv6()).collect();
    families.into_iter().map(|v6| Want::Any { v6, length: if v6 { length.1 } else { length.0 } }).collect()
}

fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let quoted: Vec<_> = items.into_iter().map(|item| toml_string(&item.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// The `[etcd]` table for a node's configuration file.
fn etcd_table(etcd: &Etcd, username: Option<&str>) -> String {
    let mut text = format!("[etcd]\nendpoints = {}\ncluster = {}\n", list(&etcd.endpoints), toml_string(&etcd.cluster));
    if etcd.ca_file.is_some() {
        text.push_str("ca_file = \"/etc/warren/etcd-ca.pem\"\n");
    }
    if etcd.cert_file.is_some() {
        text.push_str("cert_file = \"/etc/warren/etcd-client.pem\"\nkey_file = \"/etc/warren/etcd-client-key.pem\"\n");
    }
    if let Some(username) = username {
        text.push_str(&format!("username = {}\n", toml_string(username)));
    }
    text
}
