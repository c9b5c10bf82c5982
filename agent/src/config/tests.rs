//! What the configuration refuses, and how it says so.

use std::path::Path;

use proptest::prelude::*;

use super::*;
#[cfg(feature = "kubernetes")]
use crate::cidrs::Source;

fn refusal(text: &str) -> String {
    parse(text, Path::new("w.toml")).err().map(|error| error.to_string()).unwrap_or_else(|| panic!("accepted: {text}"))
}

#[test]
fn an_empty_file_is_a_node_with_defaults() {
    let config = parse("", Path::new("w.toml")).expect("valid");
    assert_eq!(config.overlay.enforcement, Enforcement::Strict);
    assert_eq!((config.underlay.port, config.overlay.table, config.overlay.mark), (51840, 51840, 0x10));
    assert_eq!(config.node.key_file, Path::new("/var/lib/warren/private.key"));
    assert!(config.etcd.is_none() && config.peers.is_empty());
    let listeners = [config.health.listen, config.metrics.listen].map(|at| at.map(|at| at.to_string()));
    assert_eq!(listeners, [Some("127.0.0.1:9587".to_owned()), Some("127.0.0.1:9586".to_owned())]);
}

#[test]
fn a_listener_that_is_off_is_none() {
    let config =
        parse("[health]\nlisten = \"off\"\n[metrics]\nlisten = \"off\"\n", Path::new("w.toml")).expect("valid");
    assert_eq!((config.health.listen, config.metrics.listen), (None, None));
}

