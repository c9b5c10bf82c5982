//! Ctrl-C and its kin: noticed, never fatal, so that everything is taken down in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::{Error, Result};

/// How often a wait looks whether it is over.
const POLL: Duration = Duration::from_millis(20);

/// Whether SIGINT, SIGTERM or SIGHUP came.
#[derive(Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on those signals no longer end the process.
    pub(super) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let (ready, installed) = std::sync::mpsc::channel();
        let seen = Arc::clone(&flag);
        std::thread::Builder::new()
            .name("demo-signals".into())
            .spawn(move || listen(&seen, &ready))
            .map_err(|error| Error::new(format!("cannot start a thread: {error}")))?;
        match installed.recv() {
            Ok(Ok(())) => Ok(Self(flag)),
            Ok(Err(error)) => Err(Error::new(format!("cannot listen for signals: {error}"))),
            Err(_) => Err(Error::new("cannot listen for signals")),
        }
    }

    /// Fails once a signal came.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Waits until `done` gives a value; fails with `what` after `limit`.
    pub(super) fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        mut done: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            self.check()?;
            if let Some(value) = done()? {
                return Ok(value);
            }
            if began.elapsed() > limit {
                return Err(Error::new(format!("{what} (waited {} s)", limit.as_secs())));
            }
            std::thread::sleep(POLL);
        }
    }
}

fn listen(seen: &AtomicBool, ready: &std::sync::mpsc::Sender<std::io::Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let streams = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = streams else {
            return drop(ready.send(Err(std::io::Error::other("the kernel refused a handler"))));
        };
        let _ = ready.send(Ok(()));
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            seen.store(true, Ordering::Relaxed);
        }
    });
}
