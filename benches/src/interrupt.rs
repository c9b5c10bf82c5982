//! SIGINT, SIGTERM and SIGHUP: running commands are ended, so that the main thread unwinds and cleans up.
//!
//! Signals are caught, not blocked: a blocked signal would stay blocked in every program that is started.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Error, Result, process};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes over the signals.
///
/// # Errors
/// When the process is out of descriptors or threads.
pub fn watch() -> Result<()> {
    let failed = |error: io::Error| Error::new(format!("cannot catch signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let listen = |kind| {
        let _inside = runtime.enter();
        signal(kind).map_err(failed)
    };
    let signals = [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?];
    thread::Builder::new().spawn(move || runtime.block_on(end_on(signals))).map_err(failed)?;
    Ok(())
}

async fn end_on([mut interrupt, mut terminate, mut hangup]: [Signal; 3]) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        INTERRUPTED.store(true, Ordering::SeqCst);
        process::end_all();
    }
}

/// True after a signal.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// # Errors
/// After a signal.
pub fn check() -> Result<()> {
    if interrupted() { Err(Error::new("interrupted")) } else { Ok(()) }
}
