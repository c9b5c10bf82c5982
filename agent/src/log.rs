//! Logs: to standard error, as text or JSON, without packet data and without keys. A warning that
//! repeats itself is said once a minute, and then how often it came.

mod quiet;
mod repeat;

use std::sync::Arc;
use std::time::Instant;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use quiet::{Quiet, Told};

/// What a level may be, for error messages.
pub const LEVELS: &str = "error, warn, info, debug, trace, or filters as \"info,warren_agent::host=debug\"";

/// Whether the text is a level or a list of filters. [`EnvFilter`] alone takes a misspelt level for the name of a
/// target, and says nothing ever after.
pub fn is_level(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let is_part = |part: &str| match part.split_once('=') {
        Some((target, word)) => !target.is_empty() && !target.contains(char::is_whitespace) && is_word(word),
        None => is_word(part),
    };
    text.split(',').all(is_part) && EnvFilter::try_new(text).is_ok()
}

/// Starts logging. boringtun's own lines are left out: it calls an idle peer an error.
///
/// # Errors
/// When the level is none, or logging was started before.
pub fn init(config: &Log) -> Result<(), String> {
    let level = &config.level;
    let filter = EnvFilter::try_new(format!("{level},boringtun=off,h2=off,tower=off,hyper=off"))
        .map_err(|error| format!("log.level: {level:?}: {error}; levels are error, warn, info, debug, trace"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let start = Instant::now();
    let told = Told::new(config.format, move || start.elapsed());
    let quiet = Arc::clone(&told);
    let started = match config.format {
        LogFormat::Text => builder.with_ansi(false).map_event_format(|inner| Quiet::new(inner, quiet)).try_init(),
        LogFormat::Json => builder.json().map_event_format(|inner| Quiet::new(inner, quiet)).try_init(),
    };
    let failed = |error: &dyn std::fmt::Display| format!("logging cannot start: {error}");
    started.map_err(|error| failed(&error))?;
    told.keep_telling().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_no_level() {
        for good in ["info", "WARN", "off", "info,warren_agent::host=debug"] {
            assert!(is_level(good), "{good}");
        }
        for bad in ["", "inof", "info,", "=debug", "info, warren_agent=debug x", "warren_agent=lots"] {
            assert!(!is_level(bad), "{bad}");
        }
    }
}
