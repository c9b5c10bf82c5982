//! The program as people and scripts call it: what it prints, how it exits, what it keeps to itself.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// `warren`, with nothing of our own environment that could speak to it.
fn warren() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WARREN_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn run<A: AsRef<OsStr>>(args: &[A]) -> Output {
    warren().args(args).output().expect("the program was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn exits(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn with_input(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// A shell with mounts, network and processes of its own, which all end with it.
fn in_a_space(script: &str) -> Command {
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WARREN_")) {
        shell.env_remove(name);
    }
    shell
}

/// A folder with a configuration in it.
struct Setup(TempDir);

impl Setup {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let setup = Self(folder);
        fs::write(setup.file(), text).expect("written");
        setup
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("warren.toml")
    }

    fn secret(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).expect("made");
        file.write_all(content.as_bytes()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        path
    }

    fn run(&self, command: &str) -> Output {
        run(&[OsStr::new(command), OsStr::new("--config"), self.file().as_os_str()])
    }
}

#[test]
fn a_new_key_and_its_public_half_are_those_of_wg() {
    let key = run(&["keygen"]);
    exits(&key, 0);
    let key = text(&key.stdout);
    assert_eq!(key.trim_end().len(), 44);
    assert_ne!(key, text(&run(&["keygen"]).stdout), "two keys are alike");
    let mut pubkey = warren();
    pubkey.arg("pubkey");
    let ours = with_input(pubkey, &key);
    exits(&ours, 0);
    let mut wg = Command::new("wg");
    wg.arg("pubkey");
    if Command::new("wg").arg("--version").output().is_ok() {
        assert_eq!(text(&ours.stdout), text(&with_input(wg, &key).stdout));
    }
    // RFC 7748, section 6.1: Alice's pair.
    let mut alice = warren();
    alice.arg("pubkey");
    let public = with_input(alice, "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n");
    assert_eq!(text(&public.stdout).trim_end(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
}

#[test]
fn what_is_no_key_is_refused_without_being_repeated() {
    let mut pubkey = warren();
    pubkey.arg("pubkey");
    let refused = with_input(pubkey, "hunter2hunter2\n");
    exits(&refused, 2);
    assert!(!text(&refused.stderr).contains("hunter2") && refused.stdout.is_empty());
    let mut pubkey = warren();
    pubkey.arg("pubkey");
    let padded = format!("{:<4097}", "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
    let long = with_input(pubkey, &padded);
    exits(&long, 2);
    assert!(text(&long.stderr).contains("more than 4096 bytes") && long.stdout.is_empty());
}

#[test]
fn a_wrong_command_line_exits_with_64_and_help_with_0() {
    for wrong in [&["fly"][..], &["verify"], &["status", "-o", "xml"], &["up", "--port", "many"], &[]] {
        exits(&run(wrong), 64);
    }
    for right in [&["--help"][..], &["--version"], &["up", "--help"], &["cluster", "--help"], &["mesh", "--help"]] {
        exits(&run(right), 0);
    }
    for version in ["--version", "-V", "version"] {
        assert_eq!(text(&run(&[version]).stdout), concat!("warren ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    assert!(text(&run(&["verify", "--help"]).stdout).contains("Example:\n  warren verify node-b\n"));
}

#[test]
fn a_reader_that_goes_away_makes_no_panic_and_a_full_disk_is_a_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let gone = warren().arg("keygen").stdout(writer).output().expect("it runs");
    exits(&gone, 0);
    assert!(gone.stderr.is_empty());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let full = warren().arg("keygen").stdout(full).stderr(Stdio::piped()).output().expect("it runs");
    exits(&full, 2);
    assert!(text(&full.stderr).contains("standard output"));
}

#[test]
fn without_an_agent_its_questions_exit_with_2_and_say_what_to_do() {
    let setup = Setup::new("");
    fs::write(setup.file(), format!("[node]\nrun_dir = \"{}\"\n", setup.path().display())).expect("written");
    for question in ["status", "leave"] {
        let asked = setup.run(question);
        exits(&asked, 2);
        assert!(text(&asked.stderr).contains("start it with `warren up"), "{}", text(&asked.stderr));
        assert!(asked.stdout.is_empty());
    }
}

#[test]
fn a_wrong_file_exits_with_2_and_names_file_line_and_key() {
    let setup = Setup::new("[overlay]\nmode = \"pod\"\n");
    for command in ["check-config", "up", "preflight", "cleanup", "guard", "status"] {
        let checked = setup.run(command);
        exits(&checked, 2);
        let expected = format!("{}:2:8: overlay.mode: \"pod\" is not one of", setup.file().display());
        assert!(text(&checked.stderr).contains(&expected), "{command}: {}", text(&checked.stderr));
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let setup = Setup::new("[underlay]\nport = 1\n[overlay]\nmode = \"pods\"\n[node]\nname = \"of-the-file\"\n");
    let mut check = warren();
    check.arg("check-config").arg(setup.file()).args(["--set", "underlay.port=3"]);
    check.env("WARREN_UNDERLAY_PORT", "2").env("WARREN_NODE_NAME", "of-the-variable").env("WARREN_LOG_LEVEL", "");
    let checked = check.output().expect("it runs");
    exits(&checked, 0);
    let said = text(&checked.stdout);
    for line in [
        "node of-the-variable with",
        "UDP port 3\n",
        "node.name is set by environment variable WARREN_NODE_NAME\n",
        "underlay.port is set by flag --set\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn a_wrong_value_names_its_flag_or_variable_and_a_wrong_flag_exits_with_64() {
    let setup = Setup::new("");
    let up = |arguments: &[&str], level: &str| {
        let mut command = warren();
        command.arg("up").args(arguments).arg("--config").arg(setup.file()).env("WARREN_LOG_LEVEL", level);
        command.output().expect("it runs")
    };
    let cases: [(&[&str], &str, i32, &str); 6] = [
        (&["--node-name", "FLAG"], "info", 64, "flag --node-name: node.name: \"FLAG\""),
        (&["--port", "0"], "info", 64, "flag --port: underlay.port: 0 is not from 1 to 65535"),
        (&["--set", "overlay.mode=pod"], "info", 64, "flag --set: overlay.mode: \"pod\" is not one of"),
        (&["--set", "overlay"], "info", 64, "flag --set: must be SECTION.KEY=VALUE"),
        (&["--set", "etcd.password=hunter2"], "info", 64, "use etcd.password_file"),
        (&[], "inof", 2, "environment variable WARREN_LOG_LEVEL: log.level: \"inof\" is none of error, warn"),
    ];
    for (arguments, level, code, words) in cases {
        let refused = up(arguments, level);
        exits(&refused, code);
        let said = text(&refused.stderr);
        assert!(said.contains(words) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn every_fault_of_a_file_has_a_line_of_its_own() {
    let setup = Setup::new("[overlay]\nmode = \"pod\"\nmtu = 1\n");
    let checked = run(&[OsStr::new("check-config"), setup.file().as_os_str()]);
    exits(&checked, 2);
    let said = text(&checked.stderr);
    let lines: Vec<_> = said.lines().collect();
    let path = setup.file();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with(&format!("warren: {}:2:8: ", path.display())), "{said}");
    assert!(lines[1].starts_with(&format!("warren: {}:3:7: ", path.display())), "{said}");
}

#[test]
fn the_variables_that_kubernetes_sets_beside_a_service_harm_nothing() {
    let setup = Setup::new("[overlay]\nmode = \"pod\"\n");
    let mut up = warren();
    up.args(["up", "--config"]).arg(setup.file());
    up.env("WARREN_PORT", "tcp://10.96.0.9:51840").env("WARREN_SERVICE_HOST", "10.96.0.9");
    exits(&up.output().expect("it runs"), 2);
}

#[test]
fn secrets_that_others_may_read_are_refused_and_no_secret_is_printed() {
    const PSK: &str = "/9tf3hunter2hunter2hunter2hunter2hunter2huA=";
    const PEER: &str = "[[peer]]\nname = \"b\"\npublic_key = \"oFQbHDFmKH6PEYzwMPfxCXCQfBYwYGVAcQOqgGWDiGo=\"\n";
    let setup = Setup::new("");
    let write = |psk: &Path, password: &Path| {
        let etcd = "[etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\nusername = \"u\"\n";
        let (psk, password) = (psk.display(), password.display());
        let text = format!("{etcd}password_file = \"{password}\"\n{PEER}preshared_key_file = \"{psk}\"\n");
        fs::write(setup.file(), text).expect("written");
        setup.run("check-config")
    };
    let (psk, open_psk) = (setup.secret("psk", PSK, 0o600), setup.secret("open-psk", PSK, 0o644));
    let (password, open_password) =
        (setup.secret("password", "hunter2", 0o600), setup.secret("open-password", "hunter2", 0o640));
    let garbled = setup.secret("garbled-psk", "hunter2", 0o600);
    let outcomes = [
        (write(&psk, &password), 0, "the configuration is valid"),
        (write(&open_psk, &password), 2, "chmod 600"),
        (write(&psk, &open_password), 2, "etcd.password_file"),
        (write(&garbled, &password), 2, "peer.preshared_key_file of b"),
        (write(&setup.path().join("none"), &password), 2, "peer.preshared_key_file of b"),
    ];
    for (outcome, code, words) in outcomes {
        exits(&outcome, code);
        let said = text(&outcome.stdout) + &text(&outcome.stderr);
        assert!(said.contains(words) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_broken_configuration_does_not_keep_the_guard_from_being_loaded_at_boot() {
    let setup = Setup::new("[overlay]\nmode = \"pod\"\n");
    let guard =
        r#"{"ruleset":{"inet":{"nftables":[{"add":{"table":{"family":"inet","name":"of_the_test"}}}]}},"listing":{}}"#;
    setup.secret("guard.json", guard, 0o600);
    // Network and mounts of its own: the host's state folder stays as it is, and both end with the shell.
    let script = "mount -t tmpfs none /var/lib && mkdir /var/lib/warren && cp \"$1\" /var/lib/warren/ && \
                  { \"$2\" guard --config \"$3\"; echo \"exit $?\"; nft list tables; }";
    let mut boot = in_a_space(script);
    let boot = boot.arg(setup.path().join("guard.json"));
    let boot = boot.arg(env!("CARGO_BIN_EXE_warren")).arg(setup.file()).output().expect("it runs");
    exits(&boot, 0);
    let said = text(&boot.stdout);
    for words in ["saved in /var/lib/warren is loaded", "exit 2\n", "table inet of_the_test\n"] {
        assert!(said.contains(words), "{said}{}", text(&boot.stderr));
    }
    assert!(text(&boot.stderr).contains("overlay.mode"), "{}", text(&boot.stderr));
}

#[test]
#[ignore = "needs root"]
fn beside_a_running_agent_preflight_lacks_nothing_and_a_second_one_is_refused_as_such() {
    let setup = Setup::new("");
    let path = setup.path().display();
    let text_of = format!(
        "[node]\nname = \"a\"\ncidrs = [\"10.42.1.0/24\"]\nstate_dir = \"{path}/state\"\nrun_dir = \"{path}/run\"\n\
         cni_dir = \"{path}/cni\"\n"
    );
    fs::write(setup.file(), text_of).expect("written");
    // The shell is the namespace's first process: when it ends, the kernel ends the agent and takes the network away.
    let script = "ip link set lo up; ip link add eth0 type veth peer name outside; ip link set outside up
        ip address add 192.0.2.1/24 dev eth0; ip link set eth0 up; ip route add default via 192.0.2.254
        \"$1\" up --config \"$2\" & agent=$!
        for try in $(seq 300); do [ -S \"$3/run/warren.sock\" ] && break; kill -0 $agent || exit 1; sleep 0.1; done
        \"$1\" preflight --config \"$2\"; echo \"preflight $?\"
        \"$1\" up --config \"$2\" 2>&1; echo \"second $?\"";
    let mut space = in_a_space(script);
    let space = space.arg(env!("CARGO_BIN_EXE_warren")).arg(setup.file()).arg(setup.path());
    let output = space.output().expect("it runs");
    let said = text(&output.stdout);
    for words in [
        "ok   UDP port 51840 (in use by the running agent of a)\n",
        "preflight 0\n",
        "warren: another warren runs here and answers on ",
        "second 2\n",
    ] {
        assert!(said.contains(words), "{said}{}", text(&output.stderr));
    }
}
