//! An API server that goes away, forgets, lies, or is another one.

use std::time::{Duration, Instant};

use warren_agent::config::Cidrs;
use warren_agent::registry::Known;
use warren_tests::api_server::{BLOCKS, CLUSTERS, Mood, RECORDS};

use crate::space::{Cluster, Node, given, record, scenario};

#[test]
fn watches_go_on_where_they_were_and_lists_are_not_repeated() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
        cluster.until("a is published", |api| api.get(RECORDS, "a").is_some()).await;
        let lists = cluster.api.lists(RECORDS);
        for number in 2..5 {
            cluster.api.cut();
            let name = format!("n{number}");
            cluster.publish(&record(&name, "192.0.2.9"), 1);
            a.until("what happened meanwhile is told", |a| a.sees(&name).is_some()).await;
        }
        assert_eq!(cluster.api.lists(RECORDS), lists);
    });
}

#[test]
fn a_server_that_has_forgotten_is_listed_again_a_page_at_a_time() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
        cluster.api.be(Mood::Status(503));
        for number in 1..=9 {
            cluster.publish(&record(&format!("n{number}"), "192.0.2.9"), 1);
        }
        cluster.api.compact();
        cluster.api.be(Mood::Well);
        a.until("all of them are known", |a| (1..=9).all(|number| a.sees(&format!("n{number}")).is_some())).await;
        let pages = cluster.api.asked();
        assert!(pages.iter().any(|asked| asked.resource == RECORDS && asked.query.contains("continue=n")));
        cluster.api.compact();
        cluster.publish(&record("late", "192.0.2.9"), 1);
        a.until("so is one after an error inside the watch", |a| a.sees("late").is_some()).await;
    });
}

/// Whatever the server does, what was told stays, the reason is said, and all is well afterwards.
fn outage(moods: &'static [(Mood, &'static str)]) {
    scenario(async move {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        cluster.publish(&record("b", "192.0.2.2"), 1);
        a.until("b is known", |a| a.sees("b").is_some() && a.is_well()).await;
        for (mood, words) in moods {
            cluster.api.be(mood.clone());
            a.until(words, |a| a.says(words)).await;
            assert!(a.sees("b").is_some() && a.owner("10.1.0.0/24").is_some(), "{mood:?}");
            let detail = a.health.clone().expect("unwell").detail;
            assert!(!detail.contains('\u{1b}') && detail.len() < 1000, "{detail:?}");
        }
        cluster.api.be(Mood::Well);
        a.until("all is well again", Node::is_well).await;
        cluster.publish(&record("c", "192.0.2.3"), 1);
        a.until("and what is new is told", |a| a.sees("c").is_some()).await;
    });
}

#[test]
fn a_server_that_refuses_or_is_not_well_changes_nothing() {
    outage(&[
        (Mood::Status(401), "token or certificate"),
        (Mood::Status(403), "rbac.yaml"),
        (Mood::Status(500), "not well"),
    ]);
}

#[test]
fn a_server_that_is_none_or_lies_changes_nothing() {
    outage(&[(Mood::Babbling, "is it one?"), (Mood::Lying, "is it one?")]);
}

#[test]
fn a_server_that_does_not_answer_changes_nothing() {
    outage(&[(Mood::Silent, "does not answer")]);
}

#[test]
fn a_server_that_cannot_prove_who_it_is_is_asked_for_nothing() {
    scenario(async {
        let (cluster, other) = (Cluster::start(), Cluster::start());
        let ours = cluster.api.kubeconfig();
        let of_another = ours.replace(&cluster.api.url(), &other.api.url());
        let anybody = serde_json::from_str::<serde_json::Value>(&ours).map(|mut text| {
            text["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = true.into();
            text["clusters"][0]["cluster"].as_object_mut().expect("a cluster").remove("certificate-authority");
            text.to_string()
        });
        for (kubeconfig, words) in [
            (of_another, "not signed by the authority"),
            (anybody.expect("a kubeconfig"), "insecure-skip-tls-verify"),
            (ours.replace("https://", "http://"), "tokens travel by TLS alone"),
            (ours.replace("https://", "http://user:s3cret@"), "no user or password"),
        ] {
            let config = cluster.config_of(&kubeconfig);
            let mut a = Node::start(config, record("a", "192.0.2.1"), given(&["10.1.0.0/24"]), Known::default());
            a.until(words, |a| a.says(words)).await;
            assert!(!a.says("s3cret"));
        }
        assert!(cluster.api.asked().is_empty() && other.api.asked().is_empty());
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("with its own authority it is believed", Node::is_well).await;
    });
}

#[test]
fn a_cluster_without_the_resources_says_how_to_get_them_and_goes_on_when_it_has() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.api.be(Mood::Strange);
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("it says what to do", |a| a.says("warren crds")).await;
        cluster.api.be(Mood::Status(429));
        a.until("a server that has just learnt of them is waited for", |a| a.says("only just learnt")).await;
        cluster.api.be(Mood::Well);
        a.until("all is well", Node::is_well).await;
        cluster.api.remove(CLUSTERS, "default");
        a.until("a cluster without its object is none", |a| a.says("no WarrenCluster")).await;
        assert!(a.owner("10.1.0.0/24").is_some(), "what was told stays");
    });
}

