//! Grace and brake in virtual time.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proptest::prelude::*;
use warren_crypto::PublicKey;
use warren_overlay::hold::Hold;
use warren_overlay::mesh::{Origin, PeerSpec};
use warren_overlay::record::NodeName;

const GRACE: Duration = Duration::from_secs(900);
const SECOND: Duration = Duration::from_secs(1);

type Peers = BTreeMap<NodeName, PeerSpec>;

fn name(n: u16) -> NodeName {
    format!("n{n}").parse().unwrap()
}

fn names(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<NodeName> {
    numbers.into_iter().map(name).collect()
}

fn peer(n: u16, origin: Origin) -> PeerSpec {
    let mut key = [7; 32];
    key[..2].copy_from_slice(&n.to_be_bytes());
    let [high, low] = n.to_be_bytes();
    PeerSpec {
        name: name(n),
        origin,
        public_key: PublicKey::from_bytes(key),
        endpoints: Vec::new(),
        addresses: [format!("172.16.{high}.{low}").parse().unwrap()].into(),
        cidrs: [format!("10.{high}.{low}.0/24").parse().unwrap()].into(),
        mtu: None,
        preshared_key: None,
        persistent_keepalive: None,
        features: BTreeSet::new(),
    }
}

fn registry(numbers: impl IntoIterator<Item = u16>) -> Peers {
    numbers.into_iter().map(|n| (name(n), peer(n, Origin::Registry))).collect()
}

#[test]
fn a_vanished_peer_with_a_living_tunnel_is_kept_for_the_grace_and_no_longer() {
    let (mut hold, start) = (Hold::new(GRACE), Instant::now());
    hold.apply(registry(0..5), &names(0..5), start);
    let kept = hold.apply(registry(1..5), &names(0..5), start + SECOND);
    assert_eq!(kept.peers, registry(0..5));
    assert_eq!(kept.vanished.keys().cloned().collect::<BTreeSet<_>>(), names([0]));
    assert!(kept.held.is_none() && kept.next_deadline.is_some_and(|(at, _)| at <= start + SECOND + GRACE));
    let last = hold.apply(registry(1..5), &names(0..5), start + GRACE);
    assert_eq!(last.peers, registry(0..5));
    let over = hold.apply(registry(1..5), &names(0..5), start + SECOND + GRACE);
    assert_eq!(over.peers, registry(1..5));
    assert!(over.vanished.is_empty());
}

#[test]
fn a_peer_that_comes_back_starts_anew() {
    let (mut hold, start) = (Hold::new(GRACE), Instant::now());
    hold.apply(registry(0..5), &names(0..5), start);
    hold.apply(registry(1..5), &names(0..5), start + SECOND);
    let back = hold.apply(registry(0..5), &names(0..5), start + 2 * SECOND);
    assert!(back.vanished.is_empty() && back.next_deadline.is_none());
    let again = hold.apply(registry(1..5), &names(0..5), start + GRACE + 2 * SECOND);
    assert_eq!(again.peers, registry(0..5), "the grace begins when the record vanished for the second time");
}

#[test]
fn most_of_the_mesh_is_held_beyond_the_grace_until_somebody_accepts() {
    let (mut hold, start) = (Hold::new(GRACE), Instant::now());
    hold.apply(registry(0..5), &names(0..5), start);
    let held = hold.apply(registry(3..5), &names(0..5), start + SECOND);
    assert_eq!(held.peers, registry(0..5));
    assert!(held.held.is_some());
    let late = hold.apply(registry(3..5), &names(0..5), start + 10 * GRACE);
    assert_eq!(late.peers, registry(0..5), "grace does not end what is held");
    hold.accept();
    let done = hold.apply(registry(3..5), &names(0..5), start + 10 * GRACE);
    assert_eq!(done.peers, registry(3..5));
    assert!(done.held.is_none() && done.vanished.is_empty() && done.next_deadline.is_none());
}

#[test]
fn most_of_the_mesh_is_held_as_well_when_it_vanishes_one_by_one() {
    let (mut hold, start) = (Hold::new(GRACE), Instant::now());
    hold.apply(registry(0..5), &names(0..5), start);
    let mut effective = Default::default();
    for gone in 1..=4 {
        effective = hold.apply(registry(gone..5), &names(0..5), start + SECOND * u32::from(gone));
    }
    assert_eq!(effective.peers, registry(0..5));
    assert!(effective.held.is_some(), "a watch may deliver one step in pieces, and leases end one by one");
    let late = hold.apply(registry(4..5), &names(0..5), start + 2 * GRACE);
    assert_eq!(late.peers, registry(0..5));
}

#[test]
fn held_peers_go_when_their_tunnels_are_dead_and_somebody_asks_in_time() {
    let (mut hold, start) = (Hold::new(GRACE), Instant::now());
    hold.apply(registry(0..5), &names(0..5), start);
    let held = hold.apply(registry(4..5), &names(0..5), start + SECOND);
    let (at, _) = held.next_deadline.expect("tunnels die without telling anybody: ask again");
    assert!(at > start + SECOND && at <= start + 60 * SECOND);
    let some = hold.apply(registry(4..5), &names([0, 4]), at);
    assert_eq!(some.peers.keys().cloned().collect::<BTreeSet<_>>(), names([0, 4]));
    assert!(some.held.is_some());
    let none = hold.apply(registry(4..5), &names([4]), at + SECOND);
    assert_eq!(none.peers, registry(4..5));
    assert!(none.held.is_none() && none.next_deadline.is_none());
}

#[test]
fn two_of_three_peers_may_go_without_a_brake() {
    let (mut hold, start) = (Hold::new(GRACE), Instant::now());
    hold.apply(registry(0..3), &names(0..3), start);
    assert!(hold.apply(registry(2..3), &names(0..3), start + SECOND).held.is_none());
}

#[test]
fn static_peers_go_at_once_however_many() {
    let (mut hold, start) = (Hold::new(GRACE), Instant::now());
    let statics: Peers = (0..5).map(|n| (name(n), peer(n, Origin::Static))).collect();
    hold.apply(statics, &names(0..5), start);
    let none = hold.apply(Peers::new(), &names(0..5), start + SECOND);
    assert!(none.peers.is_empty() && none.held.is_none());
}

#[test]
fn a_vanished_peer_yields_to_a_present_one_with_its_key_address_or_prefix() {
    type Take = fn(&mut PeerSpec, &PeerSpec);
    let takes: [Take; 5] = [
        |new, old| new.public_key = old.public_key,
        |new, old| new.addresses = old.addresses.clone(),
        |new, _| new.cidrs = ["10.0.0.0/16".parse().unwrap()].into(),
        |new, _| new.cidrs = ["10.0.0.128/25".parse().unwrap()].into(),
        |new, _| new.cidrs = ["172.16.0.0/24".parse().unwrap()].into(),
    ];
    for take in takes {
        let (mut hold, start) = (Hold::new(GRACE), Instant::now());
        hold.apply(registry([0, 1000, 1001]), &names([0, 1000, 1001]), start);
        let mut newcomer = peer(2000, Origin::Registry);
        take(&mut newcomer, &peer(0, Origin::Registry));
        let mut desired = registry([1000, 1001]);
        desired.insert(name(2000), newcomer);
        let effective = hold.apply(desired.clone(), &names([0, 1000, 1001]), start + SECOND);
        assert_eq!(effective.peers, desired);
    }
}

#[test]
fn three_thousand_of_five_thousand_peers_are_compared_in_no_time() {
    let (mut hold, start) = (Hold::new(GRACE), Instant::now());
    hold.apply(registry(0..5000), &names(0..5000), start);
    let before = Instant::now();
    let effective = hold.apply(registry(3000..5000), &names(0..5000), start + SECOND);
    assert_eq!(effective.peers.len(), 5000);
    assert!(before.elapsed() < SECOND, "{:?}", before.elapsed());
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (0u32..8, 24u8..=29).prop_map(|(bits, length)| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 | bits << 5);
        IpNet::new_assert(address.into(), length).trunc()
    })
}

proptest! {
    #[test]
    fn a_vanished_peer_is_kept_exactly_when_nobody_present_overlaps_it(
        old in prop::collection::btree_set(prefix(), 1..3),
        new in prop::collection::btree_set(prefix(), 0..4),
    ) {
        let (mut hold, start) = (Hold::new(GRACE), Instant::now());
        let with = |n, cidrs: &BTreeSet<IpNet>| PeerSpec { cidrs: cidrs.clone(), ..peer(n, Origin::Registry) };
        hold.apply([(name(1), with(1, &old))].into(), &names([1]), start);
        let effective = hold.apply([(name(2), with(2, &new))].into(), &names([1]), start + SECOND);
        let overlap = old.iter().any(|a| new.iter().any(|b| a.contains(b) || b.contains(a)));
        prop_assert_eq!(effective.peers.contains_key(&name(1)), !overlap);
    }
}
