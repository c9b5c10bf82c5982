//! What the configuration refuses, and how it says so.

use std::path::Path;

use proptest::prelude::*;

use super::*;

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
        ("[node]\nstate_dir = \"here\"", "node.state_dir: must be an absolute path"),
        ("[log]\nlevel = \"lots of\"", "w.toml:2:9: log.level"),
    ];
    for (text, expected) in cases {
        let error = refusal(text);
        assert!(error.contains(expected), "{text:?} gave {error:?}, not {expected:?}");
    }
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
        let header = if key.section == "peer" { "[[peer]]".to_owned() } else { format!("[{}]", key.section) };
        if let Err(error) = parse(&format!("{header}\n{} = {value}\n", key.name), Path::new("w.toml")) {
            prop_assert!(error.to_string().starts_with("w.toml"));
        }
    }
}
