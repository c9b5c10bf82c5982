//! The admin socket: for root alone, never two agents on one, and no client can harm the agent.
//!
//! ```text
//! clients ──► warren.sock ── agent on node1 ═══ hub ═══ node2
//! ```

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use warren_tests::{Agent, Lab, Node, Pod, Settings, eventually, ping, static_mesh};

/// Connections that the agent talks to at a time.
const CONNECTIONS: usize = 16;
/// Longer than the agent's patience with a client.
const PATIENCE: Duration = Duration::from_secs(20);

struct Pair {
    agents: Vec<Agent>,
    pods: [Pod; 2],
    nodes: [Node; 2],
    lab: Lab,
}

fn pair() -> Pair {
    let lab = Lab::new();
    let nodes: [Node; 2] = lab.nodes();
    let pods = nodes.each_ref().map(Node::pod);
    let agents = static_mesh(&nodes);
    Pair { agents, pods, nodes, lab }
}

impl Pair {
    fn socket(&self) -> PathBuf {
        self.nodes[0].folder().join("run/warren.sock")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("the agent listens");
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).expect("a socket has timeouts");
        }
        stream
    }

    /// Fails the test unless the agent answers and traffic passes.
    #[track_caller]
    fn is_well(&self) {
        assert!(self.agents[0].now().ready());
        assert!(ping(self.pods[0].namespace(), self.pods[1].address()));
    }
}

/// What the agent answers to some bytes.
fn ask(mut stream: UnixStream, bytes: &[u8]) -> String {
    // It may have answered and hung up before everything was written.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").mode() & 0o7777
}

#[test]
fn only_root_may_ask() {
    let pair = pair();
    let socket = pair.socket();
    assert!(socket.metadata().expect("it is there").file_type().is_socket());
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().expect("a folder")) & 0o022, 0, "others may replace the socket");
    // A stranger who gets as far as the socket, with a config file that he may read.
    let config = stranger_config(&pair);
    let status = format!("warren status --config {config}").replacen("warren", warren_tests::agent::program(), 1);
    let stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &status];
    let refused = warren_tests::command::attempt(&stranger);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.said());
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
    // Even when somebody opens the file to all, the agent asks the kernel who is there.
    std::fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("root may");
    let refused = warren_tests::command::attempt(&stranger);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.said());
    assert!(refused.stderr.contains("only root"), "{}", refused.stderr);
    pair.is_well();
}

/// Opens the way to the socket, and names a config file that says where it is.
fn stranger_config(pair: &Pair) -> String {
    let folder = pair.nodes[0].folder();
    std::fs::set_permissions(folder, Permissions::from_mode(0o711)).expect("the folder is ours");
    let config = pair.lab.folder().join("stranger.toml");
    std::fs::write(&config, pair.nodes[0].settings().to_string()).expect("the folder is ours");
    std::fs::set_permissions(&config, Permissions::from_mode(0o644)).expect("the file is ours");
    config.display().to_string()
}

#[test]
fn a_socket_that_a_killed_agent_left_is_replaced() {
    let mut pair = pair();
    pair.agents[0].kill();
    let refused = UnixStream::connect(pair.socket()).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "a killed agent leaves its socket");
    pair.agents[0].up();
    pair.agents[0].ready();
    assert_eq!(mode(&pair.socket()), 0o600);
    pair.agents[0].terminate();
    assert!(!pair.socket().exists(), "one that ends takes its socket away");
}

#[test]
fn a_second_agent_beside_a_living_one_is_refused_by_name_and_harms_nothing() {
    let pair = pair();
    let elsewhere = second_config(&pair);
    let own = pair.nodes[0].folder().join("warren.toml").display().to_string();
    let refusals: [(&[&str], &str, &[&str]); 3] = [
        (&[], &own, &["another warren", "run/warren.sock"]),
        (&["--port", "51841"], &own, &["another warren", "run/warren.sock", "node.run_dir"]),
        (&["--port", "51841"], &elsewhere, &["warren0", "another program"]),
    ];
    for (flags, config, words) in refusals {
        let argv = [&[warren_tests::agent::program(), "up", "--config", config], flags].concat();
        let second = pair.nodes[0].namespace().attempt(&argv);
        assert_eq!(second.status.code(), Some(2), "{}", second.said());
        for word in words {
            assert!(second.stderr.contains(word), "it does not say {word:?}: {}", second.stderr);
        }
        pair.is_well();
    }
}

