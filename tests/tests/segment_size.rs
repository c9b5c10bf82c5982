//! TCP learns the size that the tunnel carries from its first packet, whatever becomes of ICMP: seen inside the Pods.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pod
//! capture                                capture
//! ```

use warren_tests::mss::Opening;
use warren_tests::stream::transfer;
use warren_tests::{Agent, Family, Lab, Node, Plan, Pod, static_mesh};

/// What each side announces to the other, at every address: as it arrives.
fn announced(pods: &[Pod; 2]) -> Vec<[u16; 2]> {
    let [one, two] = pods;
    let addresses = one.addresses().iter().zip(two.addresses());
    let sizes = addresses.map(|(from, to)| {
        let (ask, answer) = (Opening::listen(two.namespace(), *from), Opening::listen(one.namespace(), *to));
        transfer(one.namespace(), two.namespace(), *to, 1);
        [ask.mss(), answer.mss()]
    });
    sizes.collect()
}

#[test]
fn both_sides_of_a_connection_learn_the_tunnels_segment_size() {
    for (underlay, mtu) in [(Family::V4, 1440), (Family::V6, 1420)] {
        let lab = Lab::with(Plan { underlay, overlay: Family::Dual, ..Plan::default() });
        let nodes: [Node; 2] = lab.nodes();
        let pods = nodes.each_ref().map(Node::pod);
        let mut agents = static_mesh(&nodes);
        assert_eq!(agents[0].now().value()["mtu"], mtu);
        assert_eq!(announced(&pods), [[mtu - 40; 2], [mtu - 60; 2]], "{underlay:?}");
        // The control: without Warren the Pods announce what their own links carry.
        for agent in &mut agents {
            Agent::kill(agent);
            agent.cleanup();
        }
        assert_eq!(announced(&pods), [[1460; 2], [1440; 2]], "{underlay:?}");
    }
}