#[test]
fn a_slow_server_is_waited_for() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.api.be(Mood::Slow(Duration::from_millis(700)));
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
    });
}

#[test]
fn another_cluster_at_the_same_address_is_not_believed() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        cluster.publish(&record("b", "192.0.2.2"), 1);
        a.until("b is known", |a| a.sees("b").is_some() && a.is_well()).await;
        cluster.api.become_another();
        a.until("it says so", |a| a.says("another cluster (cluster-2 instead of cluster-1)")).await;
        assert!(a.sees("b").is_some());
        assert!(cluster.record("a").is_none(), "nothing was written there");
    });
}

#[test]
fn records_that_are_wiped_are_published_again_before_anybody_is_told() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        let mut b = cluster.node("b", "192.0.2.2", &["10.2.0.0/24"]);
        a.until("b is known", |a| a.sees("b").is_some() && a.owner("10.2.0.0/24").is_some()).await;
        b.until("a is known", |b| b.sees("a").is_some()).await;
        // So that those who are back first are not half of all.
        for number in 3..=7 {
            cluster.publish(&record(&format!("n{number}"), "192.0.2.9"), 1);
            cluster.block(&format!("10-{number}-0-0-24"), &format!("10.{number}.0.0/24"), &format!("n{number}"));
        }
        a.until("all are known", |a| a.sees("n7").is_some() && a.owner("10.7.0.0/24").is_some()).await;
        cluster.api.wipe(RECORDS);
        cluster.api.wipe(BLOCKS);
        for name in ["a", "b"] {
            cluster.until("it is published again", |api| api.get(RECORDS, name).is_some()).await;
        }
        a.listen(Duration::from_secs(1)).await;
        assert!(a.sees("b").is_some() && a.owner("10.2.0.0/24").as_deref() == Some("b"));
        a.until("a is well", Node::is_well).await;
    });
}

#[test]
fn a_restored_server_takes_nobody_back_to_an_old_record() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        let (old, new) = (record("b", "192.0.2.2"), record("b", "192.0.2.2"));
        cluster.publish(&old, 1);
        a.until("b is known", |a| a.sees("b") == Some(old.public_key) && a.is_well()).await;
        // Nothing of a's own is under way that would make up for what the restore takes.
        let is_reported =
            |api: &warren_tests::ApiServer| api.get(RECORDS, "a").is_some_and(|a| a["status"].is_object());
        cluster.until("a is published whole", is_reported).await;
        let backup = cluster.api.backup();
        cluster.publish(&new, 2);
        a.until("b has another key", |a| a.sees("b") == Some(new.public_key)).await;
        cluster.api.restore(&backup);
        a.until("the old record is doubted", |a| a.says("older than what is known")).await;
        assert_eq!(a.sees("b"), Some(new.public_key));
        // b itself would do this.
        cluster.publish(&new, 3);
        a.until("b is believed again", Node::is_well).await;
        assert_eq!(a.sees("b"), Some(new.public_key));
    });
}

#[test]
fn definitions_that_are_deleted_one_object_at_a_time_take_nothing_from_anybody() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        for (number, name) in [(2, "b"), (3, "c"), (4, "d")] {
            cluster.publish(&record(name, "192.0.2.9"), 1);
            cluster.block(&format!("10-{number}-0-0-24"), &format!("10.{number}.0.0/24"), name);
        }
        a.until("all are known", |a| a.sees("d").is_some() && a.owner("10.4.0.0/24").is_some() && a.is_well()).await;
        cluster.until("a is published", |api| api.get(RECORDS, "a").is_some()).await;
        for (number, name) in [(2, "b"), (3, "c"), (4, "d")] {
            cluster.api.remove(BLOCKS, &format!("10-{number}-0-0-24"));
            cluster.api.remove(RECORDS, name);
        }
        cluster.block("10-4-0-0-24", "10.4.0.0/24", "newcomer");
        a.listen(Duration::from_secs(3)).await;
        let told = a.snapshot.clone().expect("told");
        assert!(told.released.is_empty(), "{:?}", told.released);
        assert!(told.entries.len() >= 2, "less than half were believed to be there");
        assert_ne!(a.owner("10.4.0.0/24").as_deref(), Some("newcomer"));
    });
}

