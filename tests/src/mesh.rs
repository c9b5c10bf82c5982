//! Meshes by config file alone.

use crate::{Agent, Node, Settings};

/// Each node's settings with all others as static peers.
pub fn static_settings(nodes: &[Node]) -> Vec<Settings> {
    let of = |node: &Node| {
        let mut settings = node.settings();
        for other in nodes.iter().filter(|other| other.number != node.number) {
            settings.peer(other);
        }
        settings
    };
    nodes.iter().map(of).collect()
}

/// Starts an agent on each node with all others as static peers, and waits until all are ready.
#[track_caller]
pub fn static_mesh(nodes: &[Node]) -> Vec<Agent> {
    static_mesh_with(nodes, |_, _| {})
}

/// The same with a change to every config file.
#[track_caller]
pub fn static_mesh_with(nodes: &[Node], change: impl Fn(&Node, &mut Settings)) -> Vec<Agent> {
    let mut all = static_settings(nodes);
    nodes.iter().zip(&mut all).for_each(|(node, settings)| change(node, settings));
    let agents: Vec<Agent> = nodes.iter().zip(&all).map(|(node, settings)| node.start(settings)).collect();
    for agent in &agents {
        agent.ready();
    }
    agents
}
