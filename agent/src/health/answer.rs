//! From a path to an answer. Whom it asks may be slow or gone: every question has its time.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::observation::Observation;
use super::probe::{self, Check};
use super::vitals::Vitals;
use super::{Serves, metrics};
use crate::dataplane::Dataplane;

/// Where the control plane puts what it sees.
pub type Ask = oneshot::Sender<Arc<Observation>>;

/// The control plane turns once a second; after this it hangs.
const HANGS: Duration = Duration::from_secs(30);
/// How long the threads of the data path may take to answer the roll call.
const ROLL_CALL: Duration = Duration::from_secs(3);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(5);
/// How long the control plane may take to look.
const PATIENCE: Duration = Duration::from_secs(4);

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Who knows.
pub(super) struct Answers {
    vitals: Arc<Vitals>,
    /// Its threads end with the control plane, not with who asks after them.
    dataplane: Weak<Dataplane>,
    control: mpsc::Sender<Ask>,
    per_peer: bool,
    /// What was written of the last observation: who asks too often gets the same.
    written: RefCell<Option<(Arc<Observation>, Arc<str>)>>,
}

impl Answers {
    pub(super) fn new(
        vitals: Arc<Vitals>,
        dataplane: Weak<Dataplane>,
        control: mpsc::Sender<Ask>,
        per_peer: bool,
    ) -> Self {
        Self { vitals, dataplane, control, per_peer, written: RefCell::default() }
    }

    /// Answers one request, whose body is never read.
    pub(super) async fn answer<B>(&self, request: Request<B>, serves: Serves) -> Result<Response<String>, Infallible> {
        let verbose = request.uri().query().is_some_and(|query| query.split('&').any(is_verbose));
        let path = request.uri().path();
        let known = (serves.probes && matches!(path, "/livez" | "/readyz")) || (serves.metrics && path == "/metrics");
        if !known {
            return Ok(plain(StatusCode::NOT_FOUND, "there is nothing here\n".to_owned()));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(refused_method());
        }
        Ok(match path {
            "/livez" => probed("livez", &self.livez().await, verbose),
            "/readyz" => probed("readyz", &self.readyz().await, verbose),
            _ => self.metrics().await,
        })
    }

    /// Needs no registry and no peer, and no word of the control plane: only that it turns.
    async fn livez(&self) -> Vec<Check> {
        let still = self.vitals.still();
        let hangs = (still > HANGS).then(|| format!("the control plane has hung for {} s", still.as_secs()));
        vec![Check::new("control", hangs), Check::new("threads", self.roll_call().await)]
    }

    /// What is wrong with the threads of the data path.
    async fn roll_call(&self) -> Option<String> {
        let stopped = || "the data path has stopped".to_owned();
        let Some(dataplane) = self.dataplane.upgrade() else { return Some(stopped()) };
        dataplane.call_the_roll();
        drop(dataplane);
        let until = Instant::now() + ROLL_CALL;
        loop {
            let Some(absent) = self.dataplane.upgrade().map(|dataplane| dataplane.absent()) else {
                return Some(stopped());
            };
            if absent.is_empty() {
                return None;
            }
            if Instant::now() >= until {
                return Some(format!("{} did not answer for {} s", absent.join(", "), ROLL_CALL.as_secs()));
            }
            sleep(LOOK).await;
        }
    }

    async fn readyz(&self) -> Vec<Check> {
        match self.observe().await {
            Some(observation) => observation.checks.clone(),
            None => vec![Check::new("control", Some("the control plane does not answer".to_owned()))],
        }
    }

    async fn metrics(&self) -> Response<String> {
        let Some(observation) = self.observe().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the control plane does not answer\n".to_owned());
        };
        let mut response = Response::new(self.written(&observation).as_ref().to_owned());
        response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
        response
    }

    fn written(&self, observation: &Arc<Observation>) -> Arc<str> {
        let mut written = self.written.borrow_mut();
        if let Some((of, text)) = written.as_ref()
            && Arc::ptr_eq(of, observation)
        {
            return Arc::clone(text);
        }
        let text: Arc<str> = metrics::text(observation, self.per_peer).into();
        *written = Some((Arc::clone(observation), Arc::clone(&text)));
        text
    }

    async fn observe(&self) -> Option<Arc<Observation>> {
        let asking = async {
            let (ask, answer) = oneshot::channel();
            self.control.send(ask).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asking).await.ok().flatten()
    }
}

fn is_verbose(word: &str) -> bool {
    word.split('=').next() == Some("verbose")
}

fn probed(probe: &str, checks: &[Check], verbose: bool) -> Response<String> {
    let status = if probe::pass(checks) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = plain(status, probe::text(probe, checks, verbose));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refused_method() -> Response<String> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: nothing is changed here\n".to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn plain(status: StatusCode, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}
