//! TLS of one API server, by an authority of its own.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::Authority;

/// The authority's files; gone when dropped.
#[derive(Debug)]
pub(super) struct Tls {
    authority: Authority,
    _folder: TempDir,
}

impl Tls {
    /// Draws an authority.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { authority: Authority::new(folder.path()), _folder: folder }
    }

    /// What clients are to trust.
    pub(super) fn ca_file(&self) -> PathBuf {
        self.authority.ca_file()
    }

    /// Who takes connections at this address.
    pub(super) fn acceptor(&self, address: IpAddr) -> TlsAcceptor {
        let issued = self.authority.issue("api-server", vec![address.to_string()]);
        let chain = CertificateDer::from_pem_file(&issued.cert).expect("just issued");
        let key = PrivateKeyDer::from_pem_file(&issued.key).expect("just issued");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("they belong together");
        TlsAcceptor::from(Arc::new(config))
    }
}
