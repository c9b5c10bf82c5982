//! The command line. Exit codes: 0 ok, 1 degraded, 2 failed, 64 usage.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program speaks to people")]

mod cleanup;
mod examples;
mod flags;
mod keys;
mod say;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

pub(crate) use say::say;

use crate::admin::{self, Answer, Question};
use crate::config::{self, Config, ConfigError, RUN_DIR, STATE_DIR};
use crate::{cluster, control, demo, import, log, preflight};

/// All is well.
const OK: u8 = 0;
/// It runs, but something is wrong.
const DEGRADED: u8 = 1;
/// It did not work.
const FAILED: u8 = 2;
/// The command line is wrong (sysexits.h).
const USAGE: u8 = 64;

/// Above the flags that every verb takes.
const CONFIGURATION: &str = "Configuration";

/// Encrypted overlay node agent: carries all Pod traffic between nodes inside WireGuard.
#[derive(Debug, Parser)]
#[command(name = "warren", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = examples::FIRST_STEPS)]
struct Cli {
    /// Configuration file; docs/config.md and deploy/warren.toml show its keys.
    #[arg(
        long,
        global = true,
        env = "WARREN_CONFIG",
        hide_env_values = true,
        help_heading = CONFIGURATION,
        default_value = "/etc/warren/warren.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    #[command(flatten)]
    set: flags::Set,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground, until SIGTERM or Ctrl-C; the guard stays when it ends.
    Up(flags::Short),
    /// Print a new private key, as `wg genkey` does.
    Keygen,
    /// Read a private key from standard input and print its public key, as `wg pubkey` does.
    Pubkey,
    /// Set up the cluster in etcd, add nodes to it, take back what nodes left; make a roll-out strict.
    Cluster(cluster::Command),
    /// Make a configuration out of another program's.
    #[command(subcommand)]
    Import(import::Command),
    /// Say what this host lacks, each with its remedy. Changes nothing. Exits with 2 when the agent could not run.
    Preflight,
    /// Show the running agent: peers, what carries data to them, traffic, what is wrong. Exits with 1 when something is.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show which path traffic to a peer takes and what carries it, and prove with a fresh handshake that the peer is there. Exits
    /// with 2 when traffic to it is not encrypted or does not leave, with 1 when some of it is dropped.
    Verify {
        /// The peer's name, as `warren status` shows it.
        peer: String,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Decide about a change of the mesh that is held.
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Withdraw this node's record from the registry and stop the agent. The guard stays.
    Leave,
    /// Remove every trace of the agent from this host: CNI configurations, rules, routes, device, guard. Stop the agent first,
    /// or let it wait for that.
    Cleanup(cleanup::Command),
    /// Check the configuration: say what it means and where it comes from, or everything that is wrong with it.
    CheckConfig {
        /// The file; wins over --config.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Load the guard that the agent saved in its state folder (`node.state_dir`); run at boot, before the network.
    Guard,
    /// Print the version, as --version does.
    Version,
    /// Print the CustomResourceDefinitions that a Kubernetes cluster needs, as YAML.
    #[cfg(feature = "kubernetes")]
    Crds,
    /// Show a whole mesh on this machine: three nodes, six Pods, a packet capture and a throughput table.
    Demo(demo::Args),
}

#[derive(Debug, Subcommand)]
enum MeshCommand {
    /// Let a change happen that was held because it removes most of the mesh.
    Accept,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why it did not work.
struct Failure {
    /// The exit code.
    code: u8,
    /// What is wrong and what to do, one line for each.
    why: String,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { code: FAILED, why }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { code: if error.is_usage() { USAGE } else { FAILED }, why: error.to_string() }
    }
}

/// Runs the program.
pub fn run() -> ExitCode {
    let parsed = flags::hide_where_ignored(examples::attach(Cli::command())).try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { OK });
        }
    };
    obey(cli).unwrap_or_else(|Failure { code, why }| {
        why.lines().for_each(|line| eprintln!("warren: {line}"));
        ExitCode::from(code)
    })
}

