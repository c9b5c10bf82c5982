use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Config, parse};

/// What a table cannot do without.
fn required(section: &str) -> String {
    KEYS.iter()
        .filter(|key| key.section == section && key.default == "(required)")
        .map(|key| format!("{} = {}\n", key.name, key.example))
        .collect()
}

/// The key alone in its table, beside what the table cannot do without.
fn file(key: &Key, value: &str) -> String {
    let others: String = required(key.section)
        .lines()
        .filter(|line| !line.starts_with(&format!("{} =", key.name)))
        .fold(String::new(), |all, line| all + line + "\n");
    let header = if key.section == "peer" { "[[peer]]".to_owned() } else { format!("[{}]", key.section) };
    format!("{header}\n{others}{} = {value}\n", key.name)
}

fn read(text: &str) -> Config {
    parse(text, Path::new("warren.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Keys that need a file or another key beside them; the command line's suite has those.
fn stands_alone(key: &Key) -> bool {
    let beside_others =
        ["cert_file", "username", "password", "password_file", "preshared_key_file", "kubeconfig", "context"];
    !beside_others.contains(&key.name) && (key.section, key.name) != ("etcd", "key_file")
}

#[test]
fn every_example_is_accepted() {
    KEYS.iter().filter(|key| stands_alone(key)).for_each(|key| {
        read(&file(key, key.example));
    });
}

#[test]
fn every_written_default_is_what_holds_without_the_key() {
    for key in KEYS.iter().filter(|key| !key.default.starts_with('(')) {
        let written = read(&file(key, key.default));
        let without = match key.section {
            "etcd" => read(&format!("[etcd]\n{}", required("etcd"))),
            "kubernetes" => read("[kubernetes]"),
            "peer" => read(&format!("[[peer]]\n{}", required("peer"))),
            _ => read(""),
        };
        assert_eq!(format!("{written:?}"), format!("{without:?}"), "{}.{}", key.section, key.name);
    }
}

#[test]
fn no_two_keys_share_a_variable_and_none_is_one_that_kubernetes_sets_beside_a_service() {
    let mut seen = std::collections::BTreeSet::from(["WARREN_CONFIG".to_owned()]);
    for key in KEYS {
        let name = key.variable();
        let of_a_service = ["_SERVICE_HOST", "_TCP", "_UDP", "_PROTO", "_ADDR"].iter().any(|end| name.ends_with(end));
        assert!(!of_a_service && name != "WARREN_PORT" && seen.insert(name.clone()), "{name}");
    }
}

#[test]
fn the_example_file_is_valid_as_it_is_and_with_every_default_in_it() {
    read(&example());
    let plain = ["node", "overlay", "underlay", "offload", "workers", "health", "metrics", "log"];
    for section in plain {
        let defaults: String = KEYS
            .iter()
            .filter(|key| key.section == section && !key.default.starts_with('('))
            .map(|key| format!("{} = {}\n", key.name, key.default))
            .collect();
        read(&format!("[{section}]\n{defaults}"));
    }
}

#[test]
fn the_pages_in_the_repository_are_those_of_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned();
    for (path, text) in [("docs/config.md", page()), ("deploy/warren.toml", example())] {
        let path: PathBuf = root.join(path);
        if std::env::var_os("WARREN_WRITE_DOCS").is_some() {
            std::fs::write(&path, &text).expect("the repository can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is stale: WARREN_WRITE_DOCS=1 cargo test -p warren config::keys", path.display());
    }
}
