//! One end of the no-crypto TUN↔UDP forwarder.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use warren_benches::forwarder::{Options, run};

/// Forwards packets between a new TUN device and one UDP peer, without any protection: only for measuring.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Name of the TUN device to make
    #[arg(long)]
    device: String,
    /// MTU of the TUN device
    #[arg(long, default_value_t = 1420)]
    mtu: u16,
    /// Local UDP address
    #[arg(long)]
    listen: SocketAddr,
    /// UDP address of the other end
    #[arg(long)]
    peer: SocketAddr,
}

fn main() -> ExitCode {
    let Arguments { device, mtu, listen, peer } = Arguments::parse();
    match run(&Options { device, mtu, listen, peer }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forwarder: {error}");
            ExitCode::from(2)
        }
    }
}
