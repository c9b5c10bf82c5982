//! What administrators and nodes may do in a real etcd: allocations that race, users and roles, expiring tokens, TLS.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by it")]

mod etcd_space;

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_space::node::{Node, auto, listed};
use etcd_space::{CLUSTER, PREFIX, Store, scenario, write_secret};
use ipnet::IpNet;
use warren_agent::config::{self, Cidrs, Config};
use warren_agent::registry::etcd::{AllocateError, Keys, Want, allocate, connect, release};
use warren_overlay::mesh::Enforcement;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[test]
fn nodes_that_race_never_get_overlapping_prefixes_whatever_their_lengths() {
    scenario(async {
        let store = Store::start();
        let networks = [net("10.0.0.0/13")].into();
        let race = |number: usize| {
            let (config, networks) = (store.config(), std::collections::BTreeSet::clone(&networks));
            async move {
                let mut client = connect(&config).await.expect("etcd answers");
                let node = format!("n{number}").parse().expect("a name");
                let want = Want::Any { v6: false, length: if number.is_multiple_of(2) { 16 } else { 24 } };
                allocate(&mut client, &Keys::new(CLUSTER), &node, &want, &networks, &BTreeMap::new()).await
            }
        };
        let given = futures::future::join_all((0..10).map(race)).await;
        let given: Vec<_> = given.into_iter().map(|cidr| cidr.expect("there is room")).collect();
        assert_eq!(given.iter().filter(|cidr| cidr.prefix_len() == 16).count(), 5);
        for (index, one) in given.iter().enumerate() {
            let other = given.iter().skip(index + 1).find(|other| overlap(one, other));
            assert_eq!(other, None, "{one} overlaps");
        }
    });
}

#[test]
fn of_hosts_that_race_for_one_prefix_by_name_exactly_one_gets_it() {
    scenario(async {
        let store = Store::start();
        let networks = [net("10.0.0.0/8")].into();
        let race = |number: u8| {
            let (config, networks) = (store.config(), std::collections::BTreeSet::clone(&networks));
            async move {
                let mut client = connect(&config).await.expect("etcd answers");
                let node = format!("n{number}").parse().expect("a name");
                let wanted =
                    IpNet::new([10, 1, number, 0].into(), if number == 0 { 16 } else { 24 }).expect("a prefix");
                allocate(&mut client, &Keys::new(CLUSTER), &node, &Want::This(wanted), &networks, &BTreeMap::new())
                    .await
            }
        };
        let given = futures::future::join_all((0..10).map(race)).await;
        let whole_won = given.first().is_some_and(Result::is_ok);
        let won = given.iter().filter(|one| one.is_ok()).count();
        // Either the /16, or the nine /24 inside of it.
        assert_eq!(won, if whole_won { 1 } else { 9 }, "{given:?}");
        assert!(given.iter().all(|one| matches!(one, Ok(_) | Err(AllocateError::Taken { .. }))), "{given:?}");
    });
}

#[test]
fn a_node_with_more_prefixes_than_one_transaction_takes_is_released_whole() {
    scenario(async {
        let store = Store::start();
        let (mut client, keys) = (connect(&store.config()).await.expect("etcd answers"), Keys::new(CLUSTER));
        let (node, networks) = ("a".parse().expect("a name"), [net("10.0.0.0/8")].into());
        for third in 0..70 {
            let want = Want::This(net(&format!("10.1.{third}.0/24")));
            let given = allocate(&mut client, &keys, &node, &want, &networks, &BTreeMap::new()).await;
            given.expect("it is free");
        }
        let forgotten: Vec<_> = (0..90).map(|third| net(&format!("10.2.{third}.0/24"))).collect();
        let released = release(&mut client, &keys, &node, &forgotten).await.expect("etcd takes it");
        assert_eq!(released.len(), 70);
        let left = |below: &str| store.ctl(&["get", "--prefix", "--keys-only", &format!("{PREFIX}{below}")]);
        assert_eq!(left("alloc/"), "");
        assert_eq!(left("released/").split_whitespace().count(), 160);
    });
}

#[test]
fn init_twice_is_harmless_and_another_init_is_refused() {
    let store = Store::start();
    store.administer(&["init", "--network", "10.0.0.0/16", "--network", "fd00::/48"]);
    store.administer(&["init", "--network", "10.0.0.0/16", "--network", "fd00::/48"]);
    let before = store.get("cluster");
    let other = store.cluster(&["init", "--network", "10.1.0.0/16"]);
    assert!(!other.status.success() && String::from_utf8_lossy(&other.stderr).contains("--change"));
    assert_eq!(store.get("cluster"), before);
    store.administer(&["init", "--network", "10.0.0.0/15", "--permissive", "--change"]);
    assert!(store.get("cluster").contains("permissive"));
    let host_bits = store.cluster(&["init", "--network", "10.0.0.1/16"]);
    assert!(String::from_utf8_lossy(&host_bits.stderr).contains("did you mean 10.0.0.0/16"));
}

