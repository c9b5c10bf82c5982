//! Associations between agents: data leaves the tunnel, and nothing else changes.

use warren_tests::stream::transfer;
use warren_tests::{Family, Lab, Node, Plan, ping, static_mesh_with};

#[test]
fn two_agents_soon_send_on_associations_with_any_numbers_of_workers() {
    for (one, two) in [(1, 1), (2, 2), (1, 4), (4, 2), (3, 4), (8, 8)] {
        let lab = Lab::with(Plan { overlay: Family::Dual, ..Plan::default() });
        let sniffer = lab.sniff();
        let nodes: [Node; 2] = lab.nodes();
        let pods = nodes.each_ref().map(Node::pod);
        let agents = static_mesh_with(&nodes, |node, settings| {
            settings.set("workers", "count", if node.number == 1 { one } else { two });
        });
        assert!(ping(pods[0].namespace(), pods[1].address()));
        agents[0].until("data goes on associations", |status| status.suite("node2").is_some());
        agents[1].until("data goes on associations", |status| status.suite("node1").is_some());
        for address in pods[1].addresses() {
            assert!(ping(pods[0].namespace(), *address));
        }
        transfer(pods[0].namespace(), pods[1].namespace(), pods[1].address(), 50);
        transfer(pods[1].namespace(), pods[0].namespace(), pods[0].address(), 50);
        sniffer.assert_encrypted();
    }
}
