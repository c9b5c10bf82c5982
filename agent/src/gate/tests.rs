use std::net::IpAddr;

use serde_json::Value;

use super::*;

/// Spaces, order and a key that nobody knows: all of it must come out again.
const BEFORE: &str =
    r#"{ "ips" : [{"address":"10.42.1.9/24","x":1e3}, {"address":"fd42::9/64"}],"cniVersion":"1.0.0", "unknown":{}}"#;

fn network(version: &str, before: &str) -> Vec<u8> {
    format!(r#"{{"cniVersion":"{version}","name":"n","type":"warren-gate","prevResult":{before}}}"#).into_bytes()
}

fn stands(_: &[IpAddr]) -> Option<Lacking> {
    None
}

fn fallen(_: &[IpAddr]) -> Option<Lacking> {
    Some(Lacking::Table)
}

/// The specification's code of a refusal.
fn code(answer: Result<String, Refusal>) -> u64 {
    let said: Value = serde_json::from_str(&answer.unwrap_err().to_string()).unwrap();
    assert!(VERSIONS.contains(&said["cniVersion"].as_str().unwrap()), "{said}");
    assert!(!said["msg"].as_str().unwrap().is_empty() && !said["details"].as_str().unwrap().is_empty(), "{said}");
    said["code"].as_u64().unwrap()
}

#[test]
fn behind_a_guard_that_stands_a_pod_is_added_with_what_came_before_byte_by_byte() {
    for version in VERSIONS {
        assert_eq!(obey("ADD", &network(version, BEFORE), stands).unwrap(), BEFORE);
        assert_eq!(obey("CHECK", &network(version, BEFORE), stands).unwrap(), "");
    }
}

#[test]
fn a_pod_of_which_no_address_is_known_is_not_added_but_checked_and_let_go() {
    for ips in ["null", "[]"] {
        let before = format!(r#"{{"cniVersion":"1.0.0","ips":{ips}}}"#);
        assert_eq!(code(obey("ADD", &network("1.0.0", &before), stands)), 7);
        assert_eq!(obey("CHECK", &network("1.0.0", &before), stands).unwrap(), "");
        assert_eq!(obey("DEL", &network("1.0.0", &before), stands).unwrap(), "");
    }
}

#[test]
fn the_guard_is_asked_for_every_address_of_the_pod() {
    let watched = |pods: &[IpAddr]| {
        assert_eq!(pods.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.42.1.9", "fd42::9"]);
        Some(Lacking::Prefix(pods[1]))
    };
    let refusal = obey("ADD", &network("0.4.0", BEFORE), watched).unwrap_err();
    assert!(refusal.what.contains("fd42::9"), "{refusal}");
    assert!(refusal.to_string().contains("\"cniVersion\":\"0.4.0\""), "{refusal}");
}

#[test]
fn without_a_guard_nobody_is_added_and_everybody_may_go() {
    let input = network("1.1.0", BEFORE);
    assert_eq!(code(obey("ADD", &input, fallen)), 11);
    assert_eq!(code(obey("CHECK", &input, fallen)), 11);
    assert_eq!(code(obey("STATUS", &input, fallen)), 50);
    assert_eq!(obey("STATUS", &input, stands).unwrap(), "");
    for input in [&input[..], b"", b"nonsense", br#"{"cniVersion":"9.0.0"}"#] {
        assert_eq!(obey("DEL", input, fallen).unwrap(), "");
        assert_eq!(obey("GC", input, fallen).unwrap(), "");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_own_code_also_while_the_guard_stands() {
    assert_eq!(code(obey("ADD", &network("9.0.0", BEFORE), stands)), 1);
    assert_eq!(code(obey("ADD", b"{}", stands)), 1);
    assert_eq!(code(obey("", b"", stands)), 4);
    assert_eq!(code(obey("add", &network("1.0.0", BEFORE), stands)), 4);
    assert_eq!(code(obey("ADD", b"{", stands)), 6);
    assert_eq!(code(obey("ADD", &network("1.0.0", "[]"), stands)), 6);
    assert_eq!(code(obey("ADD", &network("1.0.0", r#"{"ips":[{"address":"10.1"}]}"#), stands)), 6);
    assert_eq!(code(obey("ADD", br#"{"cniVersion":"1.0.0"}"#, stands)), 7);
    assert_eq!(code(obey("ADD", &network("1.0.0", "null"), stands)), 7);
}

#[test]
fn a_runtime_learns_which_versions_are_spoken() {
    for (input, version) in [(&b""[..], "1.1.0"), (br#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
        let said: Value = serde_json::from_str(&obey("VERSION", input, fallen).unwrap()).unwrap();
        assert_eq!(said["cniVersion"], version);
        assert_eq!(said["supportedVersions"], serde_json::json!(VERSIONS));
    }
}
