//! Standard output.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _, stdout};

use super::FAILED;

/// Prints a line. A reader that went away, as in `warren status | head -1`, is not our failure; a full disk is, since
/// what was printed may be a new key.
pub(crate) fn say(line: impl Display) {
    match writeln!(stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("warren: standard output: {error}");
            std::process::exit(FAILED.into());
        }
        _ => {}
    }
}
