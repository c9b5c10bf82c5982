//! What an agent does not do to an API server that is slow, busy, refuses, or undoes what it wrote; and that it hears on.

use std::time::{Duration, Instant};

use serde_json::Value;
use warren_agent::config::Cidrs;
use warren_tests::api_server::{BLOCKS, Mood, NODES, RECORDS};

use crate::space::{Cluster, Node, record, scenario};

async fn up(cluster: &Cluster) -> Node {
    let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
    a.until("a is well", Node::is_well).await;
    cluster.until("a is published whole", |api| api.get(RECORDS, "a").is_some_and(|a| a["status"].is_object())).await;
    a
}

fn sequence(cluster: &Cluster) -> Option<u64> {
    cluster.record("a")?.pointer("/spec/sequence").and_then(Value::as_u64)
}

#[test]
fn a_node_that_may_not_leave_asks_once_a_second_and_leaves_when_it_may() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = up(&cluster).await;
        cluster.api.be(Mood::Refusing(403));
        let (began, asked) = (Instant::now(), cluster.api.asked().len());
        a.ask_to_leave();
        a.until("it says why not", |a| a.says("cannot be withdrawn")).await;
        a.listen(Duration::from_secs(3)).await;
        let (tries, all) = (cluster.api.count("delete", RECORDS) as u64, cluster.api.asked().len() - asked);
        assert!((2..=2 + began.elapsed().as_secs()).contains(&tries), "{tries} in {:?}", began.elapsed());
        // Watches that were cut are asked for again, once each.
        assert!(all < 40, "{all} requests in {:?}", began.elapsed());
        cluster.api.be(Mood::Well);
        a.leave().await;
        assert!(cluster.record("a").is_none());
    });
}

#[test]
fn a_node_whose_leaving_was_given_up_stays_and_hears() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = up(&cluster).await;
        cluster.api.be(Mood::Status(503));
        a.ask_to_leave();
        a.until("nobody is reached", |a| a.says("not well")).await;
        a.ask_to_stay();
        cluster.api.be(Mood::Well);
        cluster.publish(&record("b", "192.0.2.2"), 1);
        a.until("what is new is told", |a| a.sees("b").is_some() && a.is_well()).await;
        // The last attempt to withdraw it may have come through.
        cluster.until("it stands, or stands again", |api| api.get(RECORDS, "a").is_some()).await;
        a.listen(Duration::from_secs(1)).await;
        assert!(!a.has_left() && a.is_well());
    });
}

#[test]
fn somebody_who_takes_the_block_away_each_time_keeps_nobody_from_hearing_and_is_not_outdone() {
    scenario(async {
        let cluster = Cluster::start();
        let began = Instant::now();
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        for number in 2..8 {
            let name = format!("n{number}");
            cluster.publish(&record(&name, "192.0.2.9"), 1);
            let until = Instant::now() + Duration::from_secs(60);
            while a.sees(&name).is_none() {
                assert!(Instant::now() < until, "nothing is told: {:?}", a.health);
                cluster.api.remove(BLOCKS, "10-1-0-0-24");
                a.listen(Duration::from_millis(100)).await;
            }
        }
        let made = cluster.api.count("create", BLOCKS) as u64;
        assert!(made <= 1 + began.elapsed().as_secs() / 5, "made {made} times in {:?}", began.elapsed());
        cluster.until("in the end it is there", |api| api.get(BLOCKS, "10-1-0-0-24").is_some()).await;
    });
}

