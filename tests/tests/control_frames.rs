//! Nobody but an agent makes a control frame that an agent believes, and no Pod ever sees one.
//!
//! ```text
//! pod ─┐
//!      ├─► warren0 of node1 ═══ hub ═══ node2: an agent
//! host ┘
//!                agent of node1 ═══ hub ═══ node2: wireguard-go ◄── its host
//! ```

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use warren_crypto::PrivateKey;
use warren_crypto::association::Suite;
use warren_crypto::exchange::{Action, Chance, Exchange, Terms};
use warren_overlay::frame::{self, DESTINATION, PACKET_MAX, SOURCE};
use warren_tests::namespace::Namespace;
use warren_tests::node::PORT;
use warren_tests::stock::{Kind, Stock, section};
use warren_tests::{Agent, Family, Lab, Node, Plan, Pod, eventually, ping, raw, static_mesh};

/// How often each packet is sent: more than a kernel sends of its own to addresses of a link.
const TIMES: usize = 10;
/// An Answer is longer, and its first part as well; what an agent says unasked is shorter.
const LONG: &str = "meta length > 500";

fn lab() -> Lab {
    Lab::with(Plan { underlay: Family::Dual, overlay: Family::Dual, ..Plan::default() })
}

/// What an attacker draws needs no luck.
struct Drawn(u32);

impl Chance for Drawn {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn index(&mut self, _: u16) -> u32 {
        self.0 += 1;
        self.0
    }
}

/// An exchange as the agent of `own` would have it with `peer`, which holds nothing but its key.
fn exchange(own: &Node, peer: &Node) -> Exchange {
    let key = fs::read_to_string(own.key_file()).expect("the node has a key");
    Exchange::new(Terms {
        own: key.trim().parse::<PrivateKey>().expect("a key"),
        peer: peer.public_key(),
        preshared_key: None,
        boot: u64::MAX,
        workers: 1,
        suites: Suite::ALL.to_vec(),
    })
}

fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = [0; PACKET_MAX];
    (0..).map_while(|part| frame::write(1, bytes, part, &mut out).map(|len| out[..len].to_vec())).collect()
}

/// A frame's packet, and what is almost one: other ends, another port, a Pod's address at either end.
fn all_near(bytes: &[u8], pods: [&Pod; 2]) -> Vec<Vec<u8>> {
    let [from, to] = pods.map(v6);
    let ends = [(SOURCE, DESTINATION), (DESTINATION, SOURCE), (SOURCE, to), (DESTINATION, to), (from, DESTINATION)];
    let with = |packet: &Vec<u8>, (source, destination): (Ipv6Addr, Ipv6Addr)| {
        let mut packet = packet.clone();
        packet[8..24].copy_from_slice(&source.octets());
        packet[24..40].copy_from_slice(&destination.octets());
        packet
    };
    let exact = packets(bytes);
    let mut near: Vec<_> = exact.iter().flat_map(|packet| ends.map(|ends| with(packet, ends))).collect();
    let mut other_port = exact[0].clone();
    other_port[41] ^= 1;
    near.push(other_port);
    std::iter::repeat_n(near, TIMES).flatten().collect()
}

fn v6(pod: &Pod) -> Ipv6Addr {
    let found = pod.addresses().iter().find_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None });
    found.expect("Pods speak both")
}

fn reserved() -> String {
    format!("{{ {SOURCE}, {DESTINATION} }}")
}

/// Counts what the agent of the node hands to its kernel: with our addresses, and at all.
fn watch(node: &Node) {
    let (from, to) = (format!("ip6 saddr {}", reserved()), format!("ip6 daddr {}", reserved()));
    raw::count(node.namespace(), "warren0", &[("frames_from", &from), ("frames_to", &to), ("everything", "")]);
}

/// Nothing with our addresses was handed to the node's kernel by the device that carries the Pods' packets.
#[track_caller]
fn assert_unseen(node: &Node) {
    let [from, to, everything] =
        ["frames_from", "frames_to", "everything"].map(|name| raw::counted(node.namespace(), name));
    assert!(everything > 0, "the counter on {} sleeps", node.name);
    assert_eq!((from, to), (0, 0), "control frames left the tunnel of {}", node.name);
}

/// `send` sends this many; the agent drops each by name.
#[track_caller]
fn dropped(agent: &Agent, count: usize, who: &str, send: impl FnOnce()) {
    let before = agent.now().drops("reserved_address");
    send();
    agent.until(&format!("what {who} sent is counted"), |status| {
        status.drops("reserved_address") >= before + count as u64
    });
}

fn age(agent: &Agent, peer: &str) -> Option<u64> {
    agent.now().peer(peer)?["association"]["age"].as_u64()
}

