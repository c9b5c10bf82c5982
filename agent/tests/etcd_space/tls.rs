//! A certificate authority for one etcd.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use warren_agent::config::Etcd;

/// Certificates of the authority, of etcd and of a client, as PEM files.
pub(crate) struct Tls {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Tls {
    pub(crate) fn new(dir: &Path) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("valid parameters");
        std::fs::write(dir.join("ca.pem"), authority.pem()).expect("the folder is ours");
        let tls = Self { dir: dir.to_owned(), issuer: Issuer::new(params, key) };
        tls.issue("server", vec!["127.0.0.1".to_owned()]);
        tls.issue("client", Vec::new());
        tls
    }

    fn issue(&self, name: &str, subjects: Vec<String>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(subjects).expect("an address");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("valid parameters");
        std::fs::write(self.dir.join(format!("{name}.pem")), certificate.pem()).expect("the folder is ours");
        super::write_secret(&self.dir.join(format!("{name}.key")), &key.serialize_pem());
    }

    /// Has somebody come with a certificate of this common name.
    pub(crate) fn certify(&self, name: &str, config: &mut Etcd) {
        self.issue(name, Vec::new());
        config.ca_file = Some(self.dir.join("ca.pem"));
        config.cert_file = Some(self.dir.join(format!("{name}.pem")));
        config.key_file = Some(self.dir.join(format!("{name}.key")));
    }

    fn options(&self, words: [(&str, &str); 3]) -> Vec<String> {
        words.iter().map(|(flag, file)| format!("{flag}={}", self.dir.join(file).display())).collect()
    }

    pub(crate) fn server_options(&self) -> Vec<String> {
        let files = [("--trusted-ca-file", "ca.pem"), ("--cert-file", "server.pem"), ("--key-file", "server.key")];
        let mut options = self.options(files);
        options.push("--client-cert-auth".to_owned());
        options
    }

    pub(crate) fn client_options(&self) -> Vec<String> {
        self.options([("--cacert", "ca.pem"), ("--cert", "client.pem"), ("--key", "client.key")])
    }

    pub(crate) fn configure(&self, config: &mut Etcd) {
        config.ca_file = Some(self.dir.join("ca.pem"));
        config.cert_file = Some(self.dir.join("client.pem"));
        config.key_file = Some(self.dir.join("client.key"));
    }
}
