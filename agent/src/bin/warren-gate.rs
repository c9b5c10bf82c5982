//! `warren-gate`: a chained CNI plugin that lets no Pod start before the guard stands.

use std::process::ExitCode;

fn main() -> ExitCode {
    warren_agent::gate::run()
}
