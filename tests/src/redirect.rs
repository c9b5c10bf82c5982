//! A CNI that routes by a program (eBPF host routing): at the ingress hook of traffic control on a Pod's link, what is for
//! Pods of another node is handed to the underlay's device by the kernel's helper `bpf_redirect_neigh`, which finds the
//! link-layer address by itself. No hook of netfilter sees such a packet.

mod elf;
mod program;

use ipnet::IpNet;

use crate::Node;
pub use program::NextHop;

/// The underlay's device.
const UNDERLAY: &str = "eth0";

/// Hands what comes by one of the node's links for a prefix to the underlay's device, by this next hop from now on.
#[track_caller]
pub fn route_by_program(node: &Node, link: &str, to: IpNet, next: NextHop) {
    let (protocol, pref) = if to.addr().is_ipv4() { ("ip", "1") } else { ("ipv6", "2") };
    let index = node.namespace().run(&["cat", &format!("/sys/class/net/{UNDERLAY}/ifindex")]);
    let program = program::redirect(index.trim().parse().expect("a device's number"), to, next);
    let file = node.folder().join(format!("redirect-{protocol}.o"));
    std::fs::write(&file, elf::object(&program)).expect("the node's folder is ours");
    node.namespace().run(&["tc", "qdisc", "replace", "dev", link, "clsact"]);
    let filter = format!("dev {link} ingress protocol {protocol} pref {pref} handle 1 bpf direct-action");
    let object = ["obj", &file.display().to_string(), "sec", elf::SECTION];
    let argv: Vec<_> = ["tc", "filter", "replace"].into_iter().chain(filter.split(' ')).chain(object).collect();
    node.namespace().run(&argv);
}
