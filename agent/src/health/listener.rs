//! One address where HTTP/1.1 is answered. Bounded in every way: one request a connection, its size, its time, and how
//! many there are. When there are too many the oldest goes: who says nothing cannot keep out who has a question.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::Serves;
use super::answer::Answers;

/// Connections at a time, at each address.
const CONNECTIONS: usize = 32;
/// A request's line and headers, in bytes.
const HEAD_MAX: usize = 8 << 10;
/// How many headers there may be.
const HEADERS: usize = 64;
/// How long a client may take to ask.
const ASKING: Duration = Duration::from_secs(3);
/// How long all of it may take, the reading of the answer included.
const ALL: Duration = Duration::from_secs(15);
/// Between two attempts to have the address.
const RETRY: Duration = Duration::from_secs(2);
/// After the system refused a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Why addresses do not answer, by address.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<SocketAddr, String>>>);

impl Troubles {
    /// One sentence each: what, where, what to do.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn set(&self, address: SocketAddr, trouble: Option<String>) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => _ = troubles.insert(address, trouble),
            None => _ = troubles.remove(&address),
        }
    }
}

/// Answers there as soon as the address can be had, and never ends: it may be another program's for now, or belong to a
/// device that is not there yet.
pub(super) async fn listen(address: SocketAddr, serves: Serves, answers: Rc<Answers>, troubles: Troubles) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                troubles.set(address, None);
                accept(&listener, serves, &answers).await;
            }
            Err(error) => {
                let trouble = explain(address, serves, &error);
                tracing::warn!(problem = %trouble, "health");
                troubles.set(address, Some(trouble));
            }
        }
        sleep(RETRY).await;
    }
}

fn explain(address: SocketAddr, serves: Serves, error: &io::Error) -> String {
    let (key, what) = match serves {
        Serves { probes: true, .. } => ("health.listen", "probes"),
        Serves { probes: false, .. } => ("metrics.listen", "metrics"),
    };
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another program has it: stop that, or set {key}"),
        io::ErrorKind::AddrNotAvailable => format!("no device has this address (yet): set {key} to one of this host"),
        _ => format!("set {key} to an address and port that may be listened on"),
    };
    format!("{what} are not answered at {address} ({error}): {remedy}")
}

async fn accept(listener: &TcpListener, serves: Serves, answers: &Rc<Answers>) {
    let mut guests = Guests::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let conversation = converse(stream, serves, Rc::clone(answers));
                guests.seat(tokio::task::spawn_local(conversation).abort_handle());
            }
            // Out of descriptors, or somebody who went away: not for long.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// The connections that there are, the oldest first.
#[derive(Debug, Default)]
struct Guests(VecDeque<AbortHandle>);

impl Guests {
    fn seat(&mut self, guest: AbortHandle) {
        self.0.retain(|guest| !guest.is_finished());
        if self.0.len() >= CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(guest);
    }
}

/// One request and its answer; what goes wrong concerns the client alone.
async fn converse(stream: TcpStream, serves: Serves, answers: Rc<Answers>) {
    let service = service_fn(|request| answers.answer(request, serves));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKING)
        .keep_alive(false)
        .max_headers(HEADERS)
        .max_header_size(HEAD_MAX)
        .max_buf_size(2 * HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(ALL, connection).await;
}

#[cfg(test)]
mod tests;
