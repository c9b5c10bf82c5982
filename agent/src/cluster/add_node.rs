//! `warren cluster add-node NAME`: CIDRs, a user where the store has users, and one file to carry to the host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use etcd_client::Client;
use ipnet::IpNet;
use warren_overlay::mesh::Cluster;
use warren_overlay::record::NodeName;

use super::access::{self, Login};
use super::fault::Fault;
use super::output::Output;
use super::{cluster, enforce, etcd_table, list, toml_string, wants};
use crate::cli::say;
use crate::config::Etcd;
use crate::registry::etcd::{self, Keys, Want};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The node's name: a-z, 0-9, '-' and '.'.
    name: NodeName,
    /// CIDR for its Pods; may be given several times. Without it a free one is taken for each family.
    #[arg(long = "cidr", value_name = "CIDR")]
    cidrs: Vec<IpNet>,
    /// Grant the node this address of its own; nobody else may claim it then. Needed only for a node that is the gateway
    /// of others, or on which etcd runs. May be given several times.
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// Length of a CIDR that is chosen, IPv4.
    #[arg(long, default_value_t = 24)]
    cidr_length: u8,
    /// Length of a CIDR that is chosen, IPv6.
    #[arg(long, default_value_t = 64)]
    cidr_length_v6: u8,
    /// A host without Pods: no CIDR.
    #[arg(long, conflicts_with = "cidrs")]
    no_cidr: bool,
    /// Write the configuration file here (new, mode 0600) instead of printing it.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(client: &mut Client, keys: &Keys, etcd: &Etcd, args: Args) -> Result<(), Fault> {
    // First: the user's password is said only once, and a file in the way must not cost a running node its password.
    let output = args.output.as_deref().map(Output::create).transpose()?;
    let (name, path) = (args.name.clone(), args.output.clone());
    let (cluster, cidrs) = allocate(client, keys, args).await?;
    let login = access::log_in(client, keys, etcd, &name).await?;
    let text = config(etcd, &name, &cluster, &cidrs, &login);
    let (Some(output), Some(path)) = (output, path) else {
        say(text.trim_end());
        return Ok(());
    };
    output.write(&text)?;
    say(format_args!("wrote {}; carry it to {name} as /etc/warren/warren.toml (mode 0600)", path.display()));
    Ok(())
}

/// What the node gets: its CIDRs, in this cluster.
async fn allocate(client: &mut Client, keys: &Keys, args: Args) -> Result<(Cluster, Vec<IpNet>), Fault> {
    let cluster = cluster(client, keys).await?;
    let (cluster, _) =
        cluster.ok_or_else(|| "the cluster is not set up: run `warren cluster init` first".to_owned())?;
    let failed = || Fault::of_allocation("nothing was allocated");
    let inside = |cidr: &IpNet| cluster.networks.iter().any(|network| network.contains(cidr));
    if let Some(outside) = args.cidrs.iter().find(|cidr| !inside(cidr)) {
        let why = format!("--cidr {outside} is not inside the cluster network; --address grants a node's own address");
        return Err(why.into());
    }
    let addresses: Vec<_> = args.addresses.iter().copied().map(IpNet::from).collect();
    if let Some(pod) = addresses.iter().find(|address| inside(address)) {
        let why = format!("--address {} is inside the cluster network: give it with --cidr {pod}", pod.addr());
        return Err(why.into());
    }
    for address in addresses {
        let none = BTreeMap::new();
        let given = etcd::allocate(client, keys, &args.name, &Want::This(address), &cluster.networks, &none).await;
        given.map_err(failed())?;
    }
    let mut cidrs = Vec::new();
    if !args.no_cidr {
        for want in wants(&args.cidrs, &cluster.networks, (args.cidr_length, args.cidr_length_v6)) {
            let given = etcd::allocate(client, keys, &args.name, &want, &cluster.networks, &BTreeMap::new()).await;
            cidrs.push(given.map_err(failed())?);
        }
    }
    Ok((cluster, cidrs))
}

/// The whole file, with what must be carried along as comments.
fn config(etcd: &Etcd, name: &NodeName, cluster: &Cluster, cidrs: &[IpNet], login: &Login) -> String {
    let user = access::user_of(name);
    let mut text = format!("# Warren on {name}. Put this at /etc/warren/warren.toml, mode 0600, then: warren up\n");
    if etcd.ca_file.is_some() {
        text.push_str("# Needed beside it: etcd-ca.pem: the authority of etcd's certificate\n");
    }
    if etcd.cert_file.is_some() {
        text.push_str(
            "# Needed beside it: etcd-client.pem, etcd-client-key.pem: a client certificate of this host's own",
        );
        text.push_str(&if *login == Login::Certificate { format!(", common name {user}\n") } else { "\n".to_owned() });
    }
    text.push_str(&format!("\n[node]\nname = {}\ncidrs = {}\n\n", toml_string(name.as_str()), list(cidrs)));
    text.push_str(&overlay_table(cluster));
    let password = if let Login::Password(password) = login { Some(password.as_str()) } else { None };
    text.push_str(&etcd_table(etcd, password.map(|_| user.as_str())));
    if let Some(password) = password {
        text.push_str(&format!("password = {}\n", toml_string(password)));
    }
    text
}

/// What the node believes until it has read the cluster itself: by default that is strict, which cuts off in a roll-out.
fn overlay_table(cluster: &Cluster) -> String {
    format!(
        "# As the cluster was when this was written; it holds until the node has heard of the cluster from etcd.\n\
         [overlay]\nnetworks = {}\nenforcement = {}\n\n",
        list(&cluster.networks),
        toml_string(enforce::name(cluster.enforcement)),
    )
}