#[test]
fn a_watch_that_lags_is_waited_for_and_nothing_written_twice() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = up(&cluster).await;
        cluster.api.be(Mood::Lagging(Duration::from_secs(5)));
        // Until the watches go on.
        a.listen(Duration::from_secs(3)).await;
        let written = || (cluster.api.count("patch", RECORDS), cluster.api.count("patch", "warrennodes/status"));
        let (records, reports) = written();
        a.change(|record| record.mtu = 1380);
        cluster.until("it is written", |api| api.get(RECORDS, "a").is_some_and(|one| one["spec"]["mtu"] == 1380)).await;
        let first = sequence(&cluster);
        a.listen(Duration::from_secs(7)).await;
        assert_eq!(written(), (records + 1, reports), "the watch was still to tell");
        cluster.api.be(Mood::Well);
        cluster.api.remove(RECORDS, "a");
        cluster.until("it is back when the watch tells that it is gone", |api| api.get(RECORDS, "a").is_some()).await;
        assert_eq!(sequence(&cluster), first, "the same record has the same number");
    });
}

#[test]
fn a_busy_server_is_asked_again_by_whom_it_sent_away_and_the_connection_stays() {
    scenario(async {
        let cluster = Cluster::start();
        cluster.api.be(Mood::Busy);
        let mut a = cluster.node("a", "192.0.2.1", &["10.1.0.0/24"]);
        cluster.publish(&record("b", "192.0.2.2"), 1);
        a.until("all is heard", |a| a.sees("b").is_some()).await;
        a.until("and well", Node::is_well).await;
        let connections = cluster.api.count("get", "namespaces");
        assert!(connections <= 2, "{connections} attempts: the first sent away, the second stays");
        let lists = cluster.api.lists(RECORDS);
        assert!(lists <= 2, "{lists} lists: one sent away");
    });
}

#[test]
fn a_record_that_is_going_is_named_and_left_alone_until_it_is_gone() {
    scenario(async {
        let cluster = Cluster::start();
        let mut a = up(&cluster).await;
        cluster.api.begin_removal(RECORDS, "a");
        a.until("it says so", |a| a.says("kept by finalizers")).await;
        let writes = cluster.api.count("patch", RECORDS);
        cluster.publish(&record("b", "192.0.2.2"), 1);
        a.until("it hears on", |a| a.sees("b").is_some()).await;
        a.listen(Duration::from_secs(4)).await;
        assert_eq!(cluster.api.count("patch", RECORDS), writes);
        cluster.api.remove(RECORDS, "a");
        cluster.until("it is published anew", |api| api.get(RECORDS, "a").is_some()).await;
        a.until("and well", Node::is_well).await;
        assert!(cluster.api.get(NODES, "a").is_some());
    });
}

#[test]
fn a_list_that_the_server_forgets_between_two_pages_is_begun_anew_and_not_for_ever() {
    scenario(async {
        let cluster = Cluster::start();
        for other in 2..=9 {
            cluster.publish(&record(&format!("n{other}"), &format!("192.0.2.{other}")), 1);
        }
        cluster.api.forget_lists(2);
        let a = up(&cluster).await;
        assert!((2..=9).all(|other| a.sees(&format!("n{other}")).is_some()));
        assert_eq!(cluster.api.lists(RECORDS), 3, "twice anew");
        assert_eq!(cluster.api.count("get", "namespaces"), 1, "by the same connection");
        drop(a);

        cluster.api.forget_lists(3);
        let mut b = cluster.host("b", "192.0.2.10", Cidrs::Listed(Default::default()));
        b.until("and says so when it goes on", |b| b.says("410")).await;
        b.until("the next connection reads all", |b| b.sees("n9").is_some()).await;
    });
}

#[test]
fn a_record_whose_writing_was_not_answered_does_not_stay_behind_when_its_node_leaves() {
    scenario(async {
        let cluster = Cluster::start();
        // What is given up after five seconds is done after six.
        cluster.api.be(Mood::Slow(Duration::from_secs(6)));
        let mut a = cluster.host("a", "192.0.2.1", Cidrs::Listed(Default::default()));
        a.until("its record is not known to be written", |a| a.says("cannot be written")).await;
        assert!(cluster.record("a").is_none(), "not yet");
        a.leave().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(cluster.record("a").is_none(), "it came later, and stays");
    });
}
