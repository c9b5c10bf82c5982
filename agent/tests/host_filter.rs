//! The guard's filter of traffic control in a real kernel: it comes, stays, goes, and leaves other people's alone.
#![allow(clippy::expect_used, reason = "a test fails by it")]

mod host_space;

use std::collections::BTreeSet;
use std::time::Duration;

use host_space::{Space, desired, ip, run};
use warren_agent::host::{Desired, Host, guard};

const NOBODY: Vec<String> = Vec::new();

/// One command of `tc`; panics when it fails.
fn tc(command: &str) -> String {
    run("tc", &command.split(' ').collect::<Vec<_>>())
}

/// The filters at the egress hook, in the order in which they are asked; without the heads of their lists.
fn filters() -> Vec<String> {
    let listed = tc("filter show dev eth0 egress");
    listed.lines().filter(|line| line.contains("handle") || line.contains("fh ")).map(str::to_owned).collect()
}

fn is_ours(line: &str) -> bool {
    line.contains("handle 0x776172")
}

fn guarded(host: &mut Host) -> u32 {
    host.distrust();
    host.guard(&desired()).expect("loads").writes
}

/// Somebody's, who lets everything pass.
fn add_foreign() {
    let at = "filter add dev eth0 egress pref 1 handle 7 bpf da bytecode".split(' ');
    run("tc", &at.chain(["1,6 0 0 0,"]).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs root"]
fn the_filter_that_somebody_removed_or_changed_is_put_back_and_nothing_is_written_otherwise() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.guard(&desired()).expect("loads");
        assert_eq!(host.gaps(), NOBODY);
        assert_eq!(guarded(&mut host), 0);
        let before = filters();
        assert!(matches!(&before[..], [only] if is_ours(only) && only.contains("direct-action")), "{before:?}");
        for sabotage in ["filter del dev eth0 egress", "filter del dev eth0 egress pref 1", "qdisc del dev eth0 clsact"]
        {
            tc(sabotage);
            assert_eq!(guarded(&mut host), 1, "{sabotage}");
            assert_eq!((filters(), guarded(&mut host)), (before.clone(), 0), "{sabotage}");
        }
        ip("link del eth0");
        ip("link add eth0 type veth peer name outside");
        assert!(guarded(&mut host) >= 1, "a new device of the old name has no hook");
        assert_eq!(filters(), before);
    });
}

#[test]
#[ignore = "needs root"]
fn whoever_steps_in_front_of_ours_stands_behind_it_again() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.guard(&desired()).expect("loads");
        add_foreign();
        assert!(!is_ours(&filters()[0]), "the newest of a priority is asked first: {:?}", filters());
        assert_eq!((guarded(&mut host), guarded(&mut host)), (1, 0));
        let listed = filters();
        assert!(matches!(&listed[..], [first, second] if is_ours(first) && !is_ours(second)), "{listed:?}");
        assert_eq!(host.gaps(), NOBODY);
    });
}

#[test]
#[ignore = "needs root"]
fn a_filter_of_another_kind_before_ours_is_named_and_left_alone() {
    Space::enter(|space| async move {
        tc("qdisc add dev eth0 clsact");
        tc("filter add dev eth0 egress pref 1 protocol ip u32 match ip dst 198.51.100.1/32 classid 1:1");
        let before = tc("filter show dev eth0 egress");
        let mut host = space.host();
        host.guard(&desired()).expect("loads");
        assert!(filters().iter().any(|line| is_ours(line) && line.contains("pref 2")), "{:?}", filters());
        let gap = host.gaps().concat();
        assert!(gap.contains("eth0") && gap.contains("u32") && gap.contains("pref 1"), "{gap}");
        assert_eq!(guarded(&mut host), 0, "there is nothing better to be had");
        space.host().cleanup("warren0", 51840).await.expect("cleans up");
        assert_eq!(tc("filter show dev eth0 egress"), before);
        assert!(tc("qdisc show dev eth0").contains("clsact"), "it is not ours");
    });
}

#[test]
#[ignore = "needs root"]
fn cleanup_takes_the_qdisc_only_when_it_is_ours_and_nobody_else_uses_it() {
    Space::enter(|space| async move {
        let hooked = || tc("qdisc show dev eth0").contains("clsact");
        let mut host = space.host();
        host.guard(&desired()).expect("loads");
        tc("filter del dev eth0 egress");
        assert_eq!(guarded(&mut host), 1);
        let removed = space.host().cleanup("warren0", 51840).await.expect("cleans up");
        assert!(
            removed.contains(&"filter on eth0".to_owned()) && removed.contains(&"clsact on eth0".to_owned()),
            "{removed:?}"
        );
        assert!(!hooked(), "it was ours");

        host = space.host();
        host.guard(&desired()).expect("loads");
        tc("filter add dev eth0 ingress pref 9 protocol ip u32 match ip dst 198.51.100.1/32 classid 1:1");
        space.host().cleanup("warren0", 51840).await.expect("cleans up");
        assert!(hooked() && filters().is_empty(), "somebody uses it");

        tc("qdisc del dev eth0 clsact");
        tc("qdisc add dev eth0 clsact");
        host = space.host();
        host.guard(&desired()).expect("loads");
        assert!(is_ours(&filters()[0]));
        space.host().cleanup("warren0", 51840).await.expect("cleans up");
        assert!(hooked() && filters().is_empty(), "it was there before");
    });
}

