//! Warren beside its peers: iperf3 and ping through each tunnel in turn, in namespaces of this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use warren_benches::cases::Case;
use warren_benches::plan::Plan;
use warren_benches::rows::{self, Row};
use warren_benches::world::Topology;
use warren_benches::{Error, Result, interrupt, machine, peers};

/// Measures Warren beside plain veth, VXLAN, the no-crypto forwarder and userspace WireGuards. Needs root.
#[derive(Parser)]
struct Arguments {
    /// The essentials in under two minutes (default)
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Every peer, case, topology and MTU; takes hours, and says how many
    #[arg(long)]
    full: bool,
    /// What one row of the bars needs: tcp, tcp9000, vxlan, udp, cpu400, rttload, rss, idle-peers, many, workers, pipeline;
    /// bars: everything at MTU 1500 that is held to a bar, in one run
    #[arg(long, conflicts_with = "quick")]
    row: Option<Row>,
    /// Peers: warren (its defaults), warren-aes-256-gcm, warren-chacha20-poly1305, warren-off (no associations),
    /// warren-beneath-vxlan, veth, vxlan, forwarder, wireguard-go, gotatun, boringtun
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Cases: rtt, tcp1, tcp4, tcp8, tcp32, cpu400, rttload, udp64, udp1200, bursts, iperf64, iperf1200, rss, hub32, idle-peers,
    /// real-peers, pipeline, handshakes, exchanges, reconcile
    #[arg(long, value_delimiter = ',')]
    cases: Option<Vec<Case>>,
    /// Topologies: nodes, pods
    #[arg(long, value_delimiter = ',')]
    topologies: Option<Vec<Topology>>,
    /// Underlay MTUs
    #[arg(long, value_delimiter = ',')]
    mtus: Option<Vec<u16>>,
    /// Each Warren once for every number of workers
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: Option<Vec<u8>>,
    /// Interleaved runs
    #[arg(long)]
    runs: Option<usize>,
    /// Length of one measurement, whole seconds
    #[arg(long)]
    seconds: Option<u16>,
    /// Further folders with the peers' binaries
    #[arg(long, value_delimiter = ',', env = "WARREN_BENCH_PATH")]
    path: Vec<PathBuf>,
    /// Where results.md, results.jsonl and results.svg go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/out"))]
    out: PathBuf,
    #[arg(long, hide = true)]
    spin: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.spin {
        machine::spin();
        return ExitCode::SUCCESS;
    }
    match run(arguments) {
        Ok(markdown) => {
            println!("{markdown}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("side-by-side: {error}");
            ExitCode::from(if interrupt::interrupted() { 130 } else { 2 })
        }
    }
}

fn run(arguments: Arguments) -> Result<String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new("network namespaces need root: run it with sudo"));
    }
    interrupt::watch()?;
    plan(arguments)?.run()
}

fn plan(arguments: Arguments) -> Result<Plan> {
    let row = arguments.row.unwrap_or(if arguments.full { rows::FULL } else { rows::QUICK });
    let thorough = arguments.full || arguments.row.is_some();
    let wanted = arguments.peers.unwrap_or_else(|| row.peers.iter().map(|name| (*name).to_owned()).collect());
    let (peers, absent) = peers::find(&wanted, &arguments.path)?;
    let workers = arguments.workers.unwrap_or_else(|| row.workers.to_vec());
    Ok(Plan {
        peers: peers::with_workers(peers, &workers),
        absent,
        cases: arguments.cases.unwrap_or_else(|| row.cases.to_vec()),
        only_bars: row.only_bars,
        topologies: arguments.topologies.unwrap_or_else(|| row.topologies.to_vec()),
        mtus: arguments.mtus.unwrap_or_else(|| row.mtus.to_vec()),
        runs: arguments.runs.unwrap_or(if thorough { 5 } else { 3 }).max(1),
        seconds: f64::from(arguments.seconds.unwrap_or(if thorough { 4 } else { 2 })),
        warm_up: if thorough { 1.0 } else { 0.5 },
        out: arguments.out,
        say: |line| eprintln!("{line}"),
    })
}
