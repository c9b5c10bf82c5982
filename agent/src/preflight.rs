//! Everything the host lacks, each with its remedy. Writes nothing. `warren up` runs it and says the same.

mod cni;
mod files;
mod firewall;
mod network;
mod privileges;

use std::fmt;

use crate::admin::{self, Answer, Question};
use crate::config::Config;
use crate::status::Status;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// It is as it should be.
    pub ok: bool,
    /// Without it the agent cannot run.
    fatal: bool,
    /// What was looked at; when not `ok`, what is wrong and where.
    pub what: String,
    /// What to do; empty when `ok`.
    pub remedy: String,
}

impl Finding {
    fn fine(what: impl Into<String>) -> Self {
        Self { ok: true, fatal: false, what: what.into(), remedy: String::new() }
    }

    fn fatal(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { ok: false, fatal: true, what: what.into(), remedy: remedy.into() }
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { fatal: false, ..Self::fatal(what, remedy) }
    }

    /// The agent cannot run.
    pub fn is_fatal(&self) -> bool {
        self.fatal && !self.ok
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ok {
            true => write!(f, "{}", self.what),
            false => write!(f, "{}: {}", self.what, self.remedy),
        }
    }
}

/// Looks at everything, also when the first thing is missing already.
pub fn run(config: &Config) -> Vec<Finding> {
    let (config, cni) = &cni::asked(config.clone());
    let running = running(config);
    let mut findings = vec![
        privileges::net_admin(),
        privileges::tun(),
        firewall::nft(),
        network::port(config.underlay.port, running.as_ref()),
        files::state_dir(&config.node.state_dir),
    ];
    findings.extend(firewall::traffic_control());
    findings.extend(files::key(&config.node.key_file));
    findings.extend(cni.clone());
    findings.extend(network::findings(config));
    findings.extend(network::forwarding(config));
    findings.extend(firewall::forward(config));
    findings
}

/// The agent that runs here already, if it answers: what it holds is in good hands. `warren up` then says that it runs.
fn running(config: &Config) -> Option<Status> {
    match admin::ask(&config.node.run_dir, &Question::Status {}) {
        Ok(Answer::Status(status)) => Some(*status),
        _ => None,
    }
}
