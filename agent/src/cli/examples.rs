//! An example below the help of every verb.

use clap::Command;

/// Below the program's own help.
pub(super) const FIRST_STEPS: &str = "\
First steps:
  warren demo              see a whole mesh on this machine; changes nothing outside its own namespaces
  warren check-config      is the configuration right, and what does it mean?
  warren preflight         what does this host lack?
  warren up                run the agent; systemd does it with deploy/systemd/warren.service
  warren status            what `wg show` and `tailscale status` show
  warren verify PEER       is traffic to this peer encrypted? Proven by a fresh handshake

Exit codes: 0 all is well, 1 it runs but something is wrong, 2 it failed, 64 the command line is wrong.";

/// The verb, and command lines as one would type them.
const EXAMPLES: &[(&str, &str)] = &[
    ("up", "warren up --config /etc/warren/warren.toml\nwarren up --node-name node-a --set overlay.mode=nodes"),
    ("keygen", "install -d -m 0700 /var/lib/warren\n(umask 077; warren keygen > /var/lib/warren/private.key)"),
    (
        "pubkey",
        "warren pubkey < /var/lib/warren/private.key\n(umask 077; warren keygen | tee private.key | warren pubkey)",
    ),
    ("cluster", "warren cluster init --endpoints https://192.0.2.1:2379 --network 10.0.0.0/8"),
    (
        "cluster init",
        "warren cluster init --endpoints https://192.0.2.1:2379 --network 10.0.0.0/8 --network fd00::/48\n\
         warren cluster init --network 10.0.0.0/8 --permissive --change",
    ),
    (
        "cluster add-node",
        "warren cluster add-node node-b --output node-b.toml\nwarren cluster add-node node-c --cidr 10.3.0.0/24 --cidr fd00:0:0:3::/64",
    ),
    (
        "cluster enforce",
        "warren cluster enforce strict --endpoints https://192.0.2.1:2379\n\
         warren cluster enforce permissive --kubeconfig /etc/kubernetes/admin.conf",
    ),
    ("cluster release", "warren cluster release node-b"),
    ("import", "warren import wg-quick /etc/wireguard/wg0.conf --output /etc/warren"),
    ("import wg-quick", "warren import wg-quick /etc/wireguard/wg0.conf --output /etc/warren"),
    ("preflight", "sudo warren preflight --config ./warren.toml"),
    ("status", "warren status\nwarren status -o json"),
    ("verify", "warren verify node-b\nwarren verify node-b -o json"),
    ("mesh", "warren mesh accept"),
    ("mesh accept", "warren status\nwarren mesh accept"),
    ("leave", "warren leave"),
    ("cleanup", "systemctl disable --now warren\nwarren cleanup\nwarren cleanup --wait=60"),
    (
        "check-config",
        "warren check-config ./warren.toml\nWARREN_OVERLAY_MODE=nodes warren check-config --set underlay.port=51841",
    ),
    ("guard", "warren guard\nwarren guard --config /etc/warren/warren.toml"),
    ("demo", "sudo warren demo\nsudo warren demo --keep"),
    ("version", "warren version"),
    #[cfg(feature = "kubernetes")]
    ("crds", "warren crds | kubectl apply -f -"),
];

/// Puts each example below its verb's help, and orders the flags there.
pub(super) fn attach(command: Command) -> Command {
    let with = |command: Command, (path, lines): &(&str, &str)| {
        let text = format!("Example:\n  {}", lines.replace('\n', "\n  "));
        below(command, path, &text)
    };
    // What all of `cluster` takes does not stand among what one verb takes.
    let store = |cluster: Command| cluster.mut_args(|flag| flag.help_heading("Access to etcd"));
    EXAMPLES.iter().fold(command.mut_subcommand("cluster", store), with)
}

fn below(command: Command, path: &str, text: &str) -> Command {
    let (verb, rest) = path.split_once(' ').unwrap_or((path, ""));
    command.mut_subcommand(verb, |found| match rest {
        "" => found.after_help(text.to_owned()),
        _ => below(found, rest, text),
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::Cli;

    /// The verbs below a command, as one writes them.
    fn verbs(command: &Command, above: &str) -> Vec<String> {
        let below = command.get_subcommands().filter(|verb| verb.get_name() != "help");
        let named = below.flat_map(|verb| {
            let name = format!("{above}{}", verb.get_name());
            let deeper = verbs(verb, &format!("{name} "));
            std::iter::once(name).chain(deeper)
        });
        named.collect()
    }

    #[test]
    fn every_verb_has_an_example_and_every_example_a_verb() {
        let mut named: Vec<_> = EXAMPLES.iter().map(|(verb, _)| (*verb).to_owned()).collect();
        let mut known = verbs(&Cli::command(), "");
        named.sort();
        known.sort();
        assert_eq!(named, known);
    }

    #[test]
    fn every_example_is_understood_as_its_verb() {
        let lines = EXAMPLES.iter().flat_map(|(verb, lines)| lines.lines().map(move |line| (*verb, line)));
        for (verb, line) in lines.filter(|(_, line)| line.contains("warren ") && !line.contains("systemctl")) {
            let ours = line.split(['|', ';']).find(|part| part.contains("warren ") && !part.contains("tee "));
            let words = ours.and_then(|part| part.split_once("warren ")).map(|(_, words)| words).expect("ours");
            let words: Vec<_> = words.split_whitespace().take_while(|word| !["<", ">"].contains(word)).collect();
            Cli::try_parse_from(std::iter::once("warren").chain(words))
                .unwrap_or_else(|error| panic!("{verb}: {error}"));
        }
    }
}
