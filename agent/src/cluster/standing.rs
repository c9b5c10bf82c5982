//! A cluster as it stands, in whichever registry: read whole, and written again only if nobody changed it meanwhile.

use std::fmt;
use std::path::Path;

use etcd_client::Client;
use warren_overlay::mesh::{Cluster, Enforcement, Snapshot};

use super::coverage::Nodes;
use super::fault::Fault;
use super::{Access, access};
use crate::config::{Config, Etcd, Kubernetes};
use crate::registry::etcd::{self, Keys};
#[cfg(feature = "kubernetes")]
use crate::registry::kubernetes::Administration;

/// What stands there.
pub(super) struct Standing {
    pub(super) cluster: Cluster,
    /// Everything that was told to the agents.
    pub(super) snapshot: Snapshot,
    /// The nodes of the Kubernetes cluster.
    pub(super) nodes: Nodes,
    pub(super) place: Place,
}

/// Where it stands, and when it was seen.
pub(super) enum Place {
    Etcd {
        client: Box<Client>,
        etcd: Box<Etcd>,
        seen: i64,
    },
    #[cfg(feature = "kubernetes")]
    Kubernetes {
        server: Administration,
        seen: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd { etcd, .. } => write!(f, "cluster {:?} in etcd at {}", etcd.cluster, etcd.endpoints.join(", ")),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes { server, .. } => write!(f, "the WarrenCluster in the API server at {}", server.url()),
        }
    }
}

impl Standing {
    /// In etcd where --endpoints says so, in the API server where --kubeconfig does; else where the configuration says.
    pub(super) async fn read(
        kubeconfig: Option<&Path>,
        access: Access,
        config: impl FnOnce() -> Result<Config, String>,
    ) -> Result<Self, String> {
        if !access.endpoints.is_empty() {
            return in_etcd(access::resolve(access, config)?, kubeconfig).await;
        }
        if let Some(path) = kubeconfig {
            return in_api_server(&administrator(path)).await;
        }
        let config = config().map_err(|error| format!("{error}; or give --endpoints URL, or --kubeconfig FILE"))?;
        match &config.kubernetes {
            Some(kubernetes) if config.etcd.is_none() => in_api_server(kubernetes).await,
            _ => in_etcd(access::resolve(access, || Ok(config))?, None).await,
        }
    }

    /// Writes the cluster with this enforcement; false when somebody else changed it since it was read.
    pub(super) async fn write(&mut self, enforcement: Enforcement) -> Result<bool, String> {
        match &mut self.place {
            Place::Etcd { client, etcd, seen } => {
                let wanted = Cluster { enforcement, ..self.cluster.clone() };
                let written = etcd::put_cluster(client, &Keys::new(&etcd.cluster), &wanted, *seen).await;
                written.map_err(Fault::of("the cluster was not changed")).map_err(|fault| fault.tell(&etcd.endpoints))
            }
            #[cfg(feature = "kubernetes")]
            Place::Kubernetes { server, seen } => server.enforce(enforcement, seen).await,
        }
    }
}

fn administrator(path: &Path) -> Kubernetes {
    Kubernetes { kubeconfig: Some(path.to_owned()), ..Kubernetes::default() }
}

async fn in_etcd(etcd: Etcd, kubeconfig: Option<&Path>) -> Result<Standing, String> {
    let nodes = match kubeconfig {
        Some(path) => nodes(&administrator(path)).await?,
        None => Nodes::new(),
    };
    let mut client = etcd::connect(&etcd).await?;
    let keys = Keys::new(&etcd.cluster);
    let tell = |fault: Fault| fault.tell(&etcd.endpoints);
    let found = super::cluster(&mut client, &keys).await.map_err(tell)?;
    let (cluster, seen) = found.ok_or("the cluster is not set up: run `warren cluster init` first")?;
    let listed = etcd::list(&mut client, &keys).await.map_err(Fault::of("the cluster cannot be read")).map_err(tell)?;
    let (snapshot, _) = listed.snapshot(&keys);
    Ok(Standing {
        cluster,
        snapshot,
        nodes,
        place: Place::Etcd { client: Box::new(client), etcd: Box::new(etcd), seen },
    })
}

#[cfg(feature = "kubernetes")]
async fn nodes(config: &Kubernetes) -> Result<Nodes, String> {
    Administration::open(config).await?.nodes().await
}

#[cfg(feature = "kubernetes")]
async fn in_api_server(config: &Kubernetes) -> Result<Standing, String> {
    let server = Administration::open(config).await?;
    let nodes = server.nodes().await?;
    let (cluster, seen, snapshot) = server.cluster().await?;
    Ok(Standing { cluster, snapshot, nodes, place: Place::Kubernetes { server, seen } })
}

/// What a program says that was built without the registry.
#[cfg(not(feature = "kubernetes"))]
const WITHOUT: &str = "this warren was built without the feature `kubernetes`";

#[cfg(not(feature = "kubernetes"))]
async fn nodes(_: &Kubernetes) -> Result<Nodes, String> {
    Err(WITHOUT.to_owned())
}

#[cfg(not(feature = "kubernetes"))]
async fn in_api_server(_: &Kubernetes) -> Result<Standing, String> {
    Err(WITHOUT.to_owned())
}
