//! What Helm makes of a cluster that it sees: an API server that knows nothing but its kinds and one WarrenCluster.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use warren_tests::manifests::{Manifests, template, value_of};

use crate::kubernetes::NEEDED;

/// The answers of a server, by path.
type Answers = BTreeMap<String, Value>;

/// Discovery of the kinds of these objects, and the WarrenCluster as it is.
fn answers(kinds: &Manifests, enforcement: &str) -> Answers {
    let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for object in &kinds.documents {
        let (version, kind) = (object["apiVersion"].as_str().expect("said"), object["kind"].as_str().expect("said"));
        let one = json!({ "name": plural(kind), "kind": kind, "namespaced": true, "verbs": ["get"] });
        groups.entry(version).or_default().push(one);
    }
    let named = groups.keys().filter_map(|version| Some((version.split_once('/')?, version)));
    let listed = named.map(|((group, version), both)| {
        let version = json!({ "groupVersion": both, "version": version });
        json!({ "name": group, "versions": [version], "preferredVersion": version })
    });
    let mut answers = Answers::from([
        ("/version".to_owned(), json!({ "major": "1", "minor": "30", "gitVersion": "v1.30.0" })),
        ("/api".to_owned(), json!({ "kind": "APIVersions", "versions": ["v1"] })),
        (
            "/apis".to_owned(),
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": listed.collect::<Vec<_>>() }),
        ),
        (
            "/apis/warren.dev/v1alpha1/warrenclusters/default".to_owned(),
            json!({
                "apiVersion": "warren.dev/v1alpha1",
                "kind": "WarrenCluster",
                "metadata": { "name": "default" },
                "spec": { "networks": ["10.244.0.0/16"], "enforcement": enforcement },
            }),
        ),
    ]);
    for (version, resources) in groups {
        let at = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        answers.insert(at, json!({ "kind": "APIResourceList", "groupVersion": version, "resources": resources }));
    }
    answers
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

/// One request, one answer, for as long as somebody asks.
fn answer(stream: &TcpStream, answers: &Answers) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let path = first.split(' ').nth(1)?.split('?').next()?;
    let unknown = json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound" });
    let (status, body) = answers.get(path).map_or(("404 Not Found", &unknown), |body| ("200 OK", body));
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
    write!(&*stream, "{head}\r\nConnection: close\r\n\r\n{body}").ok()
}

/// The enforcement that Helm would apply where the cluster's is `there` and the value `wanted`.
fn enforcement(kinds: &Manifests, there: &str, wanted: &str) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("it has one"));
    let answers = answers(kinds, there);
    // Ends with the test's process.
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| _ = answer(&stream, &answers)));
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("config");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "contexts": [{ "name": "a", "context": { "cluster": "a", "user": "a" } }],
        "clusters": [{ "name": "a", "cluster": { "server": server } }],
        "users": [{ "name": "a", "user": {} }],
    });
    std::fs::write(&kubeconfig, config.to_string()).expect("written");
    let kubeconfig = kubeconfig.display().to_string();
    let wanted = format!("overlay.enforcement={wanted}");
    let values = [&NEEDED[..], &[wanted.as_str()]].concat();
    let flags = ["--kubeconfig", &kubeconfig, "--dry-run=server", "--disable-openapi-validation"];
    let chart = Manifests::unchecked(&template("warren", "warren-system", &values, &flags));
    let told = value_of(chart.agent(), "WARREN_OVERLAY_ENFORCEMENT");
    assert_eq!(format!("overlay.enforcement={}", told.as_str().expect("said")), wanted, "a node before it has heard");
    chart.one("WarrenCluster")["spec"]["enforcement"].clone()
}

/// `warren cluster enforce` looks who would be cut off; a `helm upgrade` would not.
#[test]
fn the_enforcement_of_a_cluster_that_is_there_is_not_helms_to_change() {
    let unseen = Manifests::unchecked(&template("warren", "warren-system", &NEEDED, &[]));
    assert_eq!(unseen.one("WarrenCluster")["spec"]["enforcement"], "permissive");
    assert_eq!(enforcement(&unseen, "permissive", "strict"), "permissive");
    assert_eq!(enforcement(&unseen, "strict", "permissive"), "strict");
}
