//! The tunnel's device, taken away under a running agent.

use warren_tests::stream::transfer;
use warren_tests::{
    Family, Flood, Lab, Node, Plan, assert_seen_without_warren, between, eventually, ping, static_mesh_with,
};

#[test]
fn a_deleted_device_is_made_anew_and_meanwhile_nothing_leaves_in_clear() {
    for workers in [1_i64, 3] {
        let lab = Lab::with(Plan { overlay: Family::Dual, ..Plan::default() });
        let sniffer = lab.sniff();
        let nodes: [Node; 2] = lab.nodes();
        let pods = nodes.each_ref().map(Node::pod);
        let [one, two] = &pods;
        let mut agents = static_mesh_with(&nodes, |_, settings| {
            settings.set("workers", "count", workers);
        });
        assert!(ping(one.namespace(), two.address()));
        let floods: Vec<Flood> = between(&pods).into_iter().map(|(from, to)| Flood::start(from, to)).collect();
        for time in 1..=3 {
            nodes[0].namespace().ip("link del warren0");
            for address in two.addresses() {
                eventually(10, "the Pods reach each other again", || ping(one.namespace(), *address).then_some(()));
            }
            agents[0].until("the repair is counted", |status| status.repairs() >= time);
        }
        agents[0].until("all is well again", |status| status.ready());
        transfer(one.namespace(), two.namespace(), two.address(), 50);
        transfer(two.namespace(), one.namespace(), one.address(), 50);
        sniffer.assert_encrypted();
        drop(floods);
        assert_seen_without_warren(&sniffer, &mut agents, between(&pods));
    }
}

#[test]
fn an_underlay_device_that_comes_later_is_guarded() {
    let lab = Lab::new();
    let [node]: [Node; 1] = lab.nodes();
    let mut settings = node.settings();
    settings.unset("node", "addresses");
    let agent = node.start(&settings);
    agent.ready();
    let guard = || node.namespace().run(&["nft", "list", "table", "inet", "warren"]);
    assert!(!guard().contains("late0"));
    node.namespace().ip("link add late0 type veth peer name late1");
    node.namespace().ip("addr add 198.51.100.9/24 dev late0");
    node.namespace().ip("link set late1 up");
    node.namespace().ip("link set late0 up");
    eventually(5, "the guard watches the new device", || guard().contains("late0").then_some(()));
    node.namespace().ip("addr del 198.51.100.9/24 dev late0");
    agent.stays(2, "a device without an address for the moment stays guarded", |_| guard().contains("late0"));
}
