//! Flags that win over environment and file, as settings of the configuration.

use clap::Args;

use super::CONFIGURATION;
use crate::config::{Fault, Origin, Setting};

/// Those of every verb that reads the configuration.
#[derive(Debug, Default, Args)]
pub(super) struct Set {
    /// Sets a key, over environment and file: `--set overlay.mode=nodes`; may be given several times.
    #[arg(long, global = true, help_heading = CONFIGURATION, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Short ways to say what is said most often.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = CONFIGURATION)]
pub(super) struct Short {
    /// Node name (`node.name`).
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// UDP port (`underlay.port`).
    #[arg(long)]
    port: Option<u16>,
    /// Data-path threads, 0 for one per core (`workers.count`).
    #[arg(long, value_name = "COUNT")]
    workers: Option<u16>,
    /// Log level (`log.level`): error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

/// All of them; where one key is set twice, the later wins, and a short one over `--set`.
pub(super) fn settings(set: &Set, short: Option<&Short>) -> Result<Vec<Setting>, Vec<Fault>> {
    let read = set.set.iter().map(|text| Setting::from_flag(text));
    let (settings, faults): (Vec<_>, Vec<_>) =
        read.chain(short.into_iter().flat_map(of_short)).partition(Result::is_ok);
    if faults.is_empty() {
        return Ok(settings.into_iter().flatten().collect());
    }
    Err(faults.into_iter().filter_map(Result::err).collect())
}

fn of_short(short: &Short) -> impl Iterator<Item = Result<Setting, Fault>> {
    let number = |number: Option<u16>| number.map(|number| number.to_string());
    let given = [
        ("node.name", "--node-name", short.node_name.clone()),
        ("underlay.port", "--port", number(short.port)),
        ("workers.count", "--workers", number(short.workers)),
        ("log.level", "--log-level", short.log_level.clone()),
    ];
    given.into_iter().filter_map(|(key, flag, text)| Some(Setting::new(key, &text?, Origin::Flag(flag))))
}
