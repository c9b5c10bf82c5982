//! Why a request or a connection failed, for people: what is wrong and what to do. Never carries a token or an object;
//! of what a server says only as much as fits a line.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::response::Parts;
use serde_json::Value;

/// The longest text of a server that is repeated.
const SAID_MAX: usize = 300;
/// However long a server asks to be left alone, it is asked again after this.
const WAIT_MAX: u64 = 60;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The API server, or the way to it.
    #[error("{}", of_client(.0))]
    Client(Box<kube::Error>),
    /// It answered with this status.
    #[error("{}", of_code(*.code, .said))]
    Said {
        /// The HTTP status.
        code: u16,
        /// Its words.
        said: String,
        /// How long it wants to be left alone.
        wait: Option<Duration>,
    },
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
            kube::Error::Api(status) => Self::said(status.code, status.message),
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
            Self::Said { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn said(code: u16, said: String) -> Self {
        Self::Said { code, said, wait: None }
    }

    /// How long the server wants to be left alone, if it says so.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Said { wait, .. } => *wait,
            _ => None,
        }
    }

    /// Of one request, and not of the connection: the same request may well be answered in a moment.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Said { code, .. } => matches!(code, 408 | 429 | 500..=599),
            Self::Silent | Self::Broken(_) => true,
            _ => false,
        }
    }
}

/// What a reply means that is no success.
pub(super) fn refusal(head: &Parts, body: &[u8]) -> Fault {
    let wait = head.headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
    let message = serde_json::from_slice::<Value>(body).ok();
    let message = message.and_then(|status| status.get("message")?.as_str().map(str::to_owned));
    Fault::Said {
        code: head.status.as_u16(),
        said: message.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned()),
        wait: wait.map(|seconds: u64| Duration::from_secs(seconds.min(WAIT_MAX))),
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
        let said = Fault::said(403, format!("no\u{1b}[2J\n{}", "x".repeat(10_000))).to_string();
        assert!(said.len() < 600 && !said.contains(char::is_control), "{said}");
    }

    fn answered(code: u16, wait: &str, body: &str) -> Fault {
        let reply = http::Response::builder().status(code).header(RETRY_AFTER, wait).body(()).unwrap();
        refusal(&reply.into_parts().0, body.as_bytes())
    }

    #[test]
    fn a_busy_server_says_how_long_it_wants_to_be_left_alone_within_reason() {
        assert_eq!(answered(429, "7", "Too many").wait(), Some(Duration::from_secs(7)));
        assert_eq!(answered(429, "99999999", "").wait(), Some(Duration::from_secs(WAIT_MAX)));
        assert_eq!(answered(429, "Wed, 21 Oct 2026 07:28:00 GMT", "").wait(), None);
    }

    #[test]
    fn what_may_pass_is_told_from_what_may_not() {
        assert!(answered(429, "1", "").may_pass() && answered(503, "", "").may_pass() && Fault::Silent.may_pass());
        assert!([301, 401, 403, 404, 410, 422].iter().all(|code| !answered(*code, "", "").may_pass()));
        assert!(answered(403, "", r#"{"message":"no such luck"}"#).to_string().contains("403: no such luck"));
    }
}
