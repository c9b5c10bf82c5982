//! An agent and a stock WireGuard peer (wireguard-go, boringtun-cli), which is a static peer of the agent.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pod
//!        agent         sniffer     wireguard-go or boringtun-cli
//! ```

use std::net::IpAddr;

use warren_crypto::PrivateKey;
use warren_tests::lab::{underlay_v4, underlay_v6};
use warren_tests::ping::answered;
use warren_tests::secret::write_secret;
use warren_tests::stock::{Kind, Stock, section};
use warren_tests::stream::transfer;
use warren_tests::{
    Agent, Family, Lab, Node, Plan, Pod, Settings, Sniffer, assert_seen_without_warren, between, datagram, eventually,
    holds_for, ping,
};

const KINDS: [Kind; 2] = [Kind::Go, Kind::Boringtun];

/// Who knows where the other listens, and so begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Warren,
    Stock,
    Both,
}

/// A Warren node and a stock peer, with a Pod behind each.
struct Pair {
    stock: Stock,
    agent: Agent,
    pods: [Pod; 2],
    nodes: [Node; 2],
    sniffer: Sniffer,
    lab: Lab,
}

/// `warren` goes to the agent's section of the peer, `wg` to the stock peer's.
fn pair_with(kind: Kind, plan: Plan, begins: Begins, warren: impl Fn(&mut Settings), wg: &[&str]) -> Pair {
    pair_in(Lab::with(plan), kind, begins, warren, wg)
}

fn pair_in(lab: Lab, kind: Kind, begins: Begins, warren: impl Fn(&mut Settings), wg: &[&str]) -> Pair {
    let sniffer = lab.sniff();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let [one, two] = &nodes;
    let stock = Stock::start(kind, two);
    stock.peer(two, one, (begins != Begins::Warren).then(|| one.address()), wg);
    let mut peer = section(two, (begins != Begins::Stock).then(|| two.address()));
    warren(&mut peer);
    let mut settings = one.settings();
    let agent = one.start(settings.add_peer(peer));
    agent.ready();
    Pair { stock, agent, pods, nodes, sniffer, lab }
}

fn pair(kind: Kind, begins: Begins) -> Pair {
    pair_with(kind, Plan::default(), begins, |_| {}, &[])
}

impl Pair {
    /// Fails the test if anything was in clear, or unless the same Pods are seen in clear without either tunnel.
    #[track_caller]
    fn finish(self) {
        self.sniffer.assert_encrypted();
        let Self { lab: _lab, nodes: _nodes, sniffer, pods, agent, stock } = self;
        drop(stock);
        assert_seen_without_warren(&sniffer, &mut [agent], between(&pods));
    }
}

/// Each installed implementation.
fn kinds() -> impl Iterator<Item = Kind> {
    KINDS.into_iter().filter(|kind| kind.installed())
}

#[test]
fn a_stock_peer_and_an_agent_talk_whoever_begins() {
    for kind in kinds() {
        for (begins, from, to) in [(Begins::Warren, 0, 1), (Begins::Stock, 1, 0)] {
            let pair = pair(kind, begins);
            let Pair { pods, .. } = &pair;
            assert!(ping(pods[from].namespace(), pods[to].address()), "{kind:?}, {begins:?} begins");
            assert!(ping(pods[to].namespace(), pods[from].address()), "{kind:?}, {begins:?} began");
            pair.finish();
        }
    }
}

#[test]
fn a_stock_peer_works_over_and_under_both_versions_of_ip() {
    for kind in kinds() {
        for (underlay, overlay) in [(Family::V4, Family::Dual), (Family::V6, Family::Dual)] {
            let plan = Plan { underlay, overlay, ..Plan::default() };
            let pair = pair_with(kind, plan, Begins::Both, |_| {}, &[]);
            let Pair { pods, .. } = &pair;
            for address in pods[1].addresses() {
                assert!(ping(pods[0].namespace(), *address), "{kind:?} {underlay:?} {address}");
            }
            pair.finish();
        }
    }
}

