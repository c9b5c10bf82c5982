//! TLS of one API server, by an authority of its own, which signs its clients' certificates too.

use std::net::IpAddr;
use std::sync::Arc;

use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

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

    /// Whom clients are to trust.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Who takes connections at this address.
    pub(super) fn acceptor(&self, address: IpAddr) -> TlsAcceptor {
        let issued = self.authority.issue("api-server", vec![address.to_string()]);
        let chain = CertificateDer::from_pem_file(&issued.cert).expect("just issued");
        let key = PrivateKeyDer::from_pem_file(&issued.key).expect("just issued");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_client_cert_verifier(self.clients())
            .with_single_cert(vec![chain], key)
            .expect("they belong together");
        TlsAcceptor::from(Arc::new(config))
    }

    /// Clients need no certificate; one that is shown must be good.
    fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority.ca_file()).expect("just drawn")).expect("an authority");
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
            .allow_unauthenticated()
            .build()
            .expect("there is an authority")
    }
}