/// The same node with a socket of its own.
fn second_config(pair: &Pair) -> String {
    let mut settings: Settings = pair.nodes[0].settings();
    settings.text("node", "run_dir", pair.lab.folder().join("second").display());
    let config = pair.lab.folder().join("second.toml");
    std::fs::write(&config, settings.to_string()).expect("the folder is ours");
    config.display().to_string()
}

#[test]
fn whatever_a_client_says_the_agent_answers_that_it_does_not_understand() {
    let pair = pair();
    let long = [b"{\"command\":\"verify\",\"peer\":\"".to_vec(), vec![b'x'; 1 << 20], b"\"}\n".to_vec()].concat();
    let questions: [&[u8]; 8] = [
        b"\n",
        b"status\n",
        b"{\"command\":\"reboot\"}\n",
        b"{\"command\":[\"status\"]}\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
        b"\x00\xff\xfe\x80\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &long,
    ];
    for question in questions {
        let answer = ask(pair.connect(), question);
        // One who says too much may find the connection closed instead.
        let refused = answer.starts_with("{\"failed\":\"the request is not understood") || question.len() > 1 << 16;
        assert!(refused, "{:?}: {answer}", String::from_utf8_lossy(&question[..question.len().min(40)]));
    }
    pair.is_well();
}

#[test]
fn clients_that_say_nothing_keep_others_waiting_for_half_a_minute_at_most() {
    let pair = pair();
    let silent: Vec<UnixStream> = (0..CONNECTIONS).map(|_| pair.connect()).collect();
    let mut halves: Vec<UnixStream> = (0..CONNECTIONS / 2).map(|_| pair.connect()).collect();
    halves.iter_mut().for_each(|stream| stream.write_all(b"{\"command\":").expect("there is room"));
    assert!(ping(pair.pods[0].namespace(), pair.pods[1].address()), "clients hold up traffic");
    eventually(60, "the agent answers again", || pair.agents[0].status().map(drop));
    drop((silent, halves));
    pair.is_well();
}

#[test]
fn clients_that_never_read_harm_nobody() {
    let pair = pair();
    let deaf: Vec<UnixStream> = (0..CONNECTIONS * 4)
        .map(|_| {
            let mut stream = pair.connect();
            stream.write_all(b"{\"command\":\"status\"}\n").expect("there is room");
            stream
        })
        .collect();
    pair.is_well();
    drop(deaf);
    // Those that hang up at once.
    for _ in 0..200 {
        let _ = pair.connect().write_all(b"{\"command\":\"status\"}\n");
    }
    pair.is_well();
}

#[test]
fn a_thousand_clients_leave_no_descriptor_behind() {
    let pair = pair();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", pair.agents[0].pid())).map_or(0, Iterator::count);
    pair.is_well();
    let before = descriptors();
    for number in 0..1000u32 {
        let question: &[u8] = if number % 2 == 0 { b"{\"command\":\"mesh\"}\n" } else { b"\n" };
        assert!(ask(pair.connect(), question).contains("failed"));
    }
    eventually(20, "their descriptors are closed", || (descriptors() <= before).then_some(()));
}

#[test]
fn a_folder_in_the_place_of_the_socket_is_a_clear_error() {
    let lab = Lab::new();
    let node = lab.node();
    let socket = node.folder().join("run/warren.sock");
    std::fs::create_dir_all(&socket).expect("the folder is ours");
    let mut agent = node.start(&node.settings());
    assert_eq!(agent.ended(15).code(), Some(2));
    assert!(agent.log().contains("the admin socket") && agent.log().contains("run/warren.sock"), "{}", agent.log());
}

#[test]
fn a_stranger_who_listens_on_the_socket_is_not_taken_for_an_agent_that_answers() {
    let lab = Lab::new();
    let node = lab.node();
    let folder = node.folder().join("run");
    std::fs::create_dir_all(&folder).expect("the folder is ours");
    let listener = UnixListener::bind(folder.join("warren.sock")).expect("the folder is ours");
    let answer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the command line connects");
        let _ = stream.read(&mut [0; 256]);
        let _ = stream.write_all(b"hello\n");
    });
    std::fs::write(node.folder().join("warren.toml"), node.settings().to_string()).expect("the folder is ours");
    let config = node.folder().join("warren.toml").display().to_string();
    let status = node.namespace().attempt(&[warren_tests::agent::program(), "status", "--config", &config]);
    answer.join().expect("it answered");
    assert_eq!(status.status.code(), Some(2));
    assert!(status.stderr.contains("not understood"), "{}", status.stderr);
}
