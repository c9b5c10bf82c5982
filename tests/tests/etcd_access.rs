//! Who may do what in etcd: TLS with client certificates, users with passwords, tokens that expire.
//!
//! ```text
//!           etcd (TLS, auth)
//! pod ── node1 ══╗  │       ╔══ node2 ── pod
//!                ╚══ hub ═══╝
//! ```

use warren_tests::{Etcd, EtcdMesh, Lab, holds_for};

/// Turns authentication on, with a password for the administrator.
fn with_authentication(lab: &Lab, tls: bool, options: &[&str]) -> Etcd {
    let mut etcd = Etcd::start_with(lab, tls, options);
    etcd.ctl(&["user", "add", "root:admin-password"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["auth", "enable"]);
    etcd.log_in("root", "admin-password");
    etcd
}

#[test]
fn a_mesh_forms_over_tls_with_client_certificates() {
    let lab = Lab::new();
    let etcd = Etcd::start_with(&lab, true, &[]);
    let mesh = EtcdMesh::join(lab, etcd, 3);
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn an_agent_without_a_client_certificate_is_refused_and_says_so() {
    let lab = Lab::new();
    let etcd = Etcd::start_with(&lab, true, &[]);
    etcd.init(&lab, &[]);
    let node = lab.node();
    etcd.add(&node);
    let mut settings = etcd.settings(&node);
    settings.unset("etcd", "cert_file").unset("etcd", "key_file");
    let agent = node.start(&settings);
    agent.until("etcd is reported as refusing", |status| status.registry_ok("etcd") == Some(false));
}

#[test]
fn agents_go_on_when_their_tokens_expire() {
    let lab = Lab::new();
    let etcd = with_authentication(&lab, false, &["--auth-token-ttl=2"]);
    let mesh = EtcdMesh::join(lab, etcd, 2);
    holds_for(15, "the registry stays current", || {
        mesh.agents.iter().all(|agent| agent.now().registry_ok("etcd") == Some(true))
    });
    mesh.assert_connected();
    mesh.finish();
}

#[test]
fn a_node_may_write_its_own_record_and_nothing_else() {
    let lab = Lab::new();
    let etcd = with_authentication(&lab, false, &[]);
    etcd.init(&lab, &[]);
    let [one, _two] = lab.nodes();
    etcd.add(&one);
    let user = etcd.ctl(&["user", "list"]);
    assert!(user.lines().any(|line| line.contains("node1")), "no user was made: {user}");
}