#[test]
#[ignore = "needs root"]
fn a_qdisc_in_the_place_of_ours_is_named_and_the_rest_of_the_guard_stands() {
    Space::enter(|space| async move {
        tc("qdisc add dev eth0 ingress");
        let mut host = space.host();
        assert_eq!(host.guard(&desired()).expect("loads").writes, 1);
        let gap = host.gaps().concat();
        assert!(gap.contains("eth0: a qdisc of kind ingress") && gap.contains("clsact"), "{gap}");
        assert!(host.guard_counters().await.active);
        // The kernel would take a filter for the other hook there.
        assert_eq!(tc("filter show dev eth0 ingress"), "");
        tc("qdisc del dev eth0 ingress");
        assert_eq!(host.guard(&desired()).expect("loads").writes, 1, "what could not be written is tried again");
        assert_eq!(host.gaps(), NOBODY);
    });
}

#[test]
#[ignore = "needs root"]
fn a_device_that_is_no_longer_underlay_loses_its_filter() {
    Space::enter(|space| async move {
        space.host().guard(&desired()).expect("loads");
        let elsewhere = Desired { underlay_devices: BTreeSet::from(["cni0".into()]), ..desired() };
        // As after a restart with another configuration.
        space.host().guard(&elsewhere).expect("loads");
        assert!(!tc("qdisc show dev eth0").contains("clsact"));
        assert!(is_ours(&tc("filter show dev cni0 egress")));
    });
}

#[test]
#[ignore = "needs root"]
fn the_saved_guard_brings_the_filter_back_to_the_devices_that_are_there() {
    Space::enter(|space| async move {
        space.host().guard(&desired()).expect("loads");
        let before = filters();
        tc("qdisc del dev eth0 clsact");
        assert!(guard::load_saved(space.state.path()).expect("loads"));
        assert_eq!(filters(), before);
        ip("link del eth0");
        assert!(guard::load_saved(space.state.path()).expect("loads without the device"));
    });
}

#[test]
#[ignore = "needs root"]
fn the_kernel_takes_a_long_program_as_it_is() {
    Space::enter(|space| async move {
        let scattered = |seed: u32| (1..960_u32).map(move |i| i.wrapping_mul(seed) & 0x7fff_ffff);
        let pods = scattered(0x9e37_79b1).map(|bits| format!("{}/32", std::net::Ipv4Addr::from_bits(bits)));
        let wanted = Desired { networks: pods.map(|net| net.parse().expect("a prefix")).collect(), ..desired() };
        let mut host = space.host();
        host.guard(&wanted).expect("loads");
        assert_eq!(host.gaps(), NOBODY);
        host.distrust();
        assert_eq!(host.guard(&wanted).expect("is loaded").writes, 0, "what the kernel lists is what it was given");
        assert!(is_ours(&filters()[0]), "and others can list it too");
        assert_eq!(guarded(&mut host), 2, "another one takes its place");
        host.guard(&wanted).expect("loads");
        space.host().cleanup("warren0", 51840).await.expect("cleans up");
        assert!(!tc("qdisc show dev eth0").contains("clsact"));
    });
}

#[test]
#[ignore = "needs root"]
fn every_change_at_the_hook_is_heard_of_within_a_second_and_nothing_else() {
    Space::enter(|space| async move {
        let mut host = space.host();
        host.apply(&desired()).await.expect("applies");
        let mut changes = host.monitor();
        while tokio::time::timeout(Duration::from_millis(100), changes.recv()).await.is_err() {
            tc("qdisc add dev cni0 clsact");
            tc("qdisc del dev cni0 clsact");
        }
        for sabotage in ["filter del dev eth0 egress", "qdisc del dev eth0 clsact"] {
            while tokio::time::timeout(Duration::from_millis(500), changes.recv()).await.is_ok() {}
            tc(sabotage);
            let heard = tokio::time::timeout(Duration::from_secs(1), changes.recv()).await;
            assert_eq!(heard.expect("within a second"), Some(()), "{sabotage}");
            assert!(host.apply(&desired()).await.expect("repairs").writes > 0, "{sabotage}");
            assert_eq!(host.apply(&desired()).await.expect("is repaired").writes, 0, "{sabotage}");
        }
        assert_eq!(host.repairs(), 2);
        // What else happens to the devices meanwhile, as IPv6's own business, is heard too; it does not come each time.
        let mut heard = true;
        for preference in 9..14 {
            while tokio::time::timeout(Duration::from_millis(500), changes.recv()).await.is_ok() {}
            tc(&format!(
                "filter add dev eth0 ingress pref {preference} protocol ip u32 match ip dst 198.51.100.1/32 classid 1:1"
            ));
            heard &= tokio::time::timeout(Duration::from_millis(500), changes.recv()).await.is_ok();
        }
        assert!(!heard, "somebody else's work at ingress is no matter of ours");
    });
}