#[test]
fn a_large_transfer_with_a_stock_peer_arrives_whole_in_both_directions() {
    for kind in kinds() {
        let pair = pair(kind, Begins::Both);
        let Pair { pods: [one, two], sniffer, .. } = &pair;
        sniffer.headers_only();
        transfer(one.namespace(), two.namespace(), two.address(), 1000);
        transfer(two.namespace(), one.namespace(), one.address(), 1000);
        pair.finish();
    }
}

#[test]
fn a_preshared_key_must_be_the_same_at_both_ends() {
    for kind in kinds() {
        for same in [true, false] {
            let lab = Lab::new();
            let keys = [PrivateKey::generate(), PrivateKey::generate()];
            let ours = secret(&lab, "ours", &keys[0]);
            let theirs = secret(&lab, "theirs", &keys[usize::from(!same)]);
            let set = |peer: &mut Settings| {
                peer.text("", "preshared_key_file", &ours);
            };
            let Pair { pods, .. } = &pair_in(lab, kind, Begins::Both, set, &["preshared-key", &theirs]);
            assert_eq!(ping(pods[0].namespace(), pods[1].address()), same, "{kind:?}, the same key: {same}");
        }
    }
}

#[test]
fn keepalives_open_a_session_without_any_traffic() {
    for kind in kinds() {
        let keepalive = |peer: &mut Settings| {
            peer.set("", "persistent_keepalive", 1);
        };
        let Pair { agent, sniffer, .. } = &pair_with(kind, Plan::default(), Begins::Warren, keepalive, &[]);
        let age = || agent.now().peer("node2").and_then(|peer| peer["handshake_age"].as_u64());
        eventually(10, &format!("a handshake with {kind:?}"), age);
        // Each datagram is seen twice, on the links to both nodes.
        let seen = sniffer.tunnel();
        eventually(10, "four keepalives", || (sniffer.tunnel() >= seen + 8).then_some(()));
        assert!(age() >= Some(2), "{kind:?}: these were handshakes, not keepalives");
    }
}

#[test]
fn an_agent_follows_a_stock_peer_that_moves() {
    // boringtun-cli sends from a connected socket, which keeps the address that vanished: it cannot move.
    for kind in kinds().filter(|kind| *kind == Kind::Go) {
        let pair = pair(kind, Begins::Both);
        let Pair { stock, agent, pods, nodes, lab, .. } = &pair;
        assert!(ping(pods[0].namespace(), pods[1].address()));
        move_node(lab, &nodes[1], 22);
        // wireguard-go keeps to its source address when the kernel says ENETUNREACH; an endpoint makes it forget.
        if kind == Kind::Go {
            stock.peer(&nodes[1], &nodes[0], Some(nodes[0].address()), &[]);
        }
        // Only the one that moved can tell where it is now.
        eventually(15, &format!("{kind:?} that moved is heard"), || {
            ping(pods[1].namespace(), pods[0].address()).then_some(())
        });
        assert!(ping(pods[0].namespace(), pods[1].address()), "{kind:?}: the agent still sends to the old address");
        let status = agent.now();
        let endpoint = status.peer("node2").and_then(|peer| peer["endpoint"].as_str()).unwrap_or_default();
        assert!(endpoint.starts_with("10.77.0.22:"), "{endpoint}");
        pair.finish();
    }
}

#[test]
fn an_agent_whose_own_address_vanishes_goes_on_from_another() {
    for kind in kinds() {
        let pair = pair(kind, Begins::Both);
        let Pair { pods, nodes, lab, .. } = &pair;
        assert!(ping(pods[0].namespace(), pods[1].address()));
        move_node(lab, &nodes[0], 21);
        eventually(15, "traffic from the new address", || {
            (answered(pods[0].namespace(), pods[1].address(), 1, &[]) == 1).then_some(())
        });
        assert!(ping(pods[1].namespace(), pods[0].address()), "{kind:?} did not follow the agent");
        pair.finish();
    }
}

