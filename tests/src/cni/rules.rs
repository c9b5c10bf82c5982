//! How a fixture writes what a CNI writes: lines of `ip`, `bridge` and of the tables of iptables, into a node.

use crate::Node;
use crate::command;

/// Lines of `bridge`, which must all succeed.
#[track_caller]
pub fn bridge(node: &Node, lines: &str) {
    let argv = ["bridge", "-n", node.namespace().name(), "-batch", "-"];
    command::checked(&argv, command::feed(&argv, lines));
}

/// Lines for iptables-restore(8) or, for IPv6, ip6tables-restore(8), beside the rules that are there.
#[track_caller]
pub fn iptables(node: &Node, v6: bool, lines: &str) {
    let program = if v6 { "ip6tables-nft-restore" } else { "iptables-nft-restore" };
    let argv = node.namespace().argv(&[program, "--noflush"]);
    command::checked(&argv, command::feed(&argv, lines));
}

/// Sets of ipset(8), line by line.
#[track_caller]
pub fn ipset(node: &Node, lines: &str) {
    let argv = node.namespace().argv(&["ipset", "restore"]);
    command::checked(&argv, command::feed(&argv, lines));
}
