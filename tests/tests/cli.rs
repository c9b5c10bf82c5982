//! The command line against an agent that lives: what it prints, and how it exits.
//!
//! ```text
//! pod ── node1 ═══════ hub ═══════ node2 ── pod
//!         warren status, verify, leave, cleanup
//! ```

use serde_json::Value;
use warren_tests::command::Finished;
use warren_tests::{Agent, EtcdMesh, Lab, Node, Plan, Pod, eventually, holds_for, ping, static_mesh, static_settings};

struct Pair {
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    _lab: Lab,
}

/// Two agents with a session.
fn pair() -> Pair {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh(&nodes);
    let pair = Pair { agents, pods, nodes, _lab: lab };
    pair.connected();
    pair
}

impl Pair {
    #[track_caller]
    fn connected(&self) {
        let reach = || ping(self.pods[0].namespace(), self.pods[1].address());
        eventually(15, "Pods reach each other", || reach().then_some(()));
    }
}

#[track_caller]
fn exits(finished: &Finished, code: i32) {
    assert_eq!(finished.status.code(), Some(code), "{}", finished.said());
}

#[track_caller]
fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {}", finished.said()))
}

#[test]
fn status_shows_the_agent_to_people_and_programs_and_exits_with_0_when_all_is_well() {
    let pair = pair();
    let text = pair.agents[0].cli(&["status"]);
    exits(&text, 0);
    for word in ["node1", "node2", "up", "10.77.0.2:51840", "10.42.2.0/24", "loaded", "strict", "POST-QUANTUM"] {
        assert!(text.stdout.contains(word), "{word} is missing:\n{}", text.stdout);
    }
    let finished = pair.agents[0].cli(&["status", "-o", "json"]);
    exits(&finished, 0);
    let status = json(&finished);
    for (key, value) in
        [("node", "node1"), ("enforcement", "strict"), ("mode", "pods"), ("version", env!("CARGO_PKG_VERSION"))]
    {
        assert_eq!(status[key], value, "{key}");
    }
    assert_eq!(status["ready"], true);
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0));
    let peer = &status["peers"][0];
    assert_eq!((&peer["name"], &peer["state"]), (&"node2".into(), &"up".into()));
    assert!(peer["tx_bytes"].as_u64() > Some(0) && peer["rx_bytes"].as_u64() > Some(0), "{peer}");
    assert_eq!(finished.stdout.lines().count(), 1, "one line, for programs that read lines");
}

#[test]
fn status_exits_with_1_and_names_the_peer_that_does_not_answer() {
    let mut pair = pair();
    pair.agents[1].kill();
    let status = eventually(60, "the agent notices the silence, long before the session ends", || {
        ping(pair.pods[0].namespace(), pair.pods[1].address());
        let status = pair.agents[0].cli(&["status"]);
        (status.status.code() != Some(0)).then_some(status)
    });
    exits(&status, 1);
    assert!(status.stdout.contains("problem: peer node2 does not answer at 10.77.0.2:51840"), "{}", status.stdout);
    pair.agents[1].up();
    pair.connected();
    eventually(15, "all is well again", || pair.agents[0].cli(&["status"]).success().then_some(()));
}

