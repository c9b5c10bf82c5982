//! Everything of a host's network that an agent could have changed, as text to be compared.

use crate::namespace::Namespace;

/// Links, addresses, rules, routes, nftables, qdiscs and kernel parameters of a namespace, without what changes by itself.
pub fn dump(namespace: &Namespace) -> String {
    let commands: [&[&str]; 9] = [
        &["ip", "-o", "link", "show"],
        &["ip", "-o", "addr", "show"],
        &["ip", "-4", "rule", "show"],
        &["ip", "-6", "rule", "show"],
        &["ip", "-4", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["nft", "-s", "list", "ruleset"],
        &["tc", "qdisc", "show"],
        &["sysctl", "-a", "--pattern", r"net\.ipv[46]\.(conf|ip_forward|fib_)|net\.ipv4\.conf|src_valid_mark"],
    ];
    let one = |argv: &[&str]| format!("# {}\n{}", argv.join(" "), settled(&namespace.run(argv)));
    commands.iter().map(|argv| one(argv)).collect()
}

/// Drops the lifetimes that count down, and what the kernel leaves of neighbours.
fn settled(text: &str) -> String {
    let volatile = |word: &&str| !word.ends_with("sec");
    let lines = text.lines().filter(|line| !line.contains("stable_secret"));
    lines.map(|line| line.split(' ').filter(volatile).collect::<Vec<_>>().join(" ") + "\n").collect()
}