#[test]
fn traffic_goes_on_when_a_stock_peer_forgets_its_session_three_times() {
    for kind in kinds() {
        let pair = pair(kind, Begins::Both);
        let Pair { stock, pods, nodes, .. } = &pair;
        for round in 0..3 {
            assert!(ping(pods[0].namespace(), pods[1].address()), "{kind:?}, round {round}");
            stock.set(&nodes[1], &["peer", &nodes[0].public_key().to_string(), "remove"]);
            assert_eq!(answered(pods[0].namespace(), pods[1].address(), 1, &[]), 0);
            stock.peer(&nodes[1], &nodes[0], Some(nodes[0].address()), &[]);
            // The agent still believes in its session: a new one begins from the other side.
            eventually(20, "a new session", || {
                (answered(pods[1].namespace(), pods[0].address(), 1, &[]) == 1).then_some(())
            });
        }
        pair.finish();
    }
}

#[test]
fn an_agent_drops_what_a_stock_peer_sends_from_addresses_that_are_not_its_own() {
    let Pair { stock, agent, pods, nodes, .. } = &pair(Kind::Go, Begins::Both);
    assert!(ping(pods[1].namespace(), pods[0].address()));
    let stolen: IpAddr = [10, 42, 3, 10].into();
    stock.address(&nodes[1], stolen);
    let echo = datagram::Echo::start(pods[0].namespace(), pods[0].address());
    assert_eq!(datagram::send(nodes[1].namespace(), stolen, echo.address(), 10), 10);
    agent.until("the drops are counted by name", |status| status.drops("source_spoofed") >= 10);
}

/// Slow: WireGuard makes a new session every two minutes of traffic.
#[test]
#[ignore = "takes seven minutes"]
fn sessions_are_renewed_by_time_three_times_under_traffic() {
    let labs: Vec<Pair> = kinds().map(|kind| pair(kind, Begins::Both)).collect();
    for Pair { pods, .. } in &labs {
        assert!(ping(pods[0].namespace(), pods[1].address()));
    }
    let age = |pair: &Pair| {
        let shown = pair.stock.show(&pair.nodes[1], "latest-handshakes").expect("the stock peer answers");
        shown.split_whitespace().nth(1).and_then(|time| time.parse::<u64>().ok()).expect("a time")
    };
    let mut handshakes: Vec<Vec<u64>> = labs.iter().map(|pair| vec![age(pair)]).collect();
    holds_for(400, "every echo request is answered", || {
        labs.iter().zip(&mut handshakes).all(|(pair, seen)| {
            let latest = age(pair);
            if seen.last() != Some(&latest) {
                seen.push(latest);
            }
            answered(pair.pods[0].namespace(), pair.pods[1].address(), 20, &[]) == 20
        })
    });
    for (pair, seen) in labs.iter().zip(&handshakes) {
        assert!(seen.len() > 3, "only these handshakes: {seen:?}");
        pair.sniffer.assert_encrypted();
    }
}

/// Gives a node another address on the underlay and takes the first away; the fabric knows it at once.
fn move_node(lab: &Lab, node: &Node, last: u8) {
    let (old, namespace) = (node.address(), node.namespace());
    let new: IpAddr = if old.is_ipv4() { underlay_v4(last).into() } else { underlay_v6(last.into()).into() };
    let length = if old.is_ipv4() { 24 } else { 64 };
    namespace.sysctl("net/ipv4/conf/all/promote_secondaries", "1");
    namespace.ip_batch(&format!("addr add {new}/{length} dev eth0\naddr del {old}/{length} dev eth0\n"));
    namespace.ip_batch(&format!("route replace default via {}\n", lab.hub_address()));
    for cidr in node.cidrs() {
        lab.hub().ip(&format!("route replace {cidr} via {new} dev br0"));
    }
}

/// Writes a secret for its owner alone; where.
fn secret(lab: &Lab, name: &str, key: &PrivateKey) -> String {
    let path = lab.folder().join(name);
    write_secret(&path, &key.to_base64());
    path.display().to_string()
}
