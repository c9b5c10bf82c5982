use serde_json::json;

use super::super::super::object::Kind;
use super::*;

/// As Calico writes it, labels and all (libcalico-go, `ipam_affinity_v1.go`).
fn affinity(node: &str, block: &str, change: impl FnOnce(&mut Value)) -> Object {
    let name = format!("{node}-{}", block.replace(['.', ':', '/'], "-"));
    let mut value = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity",
        "metadata": {"annotations": {"projectcalico.org/metadata": "{\"creationTimestamp\":null}"},
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 2, "name": name, "resourceVersion": "1234",
            "uid": "3a2f4f39-4eff-4b2e-b825-02e92bb24077"},
        "spec": {"cidr": block, "deleted": "false", "node": node, "state": "confirmed", "type": "host"}});
    change(&mut value);
    Object::read(Kind::Affinity, value).expect("it has a name")
}

fn node() -> NodeName {
    "a".parse().expect("a name")
}

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

#[test]
fn the_confirmed_affinities_of_a_node_are_its_blocks() {
    let spec = |key: &'static str, value: Value| move |object: &mut Value| object["spec"][key] = value;
    let older = |object: &mut Value| _ = object["spec"].as_object_mut().expect("a map").remove("type");
    let all = [
        affinity("a", "192.168.18.64/26", |_| {}),
        affinity("a", "fd00:10:244::40/122", older),
        affinity("a-b", "192.168.19.0/26", |_| {}),
        affinity("a", "192.168.20.0/26", spec("state", "pending".into())),
        affinity("a", "192.168.21.0/26", spec("state", "pendingDeletion".into())),
        affinity("a", "192.168.22.0/26", spec("deleted", "true".into())),
        affinity("a", "192.168.23.0/26", spec("type", "virtual".into())),
    ];
    let blocks = nets(&["192.168.18.64/26", "fd00:10:244::40/122"]);
    assert_eq!(said(all.iter(), &node(), &nets(&[])), Said { blocks, ..Said::default() });
}

#[test]
fn a_block_is_lost_only_when_it_is_given_back_or_another_node_has_it() {
    let spec = |key: &'static str, value: Value| move |object: &mut Value| object["spec"][key] = value;
    let all = [
        affinity("a", "10.1.0.0/26", |_| {}),
        affinity("b", "10.1.0.0/26", |_| {}),
        affinity("a", "10.1.1.0/26", spec("state", "pendingDeletion".into())),
        affinity("a", "10.1.2.0/26", spec("deleted", "true".into())),
        affinity("a", "10.1.3.0/26", spec("state", "pending".into())),
        affinity("b", "10.1.4.64/26", |_| {}),
        affinity("b", "10.1.5.0/26", spec("state", "pending".into())),
        affinity("b", "10.1.6.0/26", spec("type", "virtual".into())),
        affinity("b", "0.0.0.0/0", |_| {}),
        affinity("b", "10.1.0.0/19", |_| {}),
    ];
    let had: BTreeSet<IpNet> = (0..8).map(|third| format!("10.1.{third}.0/26").parse().expect("a prefix")).collect();
    let had = &had | &nets(&["10.1.4.0/24"]);
    let said = said(all.iter(), &node(), &had);
    assert_eq!(said.lost, nets(&["10.1.1.0/26", "10.1.2.0/26", "10.1.4.0/24"]));
    assert_eq!(said.blocks, nets(&["10.1.0.0/26"]), "what both have stays the older one's, which the registry knows");
}

#[test]
fn a_damaged_affinity_of_this_node_is_named_and_harms_no_other() {
    let with = |spec: Value| move |object: &mut Value| object["spec"] = spec;
    let said = |cidr: &str| json!({"cidr": cidr, "deleted": "false", "node": "a", "state": "confirmed"});
    for spec in [
        json!(null),
        json!(7),
        json!({"node": "a"}),
        said("ten"),
        said("10.1.0.1/26"),
        said("10.1.0.0"),
        said("10.0.0.0/8"),
    ] {
        let all = [affinity("a", "10.1.0.0/26", with(spec.clone())), affinity("a", "10.1.0.64/26", |_| {})];
        let Said { blocks, problems, .. } = super::said(all.iter(), &node(), &nets(&[]));
        assert_eq!(blocks, nets(&["10.1.0.64/26"]), "{spec}");
        assert!(problems.len() == 1 && problems[0].contains("\"a-10-1-0-0-26\""), "{spec}: {problems:?}");
    }
    for (other, block) in
        [("b", "10.1.0.0/26"), ("a-b", "10.1.0.0/26"), ("a-10", "10.1.0.0/26"), ("a-x", "fd00::40/122")]
    {
        let others = [affinity(other, block, with(json!(null)))];
        let named = super::said(others.iter(), &node(), &nets(&[]));
        assert_eq!(named, Said::default(), "what is others' is theirs to say");
    }
    let of_other = [affinity("a", "10.1.0.0/26", with(json!({"node": "b"})))];
    assert_eq!(super::said(of_other.iter(), &node(), &nets(&[])), Said::default(), "whatever its name is");
    let six = [affinity("a", "fd00::40/122", with(json!(null)))];
    assert_eq!(super::said(six.iter(), &node(), &nets(&[])).problems.len(), 1);
}
