//! What the store's errors mean, for people. Never carries a value or a password: only what libraries and etcd say.

use std::error::Error as _;

use etcd_client::Error;

/// What etcd or the way to it says, and what that means here.
const MEANINGS: [(&str, &str); 13] = [
    ("UnknownIssuer", "etcd's certificate is not signed by the authority in etcd.ca_file"),
    ("NotValidForName", "etcd's certificate does not name the address in etcd.endpoints"),
    ("certificate expired", "etcd's certificate has expired, or this host's clock is wrong"),
    ("CertificateRequired", "etcd asks for a client certificate: set etcd.cert_file and etcd.key_file"),
    ("BadCertificate", "etcd asks for a client certificate that it trusts: see etcd.cert_file and etcd.key_file"),
    ("CertificateUnknown", "etcd does not trust the certificate in etcd.cert_file"),
    ("authentication failed", "etcd refuses etcd.username or its password"),
    ("user name is empty", "etcd asks for a user: set etcd.username and etcd.password_file"),
    ("permission denied", "etcd does not let this user do that: see the roles in deploy/etcd"),
    ("Timeout expired", "etcd does not answer: is it overloaded, or does a firewall drop in silence?"),
    ("tcp connect error", "nobody answers there: does etcd run, is the address right, does a firewall let it pass?"),
    ("no leader", "most members of etcd are away"),
    ("database space exceeded", "etcd is full: compact and defragment it, then disarm its alarm"),
];

/// The cause, and what it means where that is known.
pub(crate) fn explain(error: &Error) -> String {
    let cause = match error {
        Error::GRpcStatus(status) => match status.source() {
            Some(source) => format!("{}: {}", status.message(), deepest(source)),
            None => status.message().to_owned(),
        },
        Error::TransportError(error) => deepest(error),
        other => other.to_string(),
    };
    let known = MEANINGS.iter().find(|(said, _)| cause.contains(said));
    match known {
        Some((_, meaning)) => format!("{meaning} ({cause})"),
        None if cause.contains("connection closed") || cause.contains("broken pipe") => {
            format!("etcd closed the connection; if it asks for client certificates, set etcd.cert_file ({cause})")
        }
        None => cause,
    }
}

/// What is behind everything that was wrapped around it.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
