use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

const KINDNET: &str = r#"{
  "cniVersion": "0.3.1",
  "name": "kindnet",
  "plugins": [
    { "type": "ptp", "ipam": { "type": "host-local", "ranges": [ [ { "subnet": "10.244.1.0/24" } ] ] } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
"#;

/// A host's two folders, with every plugin in place.
struct Host {
    folder: tempfile::TempDir,
    plugins: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let [folder, plugins, state] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let host = Self { folder, plugins, state };
        network::PLUGINS.into_iter().chain([PLUGIN]).for_each(|name| host.plugin(name));
        host
    }

    fn plugin(&self, name: &str) {
        let path = self.plugins.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn wanted(&self, gate: bool, cidrs: Option<&[&str]>) -> Wanted {
        let network = |cidrs: &[&str]| {
            let cidrs = cidrs.iter().map(|text| text.parse().unwrap()).collect();
            Network { cidrs, networks: ["10.244.0.0/16".parse().unwrap()].into(), mtu: 1440 }
        };
        Wanted {
            folder: self.folder.path().to_owned(),
            plugins: self.plugins.path().to_owned(),
            state_dir: self.state.path().to_owned(),
            gate,
            network: cidrs.map(network),
        }
    }

    fn remove(&self) -> Result<Vec<String>, String> {
        remove(self.folder.path(), self.state.path())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join(name)).ok()
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[track_caller]
fn says(problems: &[String], key: &str, what: &str) {
    assert!(problems.iter().any(|said| said.starts_with(key) && said.contains(what)), "{what} in {problems:?}");
}

#[test]
fn the_gate_stands_in_a_copy_that_comes_first_and_the_cnis_own_file_is_never_touched() {
    let host = Host::new();
    let wanted = host.wanted(true, None);
    says(&wanted.keep(), "cni.gate", "no CNI configuration yet");
    assert!(host.files().is_empty());

    host.write("10-kindnet.conflist", KINDNET);
    assert_eq!(wanted.keep(), Vec::<String>::new());
    assert_eq!(host.files(), [GATE_FILE, "10-kindnet.conflist"]);
    let entry = ",\n    {\"type\": \"warren-gate\"}\n  ]\n}\n";
    assert_eq!(host.read(GATE_FILE).unwrap(), KINDNET.replace("\n  ]\n}\n", entry));
    assert_eq!(host.read("10-kindnet.conflist").unwrap(), KINDNET);

    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(host.folder.path().join(name)).unwrap());
    let before = inode(GATE_FILE);
    assert_eq!(wanted.keep(), Vec::<String>::new());
    assert_eq!(inode(GATE_FILE), before, "written although nothing changed");
}

#[test]
fn the_copy_follows_its_cni_and_outlives_it() {
    let host = Host::new();
    let wanted = host.wanted(true, None);
    host.write("10-kindnet.conflist", KINDNET);
    wanted.keep();
    host.write("10-kindnet.conflist", &KINDNET.replace("10.244.1.0", "10.244.2.0"));
    assert_eq!(wanted.keep(), Vec::<String>::new());
    assert!(host.read(GATE_FILE).unwrap().contains("10.244.2.0"));

    let kept = host.read(GATE_FILE);
    host.write("10-kindnet.conflist", &KINDNET[..40]);
    says(&wanted.keep(), "cni.gate", "10-kindnet.conflist: this is no CNI configuration");
    fs::remove_file(host.folder.path().join("10-kindnet.conflist")).unwrap();
    says(&wanted.keep(), "cni.gate", "holds what it said last");
    assert_eq!(host.read(GATE_FILE), kept);

    host.write("20-other.conflist", &KINDNET.replace("kindnet", "other"));
    assert_eq!(wanted.keep(), Vec::<String>::new());
    assert!(host.read(GATE_FILE).unwrap().contains("\"other\""));
    assert_eq!(host.wanted(false, None).keep(), Vec::<String>::new());
    assert_eq!(host.files(), ["20-other.conflist"]);
}

#[test]
fn a_cni_that_has_the_gate_itself_needs_no_copy() {
    let host = Host::new();
    host.write("10-kindnet.conflist", KINDNET);
    host.wanted(true, None).keep();
    host.write("10-kindnet.conflist", &chain::with_gate(KINDNET).unwrap());
    assert_eq!(host.wanted(true, None).keep(), Vec::<String>::new());
    assert_eq!(host.files(), ["10-kindnet.conflist"]);
    let refused = host.remove().unwrap_err();
    assert!(refused.contains("10-kindnet.conflist") && refused.contains("take it out"), "{refused}");
}

#[test]
fn nothing_is_written_that_would_not_count_or_that_would_let_no_pod_start() {
    let host = Host::new();
    host.write("00-multus.conf", r#"{"cniVersion": "0.3.1", "name": "m", "type": "multus"}"#);
    says(&host.wanted(true, None).keep(), "cni.gate", "comes before");
    fs::rename(host.folder.path().join("00-multus.conf"), host.folder.path().join("01-multus.conf")).unwrap();
    says(&host.wanted(true, None).keep(), "cni.gate", "belongs into that one");
    fs::remove_file(host.folder.path().join("01-multus.conf")).unwrap();

    host.write("10-kindnet.conflist", KINDNET);
    fs::remove_file(host.plugins.path().join(PLUGIN)).unwrap();
    says(&host.wanted(true, None).keep(), "cni.gate", "lacks warren-gate");
    fs::write(host.plugins.path().join(PLUGIN), "not executable").unwrap();
    says(&host.wanted(true, None).keep(), "cni.gate", "lacks warren-gate");
    assert_eq!(host.files(), ["10-kindnet.conflist"]);
}

#[test]
fn a_node_without_a_cni_gets_a_network_of_its_own_prefixes() {
    let host = Host::new();
    says(&host.wanted(true, Some(&[])).keep(), "cni.install", "no prefix yet");
    let cidrs: &[&str] = &["10.244.1.0/24"];
    assert_eq!(host.wanted(true, Some(cidrs)).keep(), Vec::<String>::new());
    assert_eq!(host.files(), [NETWORK_FILE], "the gate is in the network's own file");
    assert!(chain::has_gate(&host.read(NETWORK_FILE).unwrap()));
    assert_eq!(host.wanted(false, Some(&["10.244.2.0/24"])).keep(), Vec::<String>::new());
    let text = host.read(NETWORK_FILE).unwrap();
    assert!(text.contains("10.244.2.2") && !chain::has_gate(&text), "{text}");

    fs::remove_file(host.plugins.path().join("portmap")).unwrap();
    says(&host.wanted(false, Some(cidrs)).keep(), "cni.install", "lacks portmap");
    assert_eq!(host.read(NETWORK_FILE).unwrap(), text);
    assert_eq!(host.remove().unwrap().len(), 1);
    assert!(host.files().is_empty() && host.remove().unwrap().is_empty());
}

#[test]
fn another_cnis_network_is_never_overwritten_and_never_removed() {
    let host = Host::new();
    host.write("10-kindnet.conflist", KINDNET);
    let wanted = host.wanted(false, Some(&["10.244.1.0/24"]));
    says(&wanted.keep(), "cni.install", "10-kindnet.conflist is another CNI's");
    assert_eq!(host.files(), ["10-kindnet.conflist"]);
    fs::rename(host.folder.path().join("10-kindnet.conflist"), host.folder.path().join(NETWORK_FILE)).unwrap();
    says(&wanted.keep(), "cni.install", "somebody else's");
    assert_eq!(host.wanted(false, None).keep(), Vec::<String>::new());
    assert!(host.remove().unwrap().is_empty());
    assert_eq!(host.read(NETWORK_FILE).unwrap(), KINDNET);
}

#[test]
fn what_another_agent_wrote_is_left_alone_and_what_this_one_wrote_is_found_wherever_it_is() {
    let host = Host::new();
    host.write("10-kindnet.conflist", KINDNET);
    assert_eq!(host.wanted(true, None).keep(), Vec::<String>::new());
    let stranger = Wanted { state_dir: tempfile::tempdir().unwrap().keep(), ..host.wanted(false, None) };
    assert_eq!(stranger.keep(), Vec::<String>::new());
    assert!(host.read(GATE_FILE).is_some(), "an agent that wrote no gate took one away");

    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(remove(elsewhere.path(), host.state.path()).unwrap().len(), 1, "it looks where it wrote");
    assert_eq!(host.files(), ["10-kindnet.conflist"]);
    fs::remove_dir(&stranger.state_dir).unwrap();
}

#[test]
fn the_guard_does_not_go_while_the_folder_with_the_gate_is_out_of_sight() {
    let host = Host::new();
    host.write("10-kindnet.conflist", KINDNET);
    host.wanted(true, None).keep();
    let aside = host.folder.path().with_extension("aside");
    fs::rename(host.folder.path(), &aside).unwrap();
    let refused = remove(Path::new("/nonexistent"), host.state.path()).unwrap_err();
    assert!(refused.contains("not seen from here") && refused.contains(GATE_FILE), "{refused}");
    fs::rename(&aside, host.folder.path()).unwrap();
    assert_eq!(host.remove().unwrap().len(), 1);
    assert_eq!(fs::read_dir(host.state.path()).unwrap().count(), 0, "the list goes with what it lists");
}

#[test]
fn a_link_to_nowhere_stops_the_gate_where_it_is_and_a_file_that_is_closed_later_closes_the_copy() {
    let host = Host::new();
    host.write("87-podman.conflist", KINDNET);
    std::os::unix::fs::symlink("/nonexistent/05.conflist", host.folder.path().join("05-vendor.conflist")).unwrap();
    says(&host.wanted(true, None).keep(), "cni.gate", "05-vendor.conflist is a link to nowhere");
    assert_eq!(host.read(GATE_FILE), None);
    fs::remove_file(host.folder.path().join("05-vendor.conflist")).unwrap();
    assert_eq!(host.wanted(true, None).keep(), Vec::<String>::new());
    let closed = fs::Permissions::from_mode(0o600);
    fs::set_permissions(host.folder.path().join("87-podman.conflist"), closed).unwrap();
    assert_eq!(host.wanted(true, None).keep(), Vec::<String>::new());
    assert_eq!(folder::mode(&host.folder.path().join(GATE_FILE)), 0o600);
}