/// What `add-node` gives, as the host reads it.
fn carried(store: &Store, words: &[&str]) -> Config {
    let text = store.administer(words);
    let file = store.path(&format!("{}.toml", words[1]));
    write_secret(&file, &text);
    config::load(&file).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn add_node_gives_a_complete_configuration_and_release_takes_all_of_it_back() {
    let mut store = Store::start();
    store.authenticate();
    store.administer(&["init", "--network", "10.0.0.0/16", "--network", "fd00::/48"]);
    let config = carried(&store, &["add-node", "a"]);
    let Cidrs::Listed(cidrs) = &config.node.cidrs else { panic!("the CIDRs are written down") };
    assert_eq!(cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/24", "fd00::/64"]);
    assert_eq!(config.etcd.as_ref().and_then(|etcd| etcd.username.as_deref()), Some("warren-a"));
    store.administer(&["release", "a"]);
    assert_eq!(store.ctl(&["user", "list"]).trim(), "root");
    assert_eq!(store.ctl(&["role", "list"]).trim(), "");
    assert_eq!(store.get("alloc/10.0.0.0-24"), "");
    assert!(!store.ctl(&["get", "--keys-only", &format!("{PREFIX}released/10.0.0.0-24@a")]).is_empty());
    store.administer(&["release", "never-there"]);
}

#[test]
fn a_node_begins_with_the_networks_and_the_enforcement_that_the_cluster_had_when_it_was_added() {
    let store = Store::start();
    store.administer(&["init", "--network", "10.0.0.0/16", "--network", "fd00::/48", "--permissive"]);
    for (name, enforcement) in [("a", Enforcement::Permissive), ("b", Enforcement::Strict)] {
        let overlay = carried(&store, &["add-node", name]).overlay;
        assert_eq!(overlay.enforcement, enforcement);
        assert_eq!(overlay.networks, [net("10.0.0.0/16"), net("fd00::/48")].into());
        store.administer(&["release", name]);
        store.administer(&["init", "--network", "10.0.0.0/16", "--network", "fd00::/48", "--change"]);
    }
}

#[test]
fn an_administrator_whom_etcd_knows_by_certificate_gives_each_node_a_user_that_is_known_by_its_own() {
    scenario(async {
        let store = Store::start_with(true, &[]);
        for words in [&["user", "add", "root:admin"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
        {
            store.ctl(words);
        }
        let root = store.config_of("root");
        let administer = |words: &[&str]| {
            let done = store.cluster_by(&root, words);
            assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8_lossy(&done.stdout).into_owned()
        };
        administer(&["init", "--network", "10.0.0.0/16"]);
        let said = administer(&["add-node", "a"]);
        assert!(said.contains("common name warren-a\n") && !said.contains("password"), "{said}");
        let mut node = connect(&store.config_of("warren-a")).await.expect("etcd knows the certificate");
        node.put(format!("{PREFIX}nodes/a"), "x", None).await.expect("its own record");
        node.get(format!("{PREFIX}cluster"), None).await.expect("it reads everything");
        for key in ["nodes/b", "alloc/10.0.9.0-24", "cluster"] {
            let refused = node.put(format!("{PREFIX}{key}"), "x", None).await;
            assert!(refused.is_err_and(|error| error.to_string().contains("permission denied")), "{key}");
        }
        let not_root = store.cluster_by(&store.config_of("warren-a"), &["release", "b"]);
        let why = String::from_utf8_lossy(&not_root.stderr).into_owned();
        assert!(!not_root.status.success() && why.contains("common name root"), "{why}");
        administer(&["release", "a"]);
        node.put(format!("{PREFIX}nodes/a"), "x", None).await.expect_err("the user is gone");
    });
}

#[test]
fn a_file_in_the_way_of_the_new_one_costs_a_node_that_runs_nothing() {
    scenario(async {
        let mut store = Store::start();
        store.authenticate();
        store.administer(&["init", "--network", "10.0.0.0/16"]);
        let config = carried(&store, &["add-node", "a"]);
        let (taken, new) = (store.path("a.toml").display().to_string(), store.path("new.toml").display().to_string());
        let refused = store.cluster(&["add-node", "a", "--output", &taken]);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && why.contains("exists and is not overwritten"), "{why}");
        let mut node = connect(&config.etcd.expect("a registry")).await.expect("its password is as it was");
        node.put(format!("{PREFIX}nodes/a"), "x", None).await.expect("it still writes its record");
        let outside = store.cluster(&["add-node", "b", "--cidr", "10.9.0.0/24", "--output", &new]);
        assert!(!outside.status.success() && !store.path("new.toml").exists(), "an empty file stays behind");
        store.administer(&["add-node", "b", "--output", &new]);
        assert!(config::load(&store.path("new.toml")).is_ok(), "the file is whole, and its owner's alone");
    });
}

#[test]
fn what_etcd_refuses_an_administrator_is_said_with_what_was_tried_where_and_what_to_do() {
    let mut store = Store::start();
    let endpoint = format!("etcd at http://127.0.0.1:{}: ", store.port());
    store.authenticate();
    store.administer(&["init", "--network", "10.0.0.0/16"]);
    let a = carried(&store, &["add-node", "a"]).etcd.expect("a registry");
    let file = store.path("a-password");
    write_secret(&file, &a.password.as_ref().expect("it has a user").0);
    let node = config::Etcd { password_file: Some(file), ..a };
    let nobody = store.config();
    let cases: [(&config::Etcd, &[&str], [&str; 2]); 4] = [
        (&node, &["release", "b"], ["b was not released: ", "--username root"]),
        (&node, &["add-node", "b"], ["nothing was allocated: ", "--username root"]),
        (&node, &["init", "--network", "10.1.0.0/16", "--change"], ["the cluster was not set up: ", "--username root"]),
        (&nobody, &["release", "b"], ["b was not released: ", "asks for a user"]),
    ];
    for (who, words, expected) in cases {
        let refused = store.cluster_by(who, words);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{why}");
        for part in expected.into_iter().chain([endpoint.as_str()]) {
            assert!(why.contains(part), "{words:?} does not say {part:?}: {why}");
        }
        assert!(!why.contains("grpc") && !why.contains("code:"), "the library's words: {why}");
    }
    store.kill();
    let gone = store.cluster_by(&nobody, &["release", "b"]);
    let why = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(why.contains(&endpoint) && why.contains("does etcd run"), "{why}");
}

#[test]
fn a_nodes_user_writes_its_own_record_and_nothing_else() {
    scenario(async {
        let mut store = Store::start();
        store.authenticate();
        store.administer(&["init", "--network", "10.0.0.0/16"]);
        let config = carried(&store, &["add-node", "a"]);
        let etcd = config.etcd.expect("a registry");
        let mut client = connect(&etcd).await.expect("the password is right");
        client.put(format!("{PREFIX}nodes/a"), "x", None).await.expect("its own record");
        client.get(format!("{PREFIX}cluster"), None).await.expect("it reads everything");
        for key in ["nodes/b", "nodes/aa", "nodes/", "alloc/10.0.9.0-24", "alloc-order", "cluster", "released/x"] {
            let refused = client.put(format!("{PREFIX}{key}"), "x", None).await;
            assert!(refused.is_err_and(|error| error.to_string().contains("permission denied")), "{key}");
        }
        client.get("/elsewhere", None).await.expect_err("it reads nothing of others");
    });
}

#[test]
fn agents_go_on_though_their_tokens_expire_every_second() {
    scenario(async {
        let mut store = Store::start_with(false, &["--auth-token-ttl=1"]);
        store.authenticate();
        store.administer(&["init", "--network", "10.0.0.0/16"]);
        let (a, b) = (carried(&store, &["add-node", "a"]), carried(&store, &["add-node", "b"]));
        let start = |config: Config, address: &str| {
            let etcd = config::Etcd { lease_seconds: 5, ..config.etcd.expect("a registry") };
            Node::start(etcd, config.node.name.as_str(), address, config.node.cidrs)
        };
        let (mut a, mut b) = (start(a, "192.0.2.1"), start(b, "192.0.2.2"));
        a.until("b is known", |a| a.sees("b").is_some() && a.is_well()).await;
        b.until("a is known", |b| b.sees("a").is_some() && b.is_well()).await;
        let lease = store.lease("nodes/a");
        a.healths.clear();
        a.listen(Duration::from_secs(8)).await;
        assert!(a.healths.is_empty(), "{:?}", a.healths);
        assert_eq!(store.lease("nodes/a"), lease, "the lease is kept alive with new tokens");
        assert!(b.leave().await, "leaving is confirmed");
        a.until("b is gone", |a| a.sees("b").is_none()).await;
    });
}

#[test]
fn a_node_that_may_not_allocate_says_who_may_and_says_it_once() {
    scenario(async {
        let mut store = Store::start();
        store.authenticate();
        store.administer(&["init", "--network", "10.0.0.0/16"]);
        let config = carried(&store, &["add-node", "a", "--no-cidr"]);
        let etcd = config.etcd.expect("a registry");
        let mut chooses = Node::start(etcd.clone(), "a", "192.0.2.1", auto());
        chooses.until("it says what to do", |a| a.complains_of("warren cluster add-node a")).await;
        chooses.listen(Duration::from_secs(4)).await;
        assert_eq!(chooses.healths.len(), 1, "{:?}", chooses.healths);
        chooses.stop();
        let mut insists = Node::start(etcd, "a", "192.0.2.1", listed(&["10.0.5.0/24"]));
        insists.until("it says what to do", |a| a.complains_of("add-node a --cidr 10.0.5.0/24")).await;
        store.administer(&["add-node", "other", "--cidr", "10.0.5.0/24"]);
        insists.until("the owner is told", |a| a.owner("10.0.5.0/24").as_deref() == Some("other")).await;
        assert!(insists.cidrs().is_empty());
    });
}

#[test]
fn a_wrong_password_is_said_and_a_corrected_one_is_taken_up_without_a_restart() {
    scenario(async {
        let mut store = Store::start();
        store.authenticate();
        store.administer(&["init", "--network", "10.0.0.0/16"]);
        let file = store.path("secret");
        write_secret(&file, "wrong\n");
        let etcd =
            config::Etcd { username: Some("root".to_owned()), password_file: Some(file.clone()), ..store.config() };
        let mut a = Node::start(etcd, "a", "192.0.2.1", auto());
        a.until("it is said", |a| a.complains_of("authentication failed")).await;
        assert!(!format!("{:?}", a.healths).contains("wrong"), "the password is not said");
        write_secret(&file, "admin\n");
        a.until("all is well", |a| a.is_well() && a.sees("a").is_some()).await;
    });
}

#[test]
fn agents_of_a_daemonset_share_a_user_that_writes_their_cluster_and_nothing_else() {
    scenario(async {
        let store = Store::start_with(true, &[]);
        for words in [&["user", "add", "root:admin"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
        {
            store.ctl(words);
        }
        let file = store.path("root-password");
        write_secret(&file, "admin\n");
        let root = store.config_of("root");
        let path = |file: &Option<std::path::PathBuf>| file.clone().expect("it comes with a certificate");
        // Twice: an administrator who is not sure runs it again.
        for _ in 0..2 {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/etcd/daemonset.sh");
            let output = std::process::Command::new(script)
                .args([file.as_os_str(), "test".as_ref()])
                .env("ETCDCTL_ENDPOINTS", store.url())
                .env("ETCDCTL_CACERT", path(&root.ca_file))
                .env("ETCDCTL_CERT", path(&root.cert_file))
                .env("ETCDCTL_KEY", path(&root.key_file))
                .output()
                .expect("bash");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let shared = store.config_of("warren-daemonset");
        let done = store.cluster_by(&shared, &["init", "--network", "10.0.0.0/16"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mut a = Node::start(shared.clone(), "a", "192.0.2.1", listed(&["10.0.5.0/24"]));
        let mut b = Node::start(shared.clone(), "b", "192.0.2.2", listed(&["10.0.6.0/24"]));
        a.until("a sees b with its prefix", |a| a.owner("10.0.6.0/24").as_deref() == Some("b")).await;
        b.until("b sees a with its prefix", |b| b.owner("10.0.5.0/24").as_deref() == Some("a")).await;
        let mut client = connect(&shared).await.expect("etcd knows the certificate");
        let refused = client.put("/warren/other/v1/cluster", "x", None).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("permission denied")));
    });
}

#[test]
fn tls_needs_the_right_authority_and_a_client_certificate() {
    scenario(async {
        let store = Store::start_with(true, &[]);
        let mut client = connect(&store.config()).await.expect("certificates are right");
        let cluster = r#"{"id":"x","networks":["10.0.0.0/16"]}"#;
        client.put(format!("{PREFIX}cluster"), cluster, None).await.expect("etcd takes it");
        let mut a = Node::start(store.config(), "a", "192.0.2.1", auto());
        a.until("a is up", |a| a.is_well() && a.sees("a").is_some()).await;
        let without = config::Etcd { cert_file: None, key_file: None, ..store.config() };
        let mut b = Node::start(without, "b", "192.0.2.2", auto());
        b.until("it is refused", |b| b.complains_of("etcd.cert_file")).await;
        let mistrusting = config::Etcd { ca_file: None, ..store.config() };
        let mut c = Node::start(mistrusting, "c", "192.0.2.3", auto());
        c.until("it refuses", |c| c.complains_of("etcd.ca_file")).await;
        a.listen(Duration::from_secs(2)).await;
        assert!(a.sees("b").is_none() && a.sees("c").is_none());
    });
}
