//! What the person sees: one line per step, with a tick and the time it took.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use super::{Error, Output, Result};

/// Progress on standard output, or on standard error when standard output is for JSON.
pub(super) struct Screen {
    json: bool,
    colour: bool,
    live: bool,
    quiet_line: Cell<bool>,
}

impl Screen {
    /// Colours only on a terminal, and never against `NO_COLOR` (no-color.org).
    pub(super) fn new(output: Output) -> Self {
        let json = output == Output::Json;
        let terminal = if json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colour: terminal && wanted, live: terminal, quiet_line: Cell::new(false) }
    }

    /// Runs one step; shows it while it runs on a terminal, and its outcome when it is over.
    pub(super) fn step<T>(&self, doing: &str, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        let began = Instant::now();
        if self.live {
            self.write(&format!("  … {doing}"));
            self.quiet_line.set(true);
        }
        let outcome = work();
        self.rewind();
        match outcome {
            Ok((value, said)) => {
                let time = self.paint("2", &format!("({:.1} s)", began.elapsed().as_secs_f64()));
                self.line(&format!("  {} {said} {time}", self.paint("32", "✓")));
                Ok(value)
            }
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error) => {
                self.line(&format!("  {} {doing}", self.paint("31", "✗")));
                Err(error)
            }
        }
    }

    /// One line of progress.
    pub(super) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// The result: always on standard output.
    pub(super) fn result(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A reader that went away is no reason to leave namespaces behind.
        let _ = writeln!(out, "{text}");
    }

    /// What went wrong: always on standard error.
    pub(super) fn fail(&self, text: &str) {
        self.rewind();
        let _ = writeln!(std::io::stderr().lock(), "warren demo: {text}");
    }

    /// A heading.
    pub(super) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn rewind(&self) {
        if self.quiet_line.replace(false) {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        let _ = if self.json {
            std::io::stderr().lock().write_all(text.as_bytes())
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
    }
}
