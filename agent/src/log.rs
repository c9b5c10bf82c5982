//! Logs: to standard error, as text or JSON, without packet data and without keys.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging. boringtun's own lines are left out: it calls an idle peer an error.
///
/// # Errors
/// When the level is none, or logging was started before.
pub fn init(config: &Log) -> Result<(), String> {
    let level = &config.level;
    let filter = EnvFilter::try_new(format!("{level},boringtun=off,h2=off,tower=off,hyper=off"))
        .map_err(|error| format!("log.level: {level:?}: {error}; levels are error, warn, info, debug, trace"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| format!("logging cannot start: {error}"))
}
