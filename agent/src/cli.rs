//! The command line. Exit codes: 0 ok, 1 degraded, 2 failed, 64 usage.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program speaks to people")]

mod keys;
mod say;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use say::say;

use crate::admin::{self, Answer, Question};
use crate::config::{self, Config};
use crate::host::Host;
use crate::{cluster, control, demo, log, preflight};

/// All is well.
const OK: u8 = 0;
/// It runs, but something is wrong.
const DEGRADED: u8 = 1;
/// It did not work.
const FAILED: u8 = 2;
/// The command line is wrong (sysexits.h).
const USAGE: u8 = 64;

/// Encrypted overlay node agent: carries Pod traffic between nodes inside WireGuard.
#[derive(Debug, Parser)]
#[command(name = "warren", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// Configuration file.
    #[arg(long, global = true, env = "WARREN_CONFIG", default_value = "/etc/warren/warren.toml", value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground.
    Up(Overrides),
    /// Print a new private key, as `wg genkey` does.
    Keygen,
    /// Read a private key from standard input and print its public key, as `wg pubkey` does.
    Pubkey,
    /// Set up the cluster in etcd, add nodes to it, take back what nodes left.
    Cluster(cluster::Command),
    /// Say what this host lacks, each with its remedy.
    Preflight,
    /// Show the running agent: peers, traffic, what is wrong. Exits with 1 when something is.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show which path traffic to a peer takes, and prove with a fresh handshake that the peer is there.
    Verify {
        /// The peer's name, as `warren status` shows it.
        peer: String,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Decide about the mesh.
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Withdraw this node's record from the registry and stop the agent. The guard stays.
    Leave,
    /// Remove every trace of the agent from this host: rules, routes, device, guard. Stop the agent first.
    Cleanup,
    /// Check a configuration file and say what it means.
    CheckConfig,
    /// Load the guard that the agent saved; run at boot, before the network.
    Guard,
    /// Show a whole mesh on this machine: three nodes, six Pods, a packet capture and a throughput table.
    Demo(demo::Args),
}

#[derive(Debug, Subcommand)]
enum MeshCommand {
    /// Let a change happen that was held because it removes most of the mesh.
    Accept,
}

/// Flags that win over environment and file.
#[derive(Debug, Default, Args)]
struct Overrides {
    /// Node name (`node.name`).
    #[arg(long, env = "WARREN_NODE_NAME")]
    node_name: Option<String>,
    // Kubernetes sets WARREN_PORT beside a Service named warren.
    /// UDP port (`underlay.port`).
    #[arg(long, env = "WARREN_UNDERLAY_PORT")]
    port: Option<u16>,
    /// Data-path threads, 0 for one per core (`workers.count`).
    #[arg(long, env = "WARREN_WORKERS")]
    workers: Option<u16>,
    /// Log level (`log.level`): error, warn, info, debug, trace.
    #[arg(long, env = "WARREN_LOG")]
    log_level: Option<String>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs the program.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { OK });
        }
    };
    let Cli { config: path, command } = cli;
    let done = match command {
        Command::Demo(args) => return demo::run(&args),
        Command::Keygen => keys::keygen(),
        Command::Pubkey => keys::pubkey(),
        Command::Cluster(command) => cluster::run(command, || load(&path, &Overrides::default())),
        Command::Up(overrides) => load(&path, &overrides).and_then(up),
        Command::CheckConfig => load(&path, &Overrides::default()).map(|config| show::config(&config)),
        Command::Preflight => load(&path, &Overrides::default()).map(|config| show::findings(&preflight::run(&config))),
        Command::Cleanup => load(&path, &Overrides::default()).and_then(|config| cleanup(&config)),
        Command::Guard => load(&path, &Overrides::default()).and_then(|config| guard(&config)),
        Command::Status { output } => ask(&path, &Question::Status, output),
        Command::Verify { peer, output } => ask(&path, &Question::Verify { peer }, output),
        Command::Mesh(MeshCommand::Accept) => ask(&path, &Question::AcceptMesh, Output::Text),
        Command::Leave => ask(&path, &Question::Leave, Output::Text),
    };
    ExitCode::from(done.unwrap_or_else(|why| {
        eprintln!("warren: {why}");
        FAILED
    }))
}

fn load(path: &std::path::Path, overrides: &Overrides) -> Result<Config, String> {
    let mut config = config::load(path).map_err(|error| error.to_string())?;
    if let Some(name) = &overrides.node_name {
        config.node.name = name.parse().map_err(|error| format!("--node-name {name:?}: {error}"))?;
    }
    match overrides.port {
        Some(0) => return Err("--port: must not be 0: peers dial it".to_owned()),
        port => config.underlay.port = port.unwrap_or(config.underlay.port),
    }
    match overrides.workers {
        Some(65..) => return Err("--workers: at most 64; 0 is one per core".to_owned()),
        count => config.workers.count = count.unwrap_or(config.workers.count),
    }
    if let Some(level) = &overrides.log_level {
        if !log::is_level(level) {
            return Err(format!("--log-level {level:?}: is none of {}", log::LEVELS));
        }
        config.log.level.clone_from(level);
    }
    Ok(config)
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

fn cleanup(config: &Config) -> Result<u8, String> {
    if admin::ask(&config.node.run_dir, &Question::Status).is_ok() {
        return Err("the agent is running: stop it first, or it would put everything back".to_owned());
    }
    let removed = runtime()?.block_on(async {
        let mut host = Host::open(&config.node.state_dir)?;
        host.cleanup(&config.overlay.device, config.overlay.table).await
    });
    for what in removed.map_err(|error| error.to_string())? {
        say(format_args!("removed {what}"));
    }
    let _ = std::fs::remove_file(config.node.run_dir.join(admin::SOCKET));
    Ok(OK)
}

fn guard(config: &Config) -> Result<u8, String> {
    match crate::host::guard::load_saved(&config.node.state_dir) {
        Ok(true) => say("the guard is loaded"),
        Ok(false) => {
            say(format_args!("no guard was saved in {}: the agent has not run yet", config.node.state_dir.display()))
        }
        Err(error) => return Err(error.to_string()),
    }
    Ok(OK)
}

/// The agent's directory: from the configuration where it can be read, else the usual one.
fn ask(path: &std::path::Path, question: &Question, output: Output) -> Result<u8, String> {
    let run_dir = match config::load(path) {
        Ok(config) => config.node.run_dir,
        Err(_) if !path.exists() => PathBuf::from("/run/warren"),
        Err(error) => return Err(error.to_string()),
    };
    match admin::ask(&run_dir, question).map_err(|error| error.to_string())? {
        Answer::Status(status) => show::status(&status, output),
        Answer::Verify(verify) => show::verify(&verify, output),
        Answer::Done(what) => {
            say(what);
            Ok(OK)
        }
        Answer::Failed(why) => Err(why),
    }
}
