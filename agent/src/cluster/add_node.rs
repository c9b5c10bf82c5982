//! `warren cluster add-node NAME`: CIDRs, a user where the store has users, and one file to carry to the host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use etcd_client::Client;
use ipnet::IpNet;
use warren_overlay::record::NodeName;

use super::{access, cluster, etcd_table, explain, list, toml_string, wants, write_secret};
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

pub(super) async fn run(client: &mut Client, keys: &Keys, etcd: &Etcd, args: Args) -> Result<(), String> {
    let cluster = cluster(client, keys).await?;
    let cluster = cluster.ok_or("the cluster is not set up: run `warren cluster init` first")?;
    let inside = |cidr: &IpNet| cluster.networks.iter().any(|network| network.contains(cidr));
    if let Some(outside) = args.cidrs.iter().find(|cidr| !inside(cidr)) {
        return Err(format!(
            "--cidr {outside} is not inside the cluster network; --address grants a node's own address"
        ));
    }
    let addresses: Vec<_> = args.addresses.iter().copied().map(IpNet::from).collect();
    if let Some(pod) = addresses.iter().find(|address| inside(address)) {
        return Err(format!("--address {} is inside the cluster network: give it with --cidr {pod}", pod.addr()));
    }
    for address in addresses {
        let none = BTreeMap::new();
        let given = etcd::allocate(client, keys, &args.name, &Want::This(address), &cluster.networks, &none).await;
        given.map_err(|error| explain(&error))?;
    }
    let mut cidrs = Vec::new();
    if !args.no_cidr {
        for want in wants(&args.cidrs, &cluster.networks, (args.cidr_length, args.cidr_length_v6)) {
            let given = etcd::allocate(client, keys, &args.name, &want, &cluster.networks, &BTreeMap::new()).await;
            cidrs.push(given.map_err(|error| explain(&error))?);
        }
    }
    let password = match etcd.username {
        Some(_) if access::is_enabled(client).await => Some(access::add_user(client, keys, &args.name).await?),
        _ => None,
    };
    let text = config(etcd, &args.name, &cidrs, password.as_deref());
    match &args.output {
        Some(path) => {
            write_secret(path, &text)?;
            let path = path.display();
            say(format_args!("wrote {path}; carry it to {} as /etc/warren/warren.toml (mode 0600)", args.name));
        }
        None => say(text.trim_end()),
    }
    Ok(())
}

/// The whole file, with what must be carried along as comments.
fn config(etcd: &Etcd, name: &NodeName, cidrs: &[IpNet], password: Option<&str>) -> String {
    let mut text = format!("# Warren on {name}. Put this at /etc/warren/warren.toml, mode 0600, then: warren up\n");
    for (file, there) in [
        (&etcd.ca_file, "etcd-ca.pem: the authority of etcd's certificate"),
        (&etcd.cert_file, "etcd-client.pem, etcd-client-key.pem: a client certificate of this host's own"),
    ] {
        if file.is_some() {
            text.push_str(&format!("# Needed beside it: {there}\n"));
        }
    }
    text.push_str(&format!("\n[node]\nname = {}\ncidrs = {}\n\n", toml_string(name.as_str()), list(cidrs)));
    let user = access::user_of(name);
    text.push_str(&etcd_table(etcd, password.map(|_| user.as_str())));
    if let Some(password) = password {
        text.push_str(&format!("password = {}\n", toml_string(password)));
    }
    text
}
