//! Whole IPv6 packets of a test's own making, sent out of a device, to which a route must lead; and counters of the kernel's that see such packets.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};
use warren_overlay::packet::View;

use crate::namespace::Namespace;

/// `IPPROTO_RAW`: the header is in the packet (ipv6(7)).
const WITH_HEADER: i32 = 255;
/// Where the counters are.
const TABLE: &str = "netdev raw_packets";

/// Sends each packet by a device.
#[track_caller]
pub fn send(from: &Namespace, device: &str, packets: &[Vec<u8>]) {
    from.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(WITH_HEADER))).expect("root may");
        socket.bind_device(Some(device.as_bytes())).expect("the device is there");
        for packet in packets {
            let to = destination(packet);
            let sent = socket.send_to(packet, &SocketAddrV6::new(to, 0, 0, 0).into());
            sent.unwrap_or_else(|error| panic!("a packet to {to} does not leave by {device}: {error}"));
        }
    });
}

fn destination(packet: &[u8]) -> Ipv6Addr {
    match View::parse(packet).expect("a whole packet").destination {
        IpAddr::V6(v6) => v6,
        IpAddr::V4(v4) => panic!("to {v4}, by IPv4"),
    }
}

/// Counts what comes into a namespace by a device from now on: each of these pairs of a name and a match of nftables.
#[track_caller]
pub fn count(namespace: &Namespace, device: &str, counters: &[(&str, &str)]) {
    let declared: String = counters.iter().map(|(name, _)| format!("counter {name} {{}}\n")).collect();
    let rules: String = counters.iter().map(|(name, what)| format!("{what} counter name {name}\n")).collect();
    let chain = format!("chain came {{ type filter hook ingress device \"{device}\" priority -400;\n{rules}}}");
    namespace.nft(&format!("table {TABLE} {{\n{declared}{chain}\n}}\n"));
}

/// How many there were so far.
#[track_caller]
pub fn counted(namespace: &Namespace, name: &str) -> u64 {
    let mut argv = vec!["nft", "list", "counter"];
    argv.extend(TABLE.split(' '));
    argv.push(name);
    let said = namespace.run(&argv);
    let mut words = said.split_whitespace().skip_while(|word| *word != "packets").skip(1);
    words.next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no counter in: {said}"))
}