#[test]
fn an_agent_that_starts_before_an_empty_server_gives_nothing_back() {
    scenario(async {
        let cluster = Cluster::start();
        let mut known = Known::default();
        for number in 2..9_u8 {
            let name = format!("n{number}");
            let value = serde_json::to_vec(&record(&name, "192.0.2.9")).expect("JSON");
            known.entries.push(warren_overlay::mesh::Entry { key: name.clone(), value, create_revision: 1 });
            let cidr = format!("10.{number}.0.0/24").parse().expect("a prefix");
            known.owners.insert(cidr, name.parse().expect("a name"));
        }
        cluster.api.node("a", &["10.1.0.0/24"], &["192.0.2.1".parse().expect("an address")]);
        let mut a = Node::start(cluster.config(), record("a", "192.0.2.1"), given(&["10.1.0.0/24"]), known);
        a.until("the server is heard", Node::is_well).await;
        cluster.until("a is published", |api| api.get(RECORDS, "a").is_some()).await;
        a.listen(Duration::from_secs(2)).await;
        assert!(a.snapshot.is_none(), "what was remembered stays in force: {:?}", a.snapshot);
    });
}

#[test]
fn a_server_that_was_restored_to_an_earlier_version_is_listed_again() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("a is well", Node::is_well).await;
        cluster.until("a is published", |api| api.get(RECORDS, "a").is_some()).await;
        let (backup, lists) = (cluster.api.backup(), cluster.api.lists(RECORDS));
        for sequence in 1..20 {
            cluster.publish(&record("b", "192.0.2.2"), sequence);
        }
        a.until("the last of them is heard", |a| a.sees("b").is_some()).await;
        a.listen(Duration::from_millis(500)).await;
        cluster.api.restore(&backup);
        cluster.until("all is read again", |api| api.lists(RECORDS) > lists).await;
        assert!(a.owner("10.1.0.0/24").is_some());
    });
}

#[test]
fn a_kubeconfig_runs_no_program_and_its_secrets_are_not_repeated() {
    scenario(async {
        let cluster = Cluster::start();
        let folder = tempfile::tempdir().expect("a folder");
        let trace = folder.path().join("ran");
        let mut runs: serde_json::Value = serde_json::from_str(&cluster.api.kubeconfig()).expect("JSON");
        runs["users"][0]["user"] = serde_json::json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1",
            "command": "touch", "args": [trace], "interactiveMode": "Never"}});
        let mut provided = runs.clone();
        provided["users"][0]["user"] = serde_json::json!({"auth-provider": {"name": "oidc", "config": {}}});
        let broken =
            "apiVersion: v1\nkind: Config\nusers:\n- name: lab\n  user:\n    token: s3cr3t-t0ken\n    oops: [\n";
        for (text, words) in [
            (runs.to_string(), "never runs"),
            (provided.to_string(), "never runs"),
            (broken.to_owned(), "no kubeconfig in YAML"),
        ] {
            let config = cluster.config_of(&text);
            let mut a = Node::start(config, record("a", "192.0.2.1"), given(&["10.1.0.0/24"]), Known::default());
            a.until(words, |a| a.says(words)).await;
            let detail = a.health.clone().expect("unwell").detail;
            assert!(!detail.contains("s3cr3t"), "{detail}");
        }
        assert!(!trace.exists() && cluster.api.asked().is_empty());
    });
}

#[test]
fn objects_that_are_too_large_for_a_page_are_read_by_fewer() {
    scenario(async {
        let cluster = Cluster::start();
        for name in ["e1", "e2", "e3"] {
            let spec = serde_json::json!({"agent": "x".repeat(3 << 19)});
            cluster.api.put(RECORDS, serde_json::json!({"metadata": {"name": name}, "spec": spec}));
        }
        cluster.publish(&record("f", "192.0.2.2"), 1);
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("what stands behind them is known", |a| a.sees("f").is_some()).await;
    });
}

#[test]
fn a_server_that_takes_no_writes_is_still_heard_and_not_pestered() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.api.be(Mood::Refusing(500));
        let began = Instant::now();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        a.until("it says what cannot be written", |a| a.says("cannot be written") && a.says("WarrenBlock")).await;
        for number in 2..30 {
            let name = format!("n{number}");
            cluster.publish(&record(&name, "192.0.2.9"), 1);
            a.until("what happens is told", |a| a.sees(&name).is_some()).await;
        }
        let writes = cluster.api.count("patch", RECORDS) + cluster.api.count("create", BLOCKS);
        // Each of the two at once, and then every three seconds at most.
        let most = 2 + 2 * began.elapsed().as_secs() / 3;
        assert!(writes as u64 <= most, "{writes} writes in {:?}", began.elapsed());
        cluster.api.be(Mood::Well);
        a.until("all is well again", Node::is_well).await;
        cluster.until("and published", |api| api.get(RECORDS, "a").is_some()).await;
    });
}

#[test]
fn a_node_that_leaves_before_it_heard_of_its_own_record_takes_it_along() {
    scenario(async {
        let cluster = Cluster::start();
        for number in 1..=5 {
            let name = format!("h{number}");
            let host = cluster.host(&name, "192.0.2.9", Cidrs::Listed(Default::default()));
            cluster.until("it is published", |api| api.get(RECORDS, &name).is_some()).await;
            host.leave().await;
            assert!(cluster.record(&name).is_none(), "{name} stayed");
        }
    });
}