#[test]
fn an_error_names_file_line_column_key_and_what_is_allowed() {
    let cases = [
        ("[overlay]\nmode = \"pod\"", "w.toml:2:8: overlay.mode: \"pod\" is not one of \"pods\", \"nodes\""),
        ("[overlay]\nmod = 1", "w.toml:2:1: key 'overlay.mod': unknown; known here: device, address, mode,"),
        ("[overlay]\nmtu = -5", "w.toml:2:7: key 'overlay.mtu': must be \"auto\" or a number of bytes"),
        ("[overlay]\nmtu = 90", "w.toml:2:7: overlay.mtu: 90 is neither \"auto\" nor from 1280 to 9200"),
        ("[underlay]\nport = 70000", "w.toml:2:8: key 'underlay.port': must be a port from 1 to 65535"),
        ("[underlay]\nport = 0", "w.toml:2:8: underlay.port: 0 is not from 1 to 65535"),
        ("[overlya]", "w.toml:1:2: key 'overlya': unknown; known here: node, overlay,"),
        ("node = 5", "w.toml:1:8: 'node' must be a table"),
        ("[etcd]", "[etcd]: the key 'endpoints' is missing"),
        ("[[peer]]\nname = \"b\"", "[peer]: the key 'public_key' is missing"),
        ("[[peer]]\nname = \"b\"\nx = 1", "w.toml:3:1: key 'peer.x': unknown; known here: name, public_key"),
        ("[node]\nname = ", "w.toml:2:8: this is no TOML"),
        (
            "[node]\naddresses = [\"x\"]",
            "w.toml:2:13: key 'node.addresses': must be \"auto\" or a list of IP addresses",
        ),
        ("[node]\ncidrs = [\"10.1.0.7/24\"]", "did you mean \"10.1.0.0/24\"?"),
        ("[health]\nlisten = \"9587\"", "w.toml:2:10: health.listen: \"9587\" is neither \"off\" nor an address"),
        ("[metrics]\nlisten = \"127.0.0.1:0\"", "w.toml:2:10: metrics.listen: \"127.0.0.1:0\" is neither \"off\""),
        ("[node]\nstate_dir = \"here\"", "node.state_dir: must be an absolute path"),
        ("[log]\nlevel = \"lots of\"", "w.toml:2:9: log.level"),
    ];
    for (text, expected) in cases {
        let error = refusal(text);
        assert!(error.contains(expected), "{text:?} gave {error:?}, not {expected:?}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
    let error = refusal(
        "[overlay]\nmode = \"pod\"\nmtu = 90\nzzz = 1\n[underlay]\nport = \"x\"\n\
         [etcd]\ncluster = \"\"\nusername = \"u\"\n[[peer]]\nname = \"b\"\n[[peer]]\nname = \"c\"\npublic_key = \"k\"\nmtu = 1\n[lgo]\n",
    );
    let expected = [
        "w.toml:2:8: overlay.mode: \"pod\" is not one of",
        "w.toml:3:7: overlay.mtu: 90 is neither",
        "w.toml:4:1: key 'overlay.zzz': unknown",
        "w.toml:6:8: key 'underlay.port': must be a port",
        "w.toml:7:1: etcd.username needs",
        "w.toml:7:1: [etcd]: the key 'endpoints' is missing",
        "w.toml:8:11: etcd.cluster: \"\"",
        "w.toml:10:1: [peer]: the key 'public_key' is missing",
        "w.toml:14:14: peer.public_key of c",
        "w.toml:15:7: peer.mtu of c: 1 is not from 1280",
        "w.toml:16:2: key 'lgo': unknown; known here: node",
    ];
    let found: Vec<_> = error.lines().collect();
    assert_eq!(found.len(), expected.len(), "{error}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?}, not {expected:?}");
    }
}

#[test]
fn several_lines_that_are_no_toml_are_all_named() {
    let error = refusal("[node]\nname = \nstate_dir /x\n[log]\nlevel = \"info\"\nformat = {\n");
    for line in ["w.toml:2:8: this is no TOML", "w.toml:3:", "w.toml:6:"] {
        assert!(error.contains(line), "{error}");
    }
}

#[test]
fn a_text_that_is_never_closed_is_refused() {
    for open in ["\"info", "'info", "[", "{", "\"\"\"info"] {
        assert!(refusal(&format!("[log]\nlevel = {open}\n")).contains("this is no TOML"), "{open}");
    }
}

/// The text with variables and flags over it.
fn layered(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
    let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    let mut layers = layers::Layers::of_environment(variable);
    for flag in flags {
        layers.settings.push(Setting::from_flag(flag).map_err(|fault| fault.what)?);
    }
    file::read(text, Path::new("w.toml"), layers).map_err(|error| error.to_string())
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file_for_every_key() {
    for key in keys::KEYS.iter().filter(|key| !key.is_listed() && !key.is_secret()) {
        // Keys that name secrets need files; they are held to the rest by their own tests.
        if ["key_file", "password_file", "cert_file", "username"].contains(&key.name) && key.section == "etcd" {
            continue;
        }
        if ["kubeconfig", "context"].contains(&key.name) {
            continue;
        }
        let beside =
            if key.section == "etcd" && key.name != "endpoints" { "endpoints = [\"http://h:1\"]\n" } else { "" };
        let wrong = format!("[{}]\n{beside}{} = {{}}\n", key.section, key.name);
        let plain = parse(&format!("[{}]\n{beside}{} = {}\n", key.section, key.name, key.example), Path::new("w.toml"));
        let plain = format!("{:?}", plain.expect("the example is valid"));
        let same = |config: Config| assert_eq!(format!("{:?}", Config { overridden: Vec::new(), ..config }), plain);
        let (variable, set) = (key.variable(), format!("{}={}", key.path(), key.example));
        assert!(layered(&wrong, &[], &[]).is_err(), "{}", key.path());
        same(layered(&wrong, &[(&variable, key.example)], &[]).expect("the variable wins over the file"));
        same(layered(&wrong, &[(&variable, "0")], &[&set]).expect("the flag wins over both"));
    }
}

#[test]
fn values_of_flags_and_variables_need_no_quotes_and_no_brackets() {
    let variables =
        [("WARREN_NODE_CIDRS", "10.1.0.0/24, fd00:1::/64"), ("WARREN_NODE_NAME", "7"), ("WARREN_LOG_LEVEL", "")];
    let flags =
        ["overlay.mode=nodes", "overlay.mtu=auto", "overlay.exempt_ports=22,2379-2380", "offload.udp_gso=false"];
    let config = layered("[overlay]\nmtu = 1300\n", &variables, &flags).expect("valid");
    assert_eq!(config.node.name.as_str(), "7");
    assert!(matches!(&config.node.cidrs, Cidrs::Listed(list) if list.len() == 2));
    assert_eq!((config.overlay.mode, config.overlay.mtu, config.offload.udp_gso), (Mode::Nodes, None, false));
    assert_eq!(config.overlay.exempt_ports, [22..=22, 2379..=2380]);
    assert_eq!(config.log.level, "info");
    let sources: Vec<_> = config.overridden.iter().map(|(key, origin)| format!("{key} {origin}")).collect();
    assert!(sources.contains(&"overlay.mode flag --set".to_owned()), "{sources:?}");
    assert!(sources.contains(&"node.name environment variable WARREN_NODE_NAME".to_owned()), "{sources:?}");
}

#[cfg(feature = "kubernetes")]
#[test]
fn kubernetes_is_a_registry_like_etcd_and_a_node_has_one_of_them() {
    let of = |text: &str, variables: &[_]| layered(text, variables, &[]).expect("valid").node;
    let pod = [("WARREN_NODE_CIDRS", "auto"), ("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
    let (inside, outside) = (of("[kubernetes]", &pod), of("[kubernetes]", &pod[..1]));
    assert!(matches!(inside.cidrs, Cidrs::Listed(list) if list.is_empty()) && inside.cidrs_from.is_some());
    assert!(matches!(outside.cidrs, Cidrs::Auto { .. }) && outside.cidrs_from.is_none());
    for (text, expected) in [
        ("[etcd]\nendpoints = [\"http://h:1\"]\n[kubernetes]\n", "a node has one registry"),
        ("[kubernetes]\nserver = \"http://192.0.2.1\"\n", "tokens travel by TLS alone"),
        ("[kubernetes]\ncontext = \"prod\"\n", "set kubernetes.kubeconfig"),
    ] {
        let error = refusal(text);
        assert!(error.contains(expected), "{error}");
    }
}

#[cfg(feature = "kubernetes")]
#[test]
fn the_page_about_hosts_has_a_configuration_that_joins_a_cluster() {
    let page = include_str!("../../../docs/bare-metal.md");
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    let (example, more) = rest.split_once("```").expect("its end");
    assert!(!more.contains("```toml"), "another example: check it too");
    let kubeconfig = tempfile::NamedTempFile::new().expect("a file of mode 0600");
    let path = kubeconfig.path().display().to_string();
    assert!(refusal(example).contains("/etc/warren/kubeconfig"), "the file has to be there, with mode 0600");
    let config = layered(&example.replace("/etc/warren/kubeconfig", &path), &[], &[]).expect("valid");
    assert!(config.kubernetes.is_some() && config.etcd.is_none() && config.node.cidrs_from.is_none());
    for principal in ["CN=warren:host:", "user `warren:host:NAME`"] {
        assert!(page.contains(principal), "{principal}");
    }
    assert!(page.contains(&format!("/O=warren:hosts/CN=warren:host:{}\"", config.node.name)));
}

#[cfg(feature = "kubernetes")]
#[test]
fn the_api_server_is_asked_for_prefixes_beneath_any_registry() {
    let kubeconfig = tempfile::NamedTempFile::new().expect("a file of mode 0600");
    let etcd = "[etcd]\nendpoints = [\"http://h:1\"]\n";
    let apart = format!("{etcd}[kubernetes]\nenabled = false\nkubeconfig = {:?}\n", kubeconfig.path());
    for (word, source) in [("kubernetes", Source::Kubernetes), ("calico", Source::Calico), ("cilium", Source::Cilium)] {
        for text in ["", etcd, &apart, "[kubernetes]\n"] {
            let config = layered(text, &[("WARREN_NODE_CIDRS", word)], &[]).expect("valid");
            let from = config.node.cidrs_from.map(|place| place.source);
            assert_eq!((config.node.cidrs, from), (Cidrs::Listed(Default::default()), Some(source)), "{word}: {text}");
            let path = config.api_server.kubeconfig;
            assert_eq!(path.as_deref(), (text == apart).then(|| kubeconfig.path()), "{word}: {text}");
        }
    }
}

#[test]
fn a_fault_names_the_variable_or_the_flag_that_it_is_in() {
    let error = |variables: &[_], flags: &[_]| layered("[overlay]\nmtu = 90\n", variables, flags).expect_err("refused");
    let both = error(&[("WARREN_OVERLAY_MODE", "pod"), ("WARREN_UNDERLAY_PORT", "many")], &["workers.count=65"]);
    for expected in [
        "w.toml:2:7: overlay.mtu: 90",
        "environment variable WARREN_OVERLAY_MODE: overlay.mode: \"pod\" is not one of",
        "environment variable WARREN_UNDERLAY_PORT: key 'underlay.port': must be a port from 1 to 65535",
        "flag --set: workers.count: 65 is not from 0 to 64",
    ] {
        assert!(both.contains(expected), "{both}");
    }
    assert!(error(&[], &["overlay.mod=1"]).contains("unknown; known here: device"));
    assert!(error(&[], &["overlya.mode=1"]).contains("unknown; the sections are node, overlay"));
    assert!(error(&[], &["overlay.mode"]).contains("SECTION.KEY=VALUE"));
    assert!(error(&[], &["node.endpoints=[1"]).contains("must be a list of address:port"));
    assert!(error(&[], &["peer.mtu=1300"]).contains("[[peer]]"));
}

#[test]
fn a_secret_is_taken_from_no_flag_and_no_variable_and_is_not_quoted() {
    let by_variable = layered("", &[("WARREN_ETCD_PASSWORD", "hunter2")], &[]).expect_err("refused");
    let by_flag = layered("", &[], &["etcd.password=hunter2"]).expect_err("refused");
    for error in [by_variable, by_flag] {
        assert!(error.contains("use etcd.password_file") && !error.contains("hunter2"), "{error}");
    }
    let urls =
        layered("", &[("WARREN_ETCD_ENDPOINTS", "https://root:hunter2@192.0.2.1:2379")], &[]).expect_err("refused");
    assert!(urls.contains("WARREN_ETCD_ENDPOINTS") && !urls.contains("hunter2"), "{urls}");
}

#[test]
fn the_kernel_s_tables_and_late_rules_are_refused() {
    for table in [0, 253, 254, 255] {
        assert!(refusal(&format!("[overlay]\ntable = {table}")).contains("belongs to the kernel"));
    }
    assert!(refusal("[overlay]\nrule_priority = 32766").contains("not from 1 to 32000"));
    assert!(refusal("[overlay]\nmark = 0x30").contains("one bit"));
}

#[test]
fn a_secret_in_the_wrong_place_is_refused_without_being_quoted() {
    let secret = "/9tf3hunter2hunter2hunter2hunter2hunter2huA=";
    let peer = "[[peer]]\nname = \"b\"\npublic_key = \"oFQbHDFmKH6PEYzwMPfxCXCQfBYwYGVAcQOqgGWDiGo=\"\n";
    let cases = [
        format!("{peer}preshared_key_file = \"{secret}\""),
        format!("{peer}preshared_key = \"{secret}\""),
        format!("[node]\nprivate_key = \"{secret}\""),
        format!("[node]\nkey_file = \"{secret}\""),
        format!("[[peer]]\nname = \"b\"\npublic_key = \"{secret}{secret}\""),
        "[etcd]\nendpoints = [\"https://root:hunter2@192.0.2.1:2379\"]".to_owned(),
        "[etcd]\nendpoints = [\"ftp://root:hunter2@192.0.2.1\"]".to_owned(),
        "[etcd]\nendpoints = \"https://root:hunter2@192.0.2.1\"".to_owned(),
        "[etcd]\nendpoints = [\"http://h:1\"]\nusername = \"u\"\npassword_file = \"hunter2\"".to_owned(),
    ];
    for text in cases {
        let error = refusal(&text);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = parse(&text, Path::new("w.toml"));
    }

    #[test]
    fn no_value_makes_the_reader_panic(at in 0..keys::KEYS.len(), value in "[-0-9a-z\"\\[\\]{}.:/=,é \n]{0,40}") {
        let key = keys::KEYS[at];
        let _ = layered("", &[(&key.variable(), &value)], &[]);
        let header = if key.section == "peer" { "[[peer]]".to_owned() } else { format!("[{}]", key.section) };
        if let Err(error) = parse(&format!("{header}\n{} = {value}\n", key.name), Path::new("w.toml")) {
            prop_assert!(error.to_string().starts_with("w.toml"));
        }
    }
}
