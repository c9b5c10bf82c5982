//! A real etcd on the loopback for one test, a relay in front of it that can be cut, and nodes that register in it.
//! No root; everything goes when the test ends, however it ends.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod node;
pub(crate) mod relay;
pub(crate) mod tls;

use std::ffi::OsStr;
use std::fs::File;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tls::Tls;
use warren_agent::config::Etcd;

pub(crate) const CLUSTER: &str = "test";
pub(crate) const PREFIX: &str = "/warren/test/v1/";

/// Runs a test on a runtime as the agent has it, for at most a minute.
pub(crate) fn scenario(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let limited = async { tokio::time::timeout(Duration::from_secs(60), local.run_until(test)).await };
    runtime.block_on(limited).expect("the test ends within a minute");
}

/// One etcd; killed when dropped, and by the kernel when the test's thread dies.
pub(crate) struct Store {
    dir: TempDir,
    port: u16,
    peer_port: u16,
    options: Vec<String>,
    tls: Option<Tls>,
    login: Option<String>,
    child: Option<Child>,
}

impl Store {
    pub(crate) fn start() -> Self {
        Self::start_with(false, &[])
    }

    pub(crate) fn start_with(tls: bool, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let tls = tls.then(|| Tls::new(dir.path()));
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut store = Self { dir, port: free_port(), peer_port: free_port(), options, tls, login: None, child: None };
        store.up();
        store
    }

    /// Starts it on the data that it has and waits until it answers.
    pub(crate) fn up(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let (url, peer) = (self.url(), self.peer());
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "etcd", "--name=test", "--unsafe-no-fsync"])
            .arg(format!("--data-dir={}", self.path("data").display()))
            .args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=test={peer}"))
            .args(&self.options);
        if let Some(tls) = &self.tls {
            command.args(tls.server_options());
        }
        let errors = log.try_clone().expect("a log");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.child = Some(child.expect("util-linux and etcd-server are installed"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.attempt(&["get", "health"]).status.success() {
            assert!(Instant::now() < deadline, "etcd does not start; see {}", self.path("log").display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it and starts it empty.
    pub(crate) fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.path("data")).expect("etcd made the folder");
        self.up();
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        let file = self.path("snapshot.db");
        self.ctl(&["snapshot", "save", &file.display().to_string()]);
        file
    }

    /// Ends it and starts it with what a snapshot holds, as an operator restores a store.
    pub(crate) fn restore(&mut self, snapshot: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.path("data")).expect("etcd made the folder");
        let (data, peer) = (self.path("data").display().to_string(), self.peer());
        self.ctl(&[
            "snapshot",
            "restore",
            &snapshot.display().to_string(),
            "--name=test",
            &format!("--data-dir={data}"),
            &format!("--initial-cluster=test={peer}"),
            &format!("--initial-advertise-peer-urls={peer}"),
        ]);
        self.up();
    }

    /// Turns authentication on; `etcdctl` is the administrator from now on.
    pub(crate) fn authenticate(&mut self) {
        let file = self.path("root-password");
        write_secret(&file, "admin\n");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/etcd/authenticate.sh");
        // Twice: an administrator who is not sure runs it again.
        for _ in 0..2 {
            let mut command = Command::new(script);
            let output = command.arg(&file).env("ETCDCTL_ENDPOINTS", self.url()).output().expect("bash");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        self.login = Some("root:admin".to_owned());
    }

    /// `etcdctl`, which must succeed; its standard output.
    pub(crate) fn ctl(&self, words: &[&str]) -> String {
        let output = self.attempt(words);
        assert!(output.status.success(), "etcdctl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn attempt(&self, words: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--command-timeout=5s", "--endpoints", &self.url()]);
        if let Some(tls) = &self.tls {
            command.args(tls.client_options());
        }
        if let Some(login) = &self.login {
            command.args(["--user", login]);
        }
        command.args(words).stdin(Stdio::null()).output().expect("etcd-client is installed")
    }

    /// Writes a key below the cluster's prefix.
    pub(crate) fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", &format!("{PREFIX}{key}"), value]);
    }

    /// Deletes a key below the cluster's prefix.
    pub(crate) fn delete(&self, key: &str) {
        assert_eq!(self.ctl(&["del", &format!("{PREFIX}{key}")]).trim(), "1", "{key} was there");
    }

    /// A key below the cluster's prefix; empty when it is not there.
    pub(crate) fn get(&self, key: &str) -> String {
        self.ctl(&["get", "--print-value-only", &format!("{PREFIX}{key}")])
    }

    /// The lease of a key, as `etcdctl lease` takes it.
    pub(crate) fn lease(&self, key: &str) -> Option<String> {
        let said = self.ctl(&["get", &format!("{PREFIX}{key}"), "-w", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        said["kvs"][0]["lease"].as_u64().map(|lease| format!("{lease:x}"))
    }

    pub(crate) fn compact(&self) {
        let said = self.ctl(&["get", "x", "-w", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        self.ctl(&["compact", "--physical", &said["header"]["revision"].to_string()]);
    }

    /// `warren cluster …` as the administrator.
    pub(crate) fn cluster(&self, words: &[&str]) -> Output {
        let mut config = self.config();
        if let Some((user, password)) = self.login.as_ref().and_then(|login| login.split_once(':')) {
            let file = self.path("password");
            write_secret(&file, password);
            (config.username, config.password_file) = (Some(user.to_owned()), Some(file));
        }
        self.cluster_by(&config, words)
    }

    /// `warren cluster …` as somebody who comes to etcd like this.
    pub(crate) fn cluster_by(&self, who: &Etcd, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
        command.arg("cluster").args(words).args(["--endpoints", &self.url(), "--cluster", CLUSTER]);
        command.args(who.username.iter().flat_map(|user| ["--username", user]));
        let files = [
            ("--ca-file", &who.ca_file),
            ("--cert-file", &who.cert_file),
            ("--key-file", &who.key_file),
            ("--password-file", &who.password_file),
        ];
        for (flag, file) in files {
            command.args(file.iter().flat_map(|file| [OsStr::new(flag), file.as_os_str()]));
        }
        command.stdin(Stdio::null()).output().expect("the program was built")
    }

    /// `warren cluster …`, which must succeed.
    pub(crate) fn administer(&self, words: &[&str]) -> String {
        let output = self.cluster(words);
        assert!(output.status.success(), "warren cluster {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How somebody with a certificate of this common name reaches it.
    pub(crate) fn config_of(&self, name: &str) -> Etcd {
        let mut config = self.config();
        self.tls.as_ref().expect("etcd has TLS").certify(name, &mut config);
        config
    }

    /// How an agent reaches it.
    pub(crate) fn config(&self) -> Etcd {
        let mut config = Etcd {
            endpoints: vec![self.url()],
            cluster: CLUSTER.to_owned(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            username: None,
            password_file: None,
            password: None,
            lease_seconds: 5,
        };
        if let Some(tls) = &self.tls {
            tls.configure(&mut config);
        }
        config
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn peer(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file that its owner alone reads.
pub(crate) fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).expect("the folder is ours");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}