#[test]
fn verify_proves_a_peer_and_exits_with_2_when_it_is_not_encrypted_or_not_known() {
    let mut pair = pair();
    let text = pair.agents[0].cli(&["verify", "node2"]);
    exits(&text, 0);
    assert!(text.stdout.contains("encrypted     yes") && text.stdout.contains("warren0"), "{}", text.stdout);
    let finished = pair.agents[0].cli(&["verify", "node2", "-o", "json"]);
    exits(&finished, 0);
    let verify = json(&finished);
    for key in ["via_tunnel", "session", "encrypted"] {
        assert_eq!(verify[key], true, "{verify}");
    }
    assert!(verify["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0 && rtt < 5000.0), "{verify}");
    let stranger = pair.agents[0].cli(&["verify", "node9"]);
    exits(&stranger, 2);
    assert!(stranger.stderr.contains("node9") && stranger.stderr.contains("node2"), "{}", stranger.stderr);
    exits(&pair.agents[0].cli(&["verify"]), 64);
    pair.agents[1].kill();
    let silent = pair.agents[0].cli(&["verify", "node2", "-o", "json"]);
    assert_eq!(json(&silent)["rtt_ms"], Value::Null, "nobody can have answered: {}", silent.stdout);
}

#[test]
fn the_agent_answers_others_while_it_verifies_a_silent_peer() {
    let mut pair = pair();
    pair.agents[1].kill();
    std::thread::scope(|scope| {
        let verify = scope.spawn(|| pair.agents[0].cli(&["verify", "node2"]));
        let mut answers = 0;
        while !verify.is_finished() {
            assert!(pair.agents[0].status().is_some(), "no answer to `warren status` meanwhile");
            answers += 1;
        }
        assert!(answers > 5, "only {answers} answers in the seconds that a verification takes");
    });
}

#[test]
fn what_needs_an_agent_says_that_there_is_none_and_exits_with_2() {
    let mut pair = pair();
    pair.agents[0].kill();
    for words in [&["status"][..], &["status", "-o", "json"], &["verify", "node2"], &["leave"], &["mesh", "accept"]] {
        let finished = pair.agents[0].cli(words);
        exits(&finished, 2);
        assert!(finished.stdout.is_empty(), "{words:?} printed {}", finished.stdout);
        for word in ["no agent answers", "warren.sock", "warren up"] {
            assert!(finished.stderr.contains(word), "{words:?} does not say {word:?}: {}", finished.stderr);
        }
        assert_eq!(finished.stderr.trim().lines().count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn leave_without_a_registry_and_cleanup_under_a_running_agent_are_refused_and_harm_nothing() {
    let pair = pair();
    let leave = pair.agents[0].cli(&["leave"]);
    exits(&leave, 2);
    assert!(leave.stderr.contains("without a registry"), "{}", leave.stderr);
    let cleanup = pair.agents[0].cli(&["cleanup"]);
    exits(&cleanup, 2);
    assert!(cleanup.stderr.contains("stop it first"), "{}", cleanup.stderr);
    let impatient = pair.agents[0].cli(&["cleanup", "--wait=0"]);
    exits(&impatient, 2);
    assert!(impatient.stderr.contains("has not ended within 0 s, and nothing was removed"), "{}", impatient.said());
    let accept = pair.agents[0].cli(&["mesh", "accept"]);
    exits(&accept, 2);
    assert!(accept.stderr.contains("nothing is held"), "{}", accept.stderr);
    pair.connected();
    pair.agents[0].ready();
}

#[test]
fn cleanup_names_what_it_removes_and_then_that_there_is_nothing() {
    let mut pair = pair();
    pair.agents[0].terminate();
    let first = pair.agents[0].cli(&["cleanup"]);
    exits(&first, 0);
    assert!(first.stdout.contains("removed nftables table inet warren\n"), "{}", first.said());
    let second = pair.agents[0].cli(&["cleanup"]);
    exits(&second, 0);
    assert_eq!(second.stdout, "there was nothing to remove\n");
}

#[test]
fn the_log_says_once_when_a_peer_is_met_and_when_the_configuration_is_read_again() {
    let pair = pair();
    let said = |what: &str| pair.agents[0].log().lines().filter(|line| line.contains(what)).count();
    eventually(10, "the first handshake is said", || (said("first handshake") == 1).then_some(()));
    exits(&pair.agents[0].cli(&["verify", "node2"]), 0);
    assert_eq!(said("were read again"), 0);
    pair.agents[0].configure(&static_settings(&pair.nodes)[0]);
    eventually(10, "the configuration is read again", || (said("were read again") == 1).then_some(()));
    holds_for(3, "a handshake that is not the first is not said", || said("first handshake") == 1);
}

#[test]
fn leave_withdraws_the_record_ends_the_agent_with_0_and_leaves_the_guard() {
    let mut mesh = EtcdMesh::start(Plan::default(), 2);
    mesh.assert_connected();
    let record = mesh.etcd.record_key("node2");
    assert!(mesh.etcd.get(&record).is_some());
    let leave = mesh.agents[1].cli(&["leave"]);
    exits(&leave, 0);
    assert!(leave.stdout.contains("withdrawn"), "{}", leave.stdout);
    assert_eq!(mesh.agents[1].ended(10).code(), Some(0));
    assert_eq!(mesh.etcd.get(&record), None);
    mesh.nodes[1].namespace().run(&["nft", "list", "table", "inet", "warren"]);
    assert!(!ping(mesh.pods[0].namespace(), mesh.pods[1].address()));
    mesh.finish();
}

#[test]
fn wrong_command_lines_exit_with_64() {
    let pair = pair();
    for words in
        [&["stat"][..], &["status", "-o", "xml"], &["verify", "node2", "node3"], &["mesh"], &["status", "--all"]]
    {
        exits(&pair.agents[0].cli(words), 64);
    }
}
