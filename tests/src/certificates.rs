//! A certificate authority of one lab, for an etcd or an API server with TLS.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::secret::write_secret;

/// An authority, and where its certificates are written.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// Draws a new one.
    pub fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().expect("a key can be drawn");
        let mut params = named("lab authority", Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).expect("the parameters are valid");
        std::fs::write(folder.join("ca.pem"), cert.pem()).expect("the folder is ours");
        Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// Its own certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Issues a certificate to a common name, valid for addresses or host names.
    pub fn issue(&self, name: &str, subjects: Vec<String>) -> Certificate {
        let key = KeyPair::generate().expect("a key can be drawn");
        let cert = named(name, subjects).signed_by(&key, &self.issuer).expect("the parameters are valid");
        let file = |what: &str| self.folder.join(format!("{name}.{what}"));
        std::fs::write(file("pem"), cert.pem()).expect("the folder is ours");
        write_secret(&file("key"), &key.serialize_pem());
        Certificate { cert: file("pem"), key: file("key") }
    }
}

fn named(name: &str, subjects: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(subjects).expect("addresses or host names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