fn obey(Cli { config: path, set, command }: Cli) -> Result<ExitCode, Failure> {
    let short = if let Command::Up(short) = &command { Some(short) } else { None };
    let settings = flags::settings(&set, short);
    config::set_flags(settings.map_err(|faults| ConfigError { path: path.clone(), faults })?);
    Ok(ExitCode::from(match command {
        Command::Demo(args) => return Ok(demo::run(&args)),
        Command::Keygen => keys::keygen()?,
        Command::Pubkey => keys::pubkey()?,
        Command::Version => version(),
        #[cfg(feature = "kubernetes")]
        Command::Crds => {
            say(crate::registry::kubernetes::definitions().trim_end());
            OK
        }
        Command::Cluster(command) => administer(command, &path)?,
        Command::Import(command) => import::run(&command)?,
        Command::Up(_) => up(config::load(&path)?)?,
        Command::CheckConfig { file } => show::config(&config::load(file.as_ref().unwrap_or(&path))?),
        Command::Preflight => show::findings(&preflight::run(&config::load(&path)?)),
        Command::Cleanup(command) => cleanup::run(command, &config::load(&path)?)?,
        Command::Guard => guard(&path)?,
        Command::Status { output } => ask(&path, &Question::Status {}, output)?,
        Command::Verify { peer, output } => ask(&path, &Question::Verify { peer }, output)?,
        Command::Mesh(MeshCommand::Accept) => ask(&path, &Question::AcceptMesh {}, Output::Text)?,
        Command::Leave => ask(&path, &Question::Leave {}, Output::Text)?,
    }))
}

fn version() -> u8 {
    say(format_args!("warren {}", env!("CARGO_PKG_VERSION")));
    OK
}

/// `cluster …` reads the configuration only where its own flags leave something open.
fn administer(command: cluster::Command, path: &Path) -> Result<u8, Failure> {
    let mut code = FAILED;
    let config = || {
        config::load(path).map_err(|error| {
            let failure = Failure::from(error);
            code = failure.code;
            failure.why
        })
    };
    let run_dir = || config::load(path).map_or_else(|_| PathBuf::from(RUN_DIR), |config| config.node.run_dir);
    cluster::run(command, config, run_dir).map_err(|why| Failure { code, why })
}

fn up(config: Config) -> Result<u8, String> {
    // No core file and no debugger of another user ever sees a key.
    let _ = nix::sys::prctl::set_dumpable(false);
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    log::init(&config.log)?;
    control::run(config).map(|()| OK).map_err(|error| error.to_string())
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

/// A file that somebody broke must not leave the host without its guard: then the usual folder's is loaded.
fn guard(path: &Path) -> Result<u8, Failure> {
    match config::load(path) {
        Ok(config) => Ok(load_guard(&config.node.state_dir)?),
        Err(error) => {
            let mut failure = Failure::from(error);
            if let Err(why) = load_guard(Path::new(STATE_DIR)) {
                failure.why += &format!("\n{why}");
            }
            Err(failure)
        }
    }
}

fn load_guard(state_dir: &Path) -> Result<u8, String> {
    let shown = state_dir.display();
    match crate::host::guard::load_saved(state_dir).map_err(|error| error.to_string())? {
        true => say(format_args!("the guard that was saved in {shown} is loaded")),
        false => say(format_args!("no guard was saved in {shown}: the agent has not run yet")),
    }
    Ok(OK)
}

/// The agent's folder: from the configuration where there is one, else the usual one.
fn ask(path: &Path, question: &Question, output: Output) -> Result<u8, Failure> {
    let run_dir = match config::load(path) {
        Ok(config) => config.node.run_dir,
        Err(_) if !path.exists() => PathBuf::from(RUN_DIR),
        Err(error) => return Err(error.into()),
    };
    match admin::ask(&run_dir, question).map_err(|error| error.to_string())? {
        Answer::Status(status) => Ok(show::status(&status, output)?),
        Answer::Verify(verify) => Ok(show::verify(&verify, output)?),
        Answer::Done(what) => {
            say(what);
            Ok(OK)
        }
        Answer::Failed(why) => Err(why.into()),
    }
}
