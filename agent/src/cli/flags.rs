//! Flags that win over environment and file, as settings of the configuration.

use clap::{Args, Command};

use super::CONFIGURATION;
use crate::config::{Fault, Origin, Setting};

/// Those of every verb that reads the configuration.
#[derive(Debug, Default, Args)]
pub(super) struct Set {
    /// Sets a key, over environment and file: `--set overlay.mode=nodes`; may be given several times.
    #[arg(long, global = true, help_heading = CONFIGURATION, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Short ways to say what is said most often.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = CONFIGURATION)]
pub(super) struct Short {
    /// Node name (`node.name`).
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// UDP port (`underlay.port`).
    #[arg(long)]
    port: Option<u16>,
    /// Data-path threads, 0 for one per core (`workers.count`).
    #[arg(long, value_name = "COUNT")]
    workers: Option<u16>,
    /// Log level (`log.level`): error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

/// Verbs that read no configuration.
const WITHOUT: [&str; 6] = ["keygen", "pubkey", "import", "version", "crds", "demo"];

/// Verbs that read no configuration do not show its flags. They take them still, as any verb does.
pub(super) fn hide_where_ignored(command: Command) -> Command {
    let global = command.get_arguments().filter(|flag| flag.is_global_set());
    let hidden: Vec<_> = global.map(|flag| flag.clone().hide(true)).collect();
    command.mut_subcommands(|verb| if WITHOUT.contains(&verb.get_name()) { verb.args(&hidden) } else { verb })
}

/// All of them; where one key is set twice, the later wins, and a short one over `--set`.
pub(super) fn settings(set: &Set, short: Option<&Short>) -> Result<Vec<Setting>, Vec<Fault>> {
    let read = set.set.iter().map(|text| Setting::from_flag(text));
    let (settings, faults): (Vec<_>, Vec<_>) =
        read.chain(short.into_iter().flat_map(of_short)).partition(Result::is_ok);
    if faults.is_empty() {
        return Ok(settings.into_iter().flatten().collect());
    }
    Err(faults.into_iter().filter_map(Result::err).collect())
}

fn of_short(short: &Short) -> impl Iterator<Item = Result<Setting, Fault>> {
    let number = |number: Option<u16>| number.map(|number| number.to_string());
    let given = [
        ("node.name", "--node-name", short.node_name.clone()),
        ("underlay.port", "--port", number(short.port)),
        ("workers.count", "--workers", number(short.workers)),
        ("log.level", "--log-level", short.log_level.clone()),
    ];
    given.into_iter().filter_map(|(key, flag, text)| Some(Setting::new(key, &text?, Origin::Flag(flag))))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn help(words: &[&str]) -> String {
        let mut command = hide_where_ignored(Cli::command());
        command.build();
        let verb = words.iter().fold(&mut command, |above, word| above.find_subcommand_mut(word).expect("a verb"));
        verb.render_long_help().to_string()
    }

    #[test]
    fn the_flags_of_the_configuration_stand_where_it_is_read_and_nowhere_else() {
        let read: [&[&str]; 5] = [&["up"], &["status"], &["check-config"], &["cluster", "init"], &["mesh", "accept"]];
        for words in read {
            let help = help(words);
            assert!(help.contains("--config <FILE>") && help.contains("--set <"), "{words:?}: {help}");
        }
        for words in [&["keygen"][..], &["pubkey"], &["import", "wg-quick"], &["version"], &["demo"]] {
            let help = help(words);
            assert!(!help.contains("--config <FILE>") && !help.contains("--set"), "{words:?}: {help}");
        }
    }

    #[test]
    fn a_verb_that_ignores_the_flags_takes_them_and_another_gets_them() {
        let parsed = |line: &str| hide_where_ignored(Cli::command()).try_get_matches_from(line.split(' ')).expect(line);
        for line in
            ["warren keygen --config a", "warren --config a keygen", "warren import wg-quick b --output c --config a"]
        {
            parsed(line);
        }
        for line in ["warren --config a --set b=c status", "warren status --config a --set b=c"] {
            let parsed = parsed(line);
            assert_eq!(parsed.get_one::<std::path::PathBuf>("config").map(|path| path.as_os_str()), Some("a".as_ref()));
            assert_eq!(parsed.get_many::<String>("set").map(|set| set.count()), Some(1), "{line}");
        }
    }
}
