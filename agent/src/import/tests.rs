use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Keys as `wg` prints them; for tests only.
const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PEER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PRESHARED: &str = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=";

fn wg0() -> String {
    format!(
        "[Interface] # office\nAddress = 10.9.0.1/24, fd09::1/64\nPrivateKey = {PRIVATE}\nListenPort = 51821\nMTU = 1400\nDNS = 10.9.0.53\n\
         PostUp = iptables -A FORWARD -i %i -j ACCEPT\n\n[Peer]\nPublicKey = {PEER}\nPresharedKey = {PRESHARED}\n\
         AllowedIPs = 10.9.0.2/32, 192.168.7.0/24\nAllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.9:51820\n\
         PersistentKeepalive = 25\n\n[peer]\npublickey={}\nallowedips=10.9.0.3\nendpoint = office.example:51820\n\
         persistentkeepalive = off\n",
        "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA="
    )
}

fn imported(text: &str, folder: &Path) -> Result<wg_quick::Imported, String> {
    wg_quick::import(text, folder)
}

#[test]
fn a_file_of_wg_quick_becomes_a_configuration_that_is_valid_as_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, output) = (folder.path().join("wg0.conf"), folder.path().join("warren"));
    fs::write(&file, wg0()).expect("written");
    run(&Command::WgQuick { file, output: output.clone() }).expect("imported");
    let config = config::load(&output.join("warren.toml")).expect("valid");
    let words = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(" ");
    assert_eq!(words(&mut config.overlay.address.iter().map(ToString::to_string)), "10.9.0.1 fd09::1");
    assert_eq!(words(&mut config.overlay.networks.iter().map(ToString::to_string)), "10.9.0.0/24 fd09::/64");
    assert_eq!((config.underlay.port, config.overlay.mtu), (51821, Some(1400)));
    let [one, two] = &config.peers[..] else { panic!("two peers: {:?}", config.peers) };
    assert_eq!(one.public_key.to_string(), PEER);
    assert_eq!(words(&mut one.cidrs.iter().map(ToString::to_string)), "10.9.0.2/32 192.168.7.0/24");
    assert_eq!((one.endpoint, one.persistent_keepalive), ("192.0.2.9:51820".parse().ok(), Some(25)));
    assert!(one.preshared_key.is_some() && two.preshared_key.is_none());
    assert_eq!((two.endpoint, two.persistent_keepalive), (None, None));
    assert_eq!(fs::read_to_string(&config.node.key_file).expect("the key").trim(), PRIVATE);
    for name in ["warren.toml", "private.key", "peer-1.psk"] {
        let mode = fs::metadata(output.join(name)).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let text = fs::read_to_string(output.join("warren.toml")).expect("it is there");
    assert!(!text.contains(PRIVATE) && !text.contains(PRESHARED), "a key stands in the configuration");
}

#[test]
fn what_has_no_counterpart_is_named() {
    let notes = imported(&wg0(), Path::new("/x")).expect("valid").notes.join("\n");
    for word in ["DNS", "PostUp", "office.example", "0.0.0.0/0"] {
        assert!(notes.contains(word), "{word} in {notes}");
    }
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wg0.conf");
    fs::write(&file, wg0()).expect("written");
    fs::write(folder.path().join("private.key"), "mine").expect("written");
    let error = run(&Command::WgQuick { file, output: folder.path().to_owned() }).expect_err("it is there");
    assert!(error.contains("private.key is there already"), "{error}");
    assert!(!folder.path().join("warren.toml").exists(), "half of it was written");
    assert_eq!(fs::read_to_string(folder.path().join("private.key")).expect("still there"), "mine");
}

#[test]
fn faults_name_their_line_and_never_a_key() {
    for (text, said) in [
        ("", "no PrivateKey"),
        ("Address = 10.0.0.1/24", "1: a key before any section"),
        ("[Interface]\nPrivateKey = c2VjcmV0", "2: PrivateKey"),
        (&format!("[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nAllowedIPs = 10.0.0.2"), "3: [Peer] has no PublicKey"),
        (&format!("[Interface]\nPrivateKey = {PRIVATE}\nMTU = large"), "3: MTU: must be a number"),
        (&format!("[Interface]\nPrivateKey = {PRIVATE}\nColour = red"), "3: \"Colour\" is no key of [Interface]"),
        (&format!("[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nAllowedIPs = all"), "4: AllowedIPs"),
        (PRIVATE, "1: a key before any section"),
        // A key of which the end or the beginning of the line is missing.
        (&format!("[Interface]\n{PRIVATE}"), "2: what stands here is no key of [Interface]"),
        (&format!("[Interface]\nPrivateKey {PRIVATE}"), "2: what stands here is no key of [Interface]"),
        (&format!("[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\n{PRIVATE}"), "4: what stands here is no key of [Peer]"),
        ("c2VjcmV0", "1: neither a section"),
    ] {
        let error = imported(text, Path::new("/x")).err().expect(said);
        assert!(error.contains(said), "{error}");
        assert!(!error.contains(PRIVATE) && !error.contains("c2VjcmV0"), "{error}");
    }
}
