//! Warren beside its peers: iperf3 and ping through each tunnel in turn, in namespaces of this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use warren_benches::cases::{self, Case};
use warren_benches::plan::Plan;
use warren_benches::world::Topology;
use warren_benches::{Error, Result, interrupt, machine, peers};

/// Measures Warren beside plain veth, VXLAN, the no-crypto forwarder and userspace WireGuards. Needs root.
#[derive(Parser)]
struct Arguments {
    /// The essentials in under two minutes (default)
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Every peer, case, topology and MTU; takes about an hour
    #[arg(long)]
    full: bool,
    /// Peers: warren (its defaults), warren-aes-256-gcm, warren-chacha20-poly1305, warren-off (no associations), veth,
    /// vxlan, forwarder, wireguard-go, gotatun, boringtun
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Cases: rtt, tcp1, tcp4, tcp400, rtt-load, udp64, udp1200, memory
    #[arg(long, value_delimiter = ',')]
    cases: Option<Vec<Case>>,
    /// Topologies: nodes, pods
    #[arg(long, value_delimiter = ',')]
    topologies: Option<Vec<Topology>>,
    /// Underlay MTUs
    #[arg(long, value_delimiter = ',')]
    mtus: Option<Vec<u16>>,
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

/// The peers of a quick run.
const QUICK: [&str; 5] = ["warren", "forwarder", "wireguard-go", "gotatun", "boringtun"];

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
    let full = arguments.full;
    let standard = if full { peers::names() } else { QUICK.to_vec() };
    let wanted = arguments.peers.unwrap_or_else(|| standard.into_iter().map(str::to_owned).collect());
    let (peers, absent) = peers::find(&wanted, &arguments.path)?;
    let all = || cases::ALL.map(|(case, _)| case).to_vec();
    Ok(Plan {
        peers,
        absent,
        cases: arguments.cases.unwrap_or_else(|| if full { all() } else { vec![Case::Tcp1, Case::Memory] }),
        topologies: arguments.topologies.unwrap_or_else(|| vec![Topology::Nodes, Topology::Pods]),
        mtus: arguments.mtus.unwrap_or_else(|| if full { vec![1500, 9000] } else { vec![1500] }),
        runs: arguments.runs.unwrap_or(if full { 5 } else { 3 }).max(1),
        seconds: f64::from(arguments.seconds.unwrap_or(if full { 5 } else { 2 })),
        warm_up: 1.0,
        out: arguments.out,
        say: |line| eprintln!("{line}"),
    })
}
