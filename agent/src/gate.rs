//! The CNI plugin `warren-gate`, last in the chain of the node's CNI: refuses to add a Pod until the guard stands and
//! watches the Pod's addresses, and else passes on what the plugins before it made, byte by byte.
//!
//! A runtime runs it on the host, as root, in the host's network: it asks the kernel, needs no agent, no `nft`, no file and
//! no configuration, and changes nothing. Whoever deletes a Pod is never refused.

mod answer;
mod network;

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use answer::{Code, Refusal};
pub use network::VERSIONS;
use network::{NEWEST, Network};

use crate::host::guard::{Lacking, lacking};

/// The plugin's name: that of its executable, and its `type` in a chain.
pub const PLUGIN: &str = "warren-gate";
/// No network configuration is longer.
const INPUT_MAX: u64 = 4 << 20;

/// Answers the runtime: the command comes in the environment, the configuration by standard input.
pub fn run() -> ExitCode {
    let command = std::env::var("CNI_COMMAND").unwrap_or_default();
    let mut input = Vec::new();
    let read = io::stdin().take(INPUT_MAX + 1).read_to_end(&mut input);
    let (text, code) = match read.map_err(|error| unread(&error)).and_then(|_| obey(&command, &input, lacking)) {
        Ok(text) => (text, ExitCode::SUCCESS),
        // A Pod that is to go must go, whatever came.
        Err(_) if command == "DEL" => (String::new(), ExitCode::SUCCESS),
        Err(refusal) => (refusal.to_string(), ExitCode::FAILURE),
    };
    // A Pod whose result was lost is not added.
    if text.is_empty() || writeln!(io::stdout(), "{text}").is_ok() { code } else { ExitCode::FAILURE }
}

fn unread(error: &io::Error) -> Refusal {
    Refusal::new(Code::Io, "standard input cannot be read", error.to_string())
}

/// What goes to standard output.
fn obey(
    command: &str,
    input: &[u8],
    lacking: impl Fn(&[std::net::IpAddr]) -> Option<Lacking>,
) -> Result<String, Refusal> {
    match command {
        "DEL" | "GC" => return Ok(String::new()),
        "VERSION" => return Ok(versions(input)),
        "ADD" | "CHECK" | "STATUS" => {}
        _ => return Err(no_command(command)),
    }
    let network = Network::parse(input)?;
    let refuse = |lacking: Lacking, code| refusal(&lacking, code).in_version(network.version());
    if command == "STATUS" {
        return lacking(&[]).map_or(Ok(String::new()), |lacks| Err(refuse(lacks, Code::NotAvailable)));
    }
    let (before, addresses) = network.before()?;
    if command == "ADD" && addresses.is_empty() {
        let what =
            format!("{PLUGIN} sees no address of the Pod in prevResult, and so cannot say whether it is guarded");
        let remedy = "put it behind the plugin that gives the address";
        return Err(Refusal::new(Code::Configuration, what, remedy).in_version(network.version()));
    }
    match lacking(&addresses) {
        Some(lacks) => Err(refuse(lacks, Code::TryAgainLater)),
        None if command == "ADD" => Ok(before.to_owned()),
        None => Ok(String::new()),
    }
}

/// Answered whatever the input is: a runtime asks before it knows what to say.
fn versions(input: &[u8]) -> String {
    let asked = Network::parse(input).map_or_else(|_| NEWEST.to_owned(), |network| network.version().to_owned());
    serde_json::json!({ "cniVersion": asked, "supportedVersions": VERSIONS }).to_string()
}

fn no_command(command: &str) -> Refusal {
    let what =
        if command.is_empty() { "CNI_COMMAND is not set".to_owned() } else { format!("CNI_COMMAND {command:?}") };
    Refusal::new(
        Code::Environment,
        format!("{PLUGIN}: {what}"),
        "container runtimes run this plugin, with CNI_COMMAND as ADD, DEL, CHECK, GC, STATUS or VERSION",
    )
}

fn refusal(lacking: &Lacking, code: Code) -> Refusal {
    let remedy = match lacking {
        Lacking::Answer(_) => "the plugin needs the host's network and CAP_NET_ADMIN, and the kernel nf_tables",
        Lacking::Prefix(_) => {
            "name the Pods' network in overlay.networks, or by `warren cluster init --change --network`; or does the agent \
             not know this node's CIDRs yet? `warren status` says so"
        }
        Lacking::Table | Lacking::Awake | Lacking::Chain(_) => {
            "the agent loads it when it starts: look at its Pod on this node, or at warren.service; without Warren, remove \
             this plugin from the CNI's configuration by `warren cleanup`"
        }
    };
    Refusal::new(code, format!("Warren's guard does not hold this node yet: {lacking}"), remedy)
}

#[cfg(test)]
mod tests;
