//! `warren demo`: a whole mesh on one machine, shown and proven, then taken down without a trace.
//!
//! Three nodes with two Pods each in network namespaces of their own; the agents are this very binary. It never touches
//! the machine's own network: everything lives in namespaces named `wdemo<pid>-…` and in one folder below `/run`.
//!
//! ```text
//!   Pod  Pod      Pod  Pod      Pod  Pod      10.42.<node>.10, .11
//!     \  /          \  /          \  /
//!    node 1        node 2        node 3       warren up; 10.77.0.<node>
//!       \____________|_____________/
//!                 underlay                    a bridge, where the capture listens
//! ```

mod agents;
mod capture;
mod command;
mod etcd;
mod interrupt;
mod leftovers;
mod ping;
mod report;
mod requirements;
mod rivals;
mod screen;
mod story;
mod throughput;
mod world;

use std::process::ExitCode;

/// What `warren demo` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Leave everything up at the end, and say how to play with it and how to remove it.
    #[arg(long, conflicts_with = "clean")]
    pub keep: bool,
    /// Remove what `--keep`, or a demo that was killed, left behind; then stop.
    #[arg(long)]
    pub clean: bool,
    /// Where the nodes find each other: peers in their config files, or an etcd started for the demo.
    #[arg(long, value_enum, default_value_t = Registry::Static)]
    pub registry: Registry,
    /// `text` for people, `json` for one line on standard output and the progress on standard error.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Seconds of each throughput measurement.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub measure: u16,
}

/// Where the demo's nodes find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Registry {
    /// `[[peer]]` in each config file.
    Static,
    /// A real etcd in the underlay.
    Etcd,
}

/// How the demo reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table.
    Text,
    /// One line of JSON.
    Json,
}

/// Why the demo stopped early.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// SIGINT, SIGTERM or SIGHUP.
    #[error("interrupted")]
    Interrupted,
    /// What went wrong, where, and what to do.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}

type Result<T> = std::result::Result<T, Error>;

/// Exit code of a demo that did not show what it should.
const FAILED: u8 = 2;

/// Runs the demo; everything it made is gone when this returns, unless `--keep` was given.
pub fn run(args: &Args) -> ExitCode {
    let screen = screen::Screen::new(args.output);
    let outcome = if args.clean { leftovers::remove_all(&screen) } else { show(args, &screen) };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            screen.fail(&error.to_string());
            ExitCode::from(FAILED)
        }
    }
}

fn show(args: &Args, screen: &screen::Screen) -> Result<bool> {
    requirements::check(args.registry)?;
    let stop = interrupt::Interrupt::watch()?;
    leftovers::sweep(screen);
    let (report, left_up) = story::Story { args, screen, stop: &stop }.tell()?;
    screen.result(&match args.output {
        Output::Text => report.table(),
        Output::Json => report.json(),
    });
    left_up.iter().for_each(|line| screen.line(line));
    for failure in report.failures() {
        screen.fail(&failure);
    }
    Ok(report.failures().is_empty())
}
