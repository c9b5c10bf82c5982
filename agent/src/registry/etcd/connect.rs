//! A connection to the store: TLS, user, timeouts, and a keepalive that notices a dead way.

use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use super::explain::explain;
use crate::config::Etcd;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request, until the store begins to answer: a watch that is open is not concerned.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 pings, also while idle, and how long their answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Connects. Files are read anew each time, so that renewed certificates and passwords are taken up.
///
/// # Errors
/// What file cannot be read, or what the store says; for people.
pub async fn connect(config: &Etcd) -> Result<Client, String> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_keep_alive(KEEPALIVE.0, KEEPALIVE.1)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if config.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
        options = options.with_tls(tls(config)?);
    }
    if let Some(user) = &config.username {
        let password = match (&config.password, &config.password_file) {
            (Some(password), _) => password.0.clone(),
            (None, Some(file)) => {
                String::from_utf8(read(file)?).map_err(|_| format!("{} is no text", file.display()))?
            }
            (None, None) => return Err("etcd.username has no password".to_owned()),
        };
        options = options.with_user(user.clone(), password.trim_end());
    }
    let connecting = Client::connect(&config.endpoints, Some(options));
    let endpoints = config.endpoints.join(", ");
    match tokio::time::timeout(REQUEST_TIMEOUT, connecting).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(format!("etcd at {endpoints} cannot be reached: {}", explain(&error))),
        Err(_) => Err(format!("etcd at {endpoints} does not answer")),
    }
}

fn tls(config: &Etcd) -> Result<TlsOptions, String> {
    let mut tls = TlsOptions::new();
    if let Some(ca) = &config.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(tls)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
