use std::fs;
use std::path::Path;

use super::conflist::{Silent, prefixes};
use super::*;

/// What is on a node that runs this CNI, as its own installer writes it.
const KINDNET: &str = include_str!("fixtures/kindnet.conflist");
const GKE: &str = include_str!("fixtures/gke-ptp.conflist");
const GKE_CALICO: &str = include_str!("fixtures/gke-calico.conflist");
const KUBE_ROUTER: &str = include_str!("fixtures/kube-router.conflist");
const PODMAN: &str = include_str!("fixtures/podman.conflist");
const FLANNEL: &str = include_str!("fixtures/flannel.conflist");
const CALICO: &str = include_str!("fixtures/calico.conflist");
const CANAL: &str = include_str!("fixtures/canal.conflist");
const CILIUM: &str = include_str!("fixtures/cilium.conflist");
const AWS: &str = include_str!("fixtures/aws.conflist");
const AZURE: &str = include_str!("fixtures/azure.conflist");
const ANTREA: &str = include_str!("fixtures/antrea.conflist");
const OVN: &str = include_str!("fixtures/ovn-kubernetes.conf");
const SUBNET_ENV: &str = include_str!("fixtures/subnet.env");
const SUBNET_ENV_DUAL: &str = include_str!("fixtures/subnet-dual.env");

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

#[test]
fn the_ranges_of_host_local_are_the_nodes_prefixes_whoever_wrote_them() {
    for (name, text, expected) in [
        ("kindnet, dual stack", KINDNET, &["10.244.1.0/24", "fd00:10:244:1::/64"][..]),
        ("GKE", GKE, &["10.8.3.0/24"]),
        ("kube-router, one plugin list with a subnet", KUBE_ROUTER, &["10.1.2.0/24"]),
        (
            "one plugin alone, no list",
            r#"{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.1.3.0/24"}}"#,
            &["10.1.3.0/24"],
        ),
        ("podman", PODMAN, &["10.88.0.0/16"]),
    ] {
        assert_eq!(prefixes(text), Ok(nets(expected)), "{name}");
    }
}

#[test]
fn a_cni_that_gives_the_node_no_prefix_in_its_file_is_named_and_nothing_is_guessed() {
    for (text, plugin, ipam) in [
        (CALICO, "calico", Some("calico-ipam")),
        (CILIUM, "cilium-cni", None),
        (AWS, "aws-cni", None),
        (AZURE, "azure-vnet", Some("azure-vnet-ipam")),
        (OVN, "ovn-k8s-cni-overlay", None),
    ] {
        let silent = prefixes(text).expect_err(plugin);
        assert_eq!(silent, Silent::Allocator { plugin: plugin.to_owned(), ipam: ipam.map(str::to_owned) });
        let said = silent.to_string();
        assert!(said.contains(plugin) && said.contains("overlay.mode = \"nodes\""), "{said}");
    }
    for (text, plugin) in [(CANAL, "calico"), (ANTREA, "antrea"), (GKE_CALICO, "calico")] {
        assert_eq!(prefixes(text), Err(Silent::OfTheNode(plugin.to_owned())), "{plugin}");
    }
}

#[test]
fn the_addresses_of_a_plugin_behind_the_first_are_not_the_pods() {
    // The AWS CNI's way out by IPv4 has a host-local of its own, on every node the same.
    assert!(AWS.contains("host-local") && AWS.contains("169.254.172.0/22"), "the fixture has lost its point");
    assert!(matches!(prefixes(AWS), Err(Silent::Allocator { .. })));
}

