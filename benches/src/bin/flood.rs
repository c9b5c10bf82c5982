//! Datagrams at a rate that is known, and the sink that counts them.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use warren_benches::flood::{Load, PORT, send, sink};

/// Measures a path by datagrams at one rate. Says what was sent, what arrived, and what came late, as JSON.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Count what comes, until killed
    Sink,
    /// Send to a sink
    Send {
        /// Where the sink is
        to: Ipv4Addr,
        /// Tells this run from others
        #[arg(long, default_value_t = 1)]
        run: u32,
        /// Payload, bytes
        #[arg(long, default_value_t = 64)]
        length: usize,
        /// Lengths vary from `length` to this [default: all are the same]
        #[arg(long)]
        longest: Option<usize>,
        /// So many leave in one call, up to 64 [default: as soon as they are due]
        #[arg(long)]
        burst: Option<usize>,
        /// Datagrams per second [default: as many as the kernel takes]
        #[arg(long)]
        rate: Option<f64>,
        /// How long
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Sink => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).and_then(|socket| sink(&socket)),
        What::Send { to, run, length, longest, burst, rate, seconds } => {
            let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(1));
            let (to, rate) = (SocketAddrV4::new(to, PORT), rate.filter(|rate| *rate > 0.0));
            let load = Load { to, run, length, longest: longest.unwrap_or(length), burst, rate, time };
            send(&load).map(|outcome| println!("{}", serde_json::to_string(&outcome).unwrap_or_default()))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flood: {error}");
            ExitCode::from(2)
        }
    }
}
