//! What machines ask of the agent by HTTP: `/livez` and `/readyz` for who restarts it or waits for it, `/metrics` for who
//! watches it.
//!
//! ```text
//! GET ──► warren-health ── may I look? ──► control        (at most once a second; it reads the counters then)
//!              └── are you there? ──► workers, clerk      (`/livez` only; they answer between two turns)
//! ```
//!
//! It answers on a thread of its own, so that a control plane that hangs is seen to hang. Nothing counts for it on the
//! way of a packet. It never changes anything, never shows a secret, and knows no other path.

mod answer;
mod joining;
mod listener;
pub mod metrics;
mod observation;
mod probe;
mod vitals;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use crate::config;
use crate::dataplane::Dataplane;
use answer::Answers;
pub use answer::Ask;
pub use joining::{Acquaintance, Joining};
pub use listener::Troubles;
pub use observation::{Contact, Handshake, Observation};
pub use probe::Check;
pub use vitals::Vitals;

/// Questions to the control plane that wait, at most.
const QUESTIONS: usize = 4;

/// What is answered at one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Serves {
    probes: bool,
    metrics: bool,
}

/// The control plane's end.
pub struct Window {
    /// Stamped by the control plane whenever it turns.
    pub vitals: Arc<Vitals>,
    /// Where it is asked for what it sees.
    pub asked: mpsc::Receiver<Ask>,
    /// Why an address does not answer.
    pub troubles: Troubles,
}

/// Starts to answer where the configuration says. An address that cannot be had is tried again for as long as the agent
/// runs, and is a problem in `warren status` meanwhile: no reason not to carry traffic.
///
/// # Errors
/// When there is no thread to be had.
pub fn start(health: config::Health, metrics: config::Metrics, dataplane: Weak<Dataplane>) -> io::Result<Window> {
    let (control, asked) = mpsc::channel(QUESTIONS);
    let window = Window { vitals: Arc::new(Vitals::new()), asked, troubles: Troubles::default() };
    let answers = Answers::new(Arc::clone(&window.vitals), dataplane, control, metrics.per_peer);
    let listeners = listeners(health.listen, metrics.listen);
    if !listeners.is_empty() {
        let troubles = window.troubles.clone();
        std::thread::Builder::new()
            .name("warren-health".to_owned())
            .spawn(move || run(answers, &listeners, &troubles))?;
    }
    Ok(window)
}

fn listeners(health: Option<SocketAddr>, metrics: Option<SocketAddr>) -> BTreeMap<SocketAddr, Serves> {
    let mut listeners: BTreeMap<SocketAddr, Serves> = BTreeMap::new();
    if let Some(address) = health {
        listeners.entry(address).or_default().probes = true;
    }
    if let Some(address) = metrics {
        listeners.entry(address).or_default().metrics = true;
    }
    listeners
}

fn run(answers: Answers, listeners: &BTreeMap<SocketAddr, Serves>, troubles: &Troubles) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "nobody answers probes and scrapes"),
    };
    let answers = Rc::new(answers);
    let local = tokio::task::LocalSet::new();
    for (address, serves) in listeners {
        local.spawn_local(listener::listen(*address, *serves, Rc::clone(&answers), troubles.clone()));
    }
    runtime.block_on(local);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_for_both_answers_both_and_off_answers_nothing() {
        let (one, other) = ("127.0.0.1:1".parse().ok(), "127.0.0.1:2".parse().ok());
        let serves = |health, metrics| -> Vec<_> {
            listeners(health, metrics).into_values().map(|serves| (serves.probes, serves.metrics)).collect()
        };
        assert_eq!(serves(one, other), [(true, false), (false, true)]);
        assert_eq!(serves(one, one), [(true, true)]);
        assert_eq!(serves(None, one), [(false, true)]);
        assert!(serves(None, None).is_empty());
    }
}