#[test]
fn a_part_of_a_subnet_and_a_subnet_with_host_bits_are_refused() {
    let with = |range: &str| {
        format!(r#"{{"plugins": [{{"type": "bridge", "ipam": {{"type": "host-local", "ranges": [[{range}]]}}}}]}}"#)
    };
    let part = with(r#"{"subnet": "10.42.0.0/16", "rangeStart": "10.42.1.0", "rangeEnd": "10.42.1.255"}"#);
    assert_eq!(prefixes(&part), Err(Silent::Part("10.42.0.0/16".to_owned())));
    let bits = with(r#"{"subnet": "10.42.1.1/24"}"#);
    assert!(matches!(prefixes(&bits), Err(Silent::Malformed(what)) if what.contains("host bits")));
}

#[test]
fn what_is_no_configuration_is_an_error_and_never_a_panic() {
    let whole = KINDNET.as_bytes();
    for end in 0..whole.len() {
        let text = String::from_utf8_lossy(&whole[..end]);
        assert!(prefixes(&text).is_err() || text.trim_end() == KINDNET.trim_end(), "cut at {end}");
    }
    for text in ["", "[]", "{}", "null", r#"{"plugins": []}"#, r#"{"plugins": 1}"#, r#"{"type": 5}"#] {
        assert!(matches!(prefixes(text), Err(Silent::Malformed(_))), "{text}");
    }
    let wrong = [r#""ranges": [{"subnet": "10.0.0.0/24"}]"#, r#""ranges": [[{"subnet": "ten"}]]"#, r#""ranges": 5"#];
    for ranges in wrong {
        let text = format!(r#"{{"type": "ptp", "ipam": {{"type": "host-local", {ranges}}}}}"#);
        assert!(matches!(prefixes(&text), Err(Silent::Malformed(_))), "{text}");
    }
}

#[test]
fn flannels_subnets_are_read_for_both_families_and_without_host_bits() {
    assert_eq!(subnet_env::prefixes(SUBNET_ENV), Ok(nets(&["10.244.2.0/24"])));
    assert_eq!(subnet_env::prefixes(SUBNET_ENV_DUAL), Ok(nets(&["10.42.1.0/24", "2001:cafe:42:1::/64"])));
    for (text, said) in [
        ("", "names no subnet"),
        ("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=\n", "names no subnet"),
        ("FLANNEL_SUBNET=10.244.0.1", "no prefix"),
    ] {
        let error = subnet_env::prefixes(text).expect_err(text);
        assert!(error.contains(said), "{error}");
    }
}

/// A host's folders, as files with their contents.
struct Host(tempfile::TempDir);

impl Host {
    fn with(files: &[(&str, &str)]) -> Self {
        let host = Self(tempfile::tempdir().expect("a folder"));
        files.iter().for_each(|(name, text)| host.write(name, text));
        host
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn look(&self, source: Source) -> Result<(BTreeSet<IpNet>, String), String> {
        let cni_dir = self.0.path().join("net.d");
        let place = Where { source, cni_dir, flannel_file: self.0.path().join("subnet.env") };
        look(&place).map(|found| (found.given.cidrs, name_of(Path::new(&found.from))))
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn of_several_configurations_the_first_by_name_counts_as_for_container_runtimes() {
    let host = Host::with(&[
        ("net.d/87-podman.conflist", PODMAN),
        ("net.d/10-kindnet.conflist", KINDNET),
        ("net.d/10-kindnet.conflist.temp", "half a file"),
        ("net.d/05-notes.txt", "no configuration"),
    ]);
    let (cidrs, from) = host.look(Source::Cni).expect("there is one");
    assert_eq!((cidrs, from.as_str()), (nets(&["10.244.1.0/24", "fd00:10:244:1::/64"]), "10-kindnet.conflist"));
    host.write("net.d/05-calico.conflist", CALICO);
    let error = host.look(Source::Cni).expect_err("Calico comes first");
    assert!(error.contains("05-calico.conflist") && error.contains("calico-ipam"), "{error}");
}

#[test]
fn auto_takes_what_is_there_and_says_what_is_not() {
    let host = Host::with(&[]);
    let error = host.look(Source::Any).expect_err("nothing is there");
    assert!(error.contains("net.d holds no CNI configuration") && error.contains("subnet.env is not there"), "{error}");
    host.write("subnet.env", SUBNET_ENV);
    assert_eq!(host.look(Source::Any).expect("k3s keeps its configuration elsewhere").0, nets(&["10.244.2.0/24"]));
    host.write("net.d/10-flannel.conflist", FLANNEL);
    assert_eq!(host.look(Source::Any).expect("Flannel's").1, "subnet.env");
    let error = host.look(Source::Cni).expect_err("Flannel's configuration names none");
    assert!(error.contains("node.cidrs = \"flannel\""), "{error}");
    host.write("net.d/05-calico.conflist", CALICO);
    let error = host.look(Source::Any).expect_err("what Flannel left behind is not the CNI's word");
    assert!(error.contains("calico-ipam"), "{error}");
}

#[test]
fn a_file_beyond_all_measure_is_not_read() {
    let host = Host::with(&[("net.d/10-huge.conflist", &" ".repeat(2 << 20))]);
    assert!(host.look(Source::Cni).expect_err("too large").contains("cannot be read"));
}
