//! `warren`: the encrypted overlay node agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    warren_agent::cli::run()
}
