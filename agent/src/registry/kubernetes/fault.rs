//! Why a request or a connection failed, for people: what is wrong and what to do. Never carries a token or an object;
//! of what a server says only as much as fits a line.

/// The longest text of a server that is repeated.
const SAID_MAX: usize = 300;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The API server, or the way to it.
    #[error("{}", of_client(.0))]
    Client(Box<kube::Error>),
    /// It answered with this status.
    #[error("{}", of_code(*.0, .1))]
    Said(u16, String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    /// Files and settings of this host.
    #[error("{0}")]
    Local(String),
    /// What no API server answers.
    #[error("the API server answered with {0}: is it one?")]
    Nonsense(&'static str),
    /// More than is taken at once.
    #[error("the API server answers with more than can be taken at once")]
    Large,
    /// The connection is up but nobody answers.
    #[error("the API server does not answer")]
    Silent,
    /// This node leaves; nothing more to do.
    #[error("left")]
    Left,
}

impl From<kube::Error> for Fault {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Said(status.code, status.message),
            other => Self::Client(Box::new(other)),
        }
    }
}

impl From<kube::core::request::Error> for Fault {
    fn from(error: kube::core::request::Error) -> Self {
        Self::Local(error.to_string())
    }
}

impl Fault {
    /// The HTTP status, where the server gave one.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Said(code, _) => Some(*code),
            _ => None,
        }
    }
}

/// What the way to the server says, and what that means here.
const MEANINGS: [(&str, &str); 9] = [
    ("UnknownIssuer", "the API server's certificate is not signed by the authority that this agent was given"),
    // The authorities of all clusters of one making have one name.
    ("BadSignature", "the API server's certificate is not signed by the authority that this agent was given"),
    ("NotValidForName", "the API server's certificate does not name the address in kubernetes.server"),
    ("certificate expired", "the API server's certificate has expired, or this host's clock is wrong"),
    ("CertificateExpired", "a certificate has expired: renew the one in the kubeconfig"),
    ("BadCertificate", "the API server does not trust the certificate in the kubeconfig"),
    ("Connection refused", "nobody listens there: is the API server up, and is kubernetes.server right?"),
    ("dns error", "the name cannot be resolved: name the API server by its address, in kubernetes.server"),
    ("deadline has elapsed", "nobody answers there: does a firewall drop in silence?"),
];

fn of_client(error: &kube::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let cause = line(&cause.to_string());
    match MEANINGS.iter().find(|(said, _)| cause.contains(said)) {
        Some((_, meaning)) => format!("{meaning} ({cause})"),
        None => cause,
    }
}

fn of_code(code: u16, said: &str) -> String {
    let said = line(said);
    let meaning = match code {
        401 => "the API server does not know this agent: its token or certificate is not, or no longer, good",
        403 => {
            "the API server does not let this agent do that: see rbac.yaml and admission.yaml in deploy/kubernetes/base"
        }
        404 => "the API server does not know what was asked for: run `warren crds | kubectl apply -f -`",
        429 => "the API server is busy, or has only just learnt of the custom resources",
        500..=599 => "the API server is not well",
        _ => return format!("{said} ({code})"),
    };
    format!("{meaning} ({code}: {said})")
}

/// On one line, and not too long.
fn line(text: &str) -> String {
    text.chars().take(SAID_MAX).map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_stays_on_one_short_line() {
        let said = Fault::Said(403, format!("no\u{1b}[2J\n{}", "x".repeat(10_000))).to_string();
        assert!(said.len() < 600 && !said.contains(char::is_control), "{said}");
    }
}