#[test]
fn no_pod_and_no_host_sends_a_control_frame_by_its_node() {
    let lab = lab();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh(&nodes);
    let reached = || pods[1].addresses().iter().all(|to| ping(pods[0].namespace(), *to));
    for (agent, other) in agents.iter().zip(["node2", "node1"]) {
        agent.until("they are associated", |status| reached() && status.suite(other).is_some());
    }
    let aged = eventually(10, "an age that shows", || age(&agents[1], "node1").filter(|age| *age > 0));
    let [one, two] = &nodes;
    watch(two);
    // Of all frames this one needs no answer and no secret: node2 would give up its associations with node1.
    let sent = all_near(&exchange(one, two).hello(), [&pods[0], &pods[1]]);
    let heard = agents[1].now().drops("reserved_address");
    // By the routes of a node no link-local packet gets farther than its link.
    raw::count(one.namespace(), "pod1", &[("from_pod", &format!("udp dport {}", frame::PORT))]);
    let of_pod = || raw::send(pods[0].namespace(), "eth0", &sent);
    neighbour(one, "pod1", pods[0].namespace(), "eth0");
    of_pod();
    eventually(5, "the node gets what its Pod sends", || {
        (raw::counted(one.namespace(), "from_pod") >= sent.len() as u64).then_some(())
    });
    // A CNI's program may hand it to the device all the same. The host's own is refused on that device by the guard,
    // since it leaves by the agent's port: it comes by a program, too.
    redirect(one, "pod1", "ingress");
    dropped(&agents[0], sent.len(), "a Pod", of_pod);
    one.namespace().ip("link add spare0 type veth peer name spare1");
    one.namespace().ip_batch("link set spare0 up\nlink set spare1 up\n");
    neighbour(one, "spare1", one.namespace(), "spare0");
    route(one, "spare0");
    redirect(one, "spare0", "egress");
    let ours = [SOURCE.octets(), DESTINATION.octets()];
    let of_host: Vec<_> = sent.iter().filter(|packet| ours.iter().any(|to| packet[24..40] == *to)).cloned().collect();
    dropped(&agents[0], of_host.len(), "the host", || raw::send(one.namespace(), "spare0", &of_host));
    one.namespace().run(&["tc", "qdisc", "del", "dev", "pod1", "clsact"]);
    assert!(reached());
    assert_unseen(two);
    let status = agents[1].now();
    assert!(status.drops("reserved_address") < heard + TIMES as u64, "node1 sent them on");
    assert!(status.suite("node1").is_some() && age(&agents[1], "node1") >= Some(aged), "node2 believed node1's host");
}

/// Our addresses are taken for neighbours behind the link of a node.
fn neighbour(node: &Node, link: &str, from: &Namespace, device: &str) {
    let hardware = node.namespace().run(&["cat", &format!("/sys/class/net/{link}/address")]);
    for address in [SOURCE, DESTINATION] {
        from.ip(&format!("neigh replace {address} lladdr {} dev {device} nud permanent", hardware.trim()));
    }
}

/// Hands every IPv6 packet of this hook to the tunnel's device.
fn redirect(node: &Node, link: &str, hook: &str) {
    let tc = |line: &str| node.namespace().run(&["tc"].into_iter().chain(line.split(' ')).collect::<Vec<_>>());
    tc(&format!("qdisc add dev {link} clsact"));
    let to = "action mirred egress redirect dev warren0";
    tc(&format!("filter add dev {link} {hook} protocol ipv6 u32 match u32 0 0 {to}"));
}

/// What the host sends to our addresses leaves by this device.
fn route(node: &Node, device: &str) {
    for address in [SOURCE, DESTINATION] {
        node.namespace().ip(&format!("route replace {address} dev {device}"));
    }
}

#[test]
fn an_agent_takes_no_control_frame_from_a_stock_peer() {
    if !Kind::Go.installed() {
        return;
    }
    // The second time it is told that the peer is an agent: then the same bytes are an exchange that it answers.
    for agent_is_told in [false, true] {
        let lab = lab();
        let mut nodes: [Node; 2] = lab.nodes();
        while nodes[1].public_key().as_bytes() > nodes[0].public_key().as_bytes() {
            nodes[1].rekey();
        }
        let pods = nodes.each_ref().map(Node::pod);
        let [one, two] = &nodes;
        let stock = hostile(one, two);
        let mut peer = section(two, Some(two.address()));
        peer.set("", "associations", agent_is_told);
        let agent = one.start(one.settings().add_peer(peer));
        agent.ready();
        watch(one);
        let reached = || pods[0].addresses().iter().all(|to| ping(pods[1].namespace(), *to));
        assert!(reached());
        let mut end = exchange(two, one);
        let Some(Action::Send(offer)) = end.want(Duration::from_secs(1), &mut Drawn(0)) else { panic!("no Offer") };
        if agent_is_told {
            eventually(10, "the Offer is answered", || {
                raw::send(two.namespace(), &stock.device, &packets(&offer));
                (raw::counted(two.namespace(), "answers") > 0).then_some(())
            });
        } else {
            let sent = all_near(&offer, [&pods[1], &pods[0]]);
            dropped(&agent, sent.len(), "wireguard-go", || raw::send(two.namespace(), &stock.device, &sent));
            assert_eq!(agent.now().suite("node2"), None);
        }
        assert!(reached());
        assert_unseen(one);
        let answers = raw::counted(two.namespace(), "answers");
        assert_eq!(answers > 0, agent_is_told, "{answers} packets of an Answer");
    }
}

/// wireguard-go on `own`, whose host lets its device carry our addresses both ways.
fn hostile(agent: &Node, own: &Node) -> Stock {
    let stock = Stock::start(Kind::Go, own);
    stock.peer(own, agent, None, &[]);
    let mut allowed: Vec<String> = agent.cidrs().iter().map(ToString::to_string).collect();
    allowed.extend(agent.addresses().iter().map(ToString::to_string));
    allowed.extend([SOURCE, DESTINATION].map(|address| address.to_string()));
    let endpoint = format!("{}:{PORT}", agent.address());
    let key = agent.public_key().to_string();
    stock.set(own, &["peer", &key, "allowed-ips", &allowed.join(","), "endpoint", &endpoint]);
    route(own, &stock.device);
    let answers = format!("ip6 saddr {SOURCE} {LONG}");
    raw::count(own.namespace(), &stock.device, &[("answers", &answers)]);
    stock
}
