//! A connection to the API server: from what Kubernetes gives a Pod, or from a kubeconfig. Files are read anew for each
//! connection, so that renewed certificates are taken up; tokens are renewed by the client itself. Never runs a program, and
//! never repeats what stands in a kubeconfig.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::Fault;
use crate::config::Kubernetes;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a watch may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(180);

/// Connects: nothing is sent before the first request.
pub(super) async fn connect(config: &Kubernetes) -> Result<Client, Fault> {
    let mut found = find(config).await?;
    if let Some(server) = &config.server {
        found.cluster_url = server.parse().map_err(|_| Fault::Local("kubernetes.server is no URL".to_owned()))?;
    }
    check(&found)?;
    // Whoever waits here knows no better when to try again than the registry, which says so meanwhile.
    found.default_retry = false;
    found.connect_timeout = Some(CONNECT_TIMEOUT);
    found.read_timeout = Some(READ_TIMEOUT);
    found.write_timeout = Some(CONNECT_TIMEOUT);
    Ok(Client::try_from(found)?)
}

/// Where the API server is, as a URL; `None` where nobody says.
pub async fn server(config: &Kubernetes) -> Option<String> {
    match &config.server {
        Some(server) => Some(server.clone()),
        None => Some(find(config).await.ok()?.cluster_url.to_string()),
    }
}

/// Whoever is on the way could read the token and be the API server.
fn check(found: &Config) -> Result<(), Fault> {
    if found.cluster_url.scheme_str() != Some("https") {
        return Err(Fault::Local(format!(
            "{} is no URL as \"https://192.0.2.1:6443\": tokens travel by TLS alone",
            found.cluster_url
        )));
    }
    if found.accept_invalid_certs {
        return Err(Fault::Local(
            "the kubeconfig says insecure-skip-tls-verify: anybody could be the API server; name its authority instead \
             (certificate-authority)"
                .to_owned(),
        ));
    }
    // A program of root's own that waits and prints as it likes, in the midst of the control plane.
    if found.auth_info.exec.is_some() || found.auth_info.auth_provider.is_some() {
        return Err(Fault::Local(
            "the kubeconfig has a program fetch its credentials (exec, auth-provider), which the agent never runs: give it \
             a client certificate (client-certificate, client-key) or a file with a token (tokenFile)"
                .to_owned(),
        ));
    }
    Ok(())
}

/// As Kubernetes or the kubeconfig says it.
async fn find(config: &Kubernetes) -> Result<Config, Fault> {
    let found = read(config).await?;
    // The URL is shown to people and stays in memory, unlike all else that is in there.
    if found.cluster_url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Fault::Local(
            "no user or password in the API server's URL: give the kubeconfig a client certificate or a token"
                .to_owned(),
        ));
    }
    Ok(found)
}

async fn read(config: &Kubernetes) -> Result<Config, Fault> {
    let Some(path) = &config.kubeconfig else {
        return Config::incluster_env().map_err(|error| {
            Fault::Local(format!(
                "this is no Pod of Kubernetes ({error}): set kubernetes.kubeconfig, or mount the service account's token"
            ))
        });
    };
    let failed = |error: KubeconfigError| {
        Fault::Local(format!("the kubeconfig {} cannot be used: {}", path.display(), without_secrets(&error)))
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)
}

/// Errors of a parser show the lines around, and the one with the token may be among them.
fn without_secrets(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => match error.location() {
            Some(at) => format!("it is no kubeconfig in YAML: line {}, column {}", at.line(), at.column()),
            None => "it is no kubeconfig in YAML".to_owned(),
        },
        KubeconfigError::ParseClusterUrl(_) => "its server is no URL".to_owned(),
        KubeconfigError::ParseProxyUrl(_) => "its proxy-url is no URL".to_owned(),
        KubeconfigError::ParseCertificates(_) => "a certificate in it is none in PEM".to_owned(),
        error => error.to_string(),
    }
}
