//! A real etcd on the underlay.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::certificates::{Authority, Certificate};
use crate::command::{self, Finished};
use crate::secret::write_secret;
use crate::{Agent, Lab, Node, Settings, eventually};

/// Its client port.
const PORT: u16 = 2379;

/// One etcd in the lab's hub or on a node; killed when dropped.
#[derive(Debug)]
pub struct Etcd {
    namespace: String,
    folder: PathBuf,
    address: std::net::IpAddr,
    options: Vec<String>,
    tls: Option<Tls>,
    credentials: Option<(String, String)>,
    /// User and password of nodes, as TOML literals.
    given: Mutex<BTreeMap<String, (String, String)>>,
    child: Option<Child>,
}

#[derive(Debug)]
struct Tls {
    authority: Authority,
    server: Certificate,
    admin: Certificate,
}

impl Etcd {
    /// Starts one without TLS and waits until it answers.
    #[track_caller]
    pub fn start(lab: &Lab) -> Self {
        Self::start_with(lab, false, &[])
    }

    /// Starts one that asks for client certificates if `tls`, with more options of the command line.
    #[track_caller]
    pub fn start_with(lab: &Lab, tls: bool, options: &[&str]) -> Self {
        let (folder, address) = (lab.folder().join("etcd"), lab.hub_address());
        std::fs::create_dir_all(&folder).expect("the lab's folder exists");
        let tls = tls.then(|| {
            let authority = Authority::new(&folder);
            let server = authority.issue("etcd", vec![address.to_string()]);
            let admin = authority.issue("root", Vec::new());
            Tls { authority, server, admin }
        });
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut etcd = Self::at(lab.hub().name(), folder, address);
        (etcd.options, etcd.tls) = (options, tls);
        etcd.up();
        etcd
    }

    /// Starts one without TLS on a node, at its first address.
    #[track_caller]
    pub fn start_on(node: &Node) -> Self {
        let mut etcd = Self::absent_on(node);
        etcd.up();
        etcd
    }

    /// The same, not started: where it will be is known.
    #[track_caller]
    pub fn absent_on(node: &Node) -> Self {
        let folder = node.folder().join("etcd");
        std::fs::create_dir_all(&folder).expect("the node's folder exists");
        Self::at(node.namespace().name(), folder, node.address())
    }

    fn at(namespace: &str, folder: PathBuf, address: std::net::IpAddr) -> Self {
        let (options, given) = (Vec::new(), Mutex::default());
        Self {
            namespace: namespace.to_owned(),
            folder,
            address,
            options,
            tls: None,
            credentials: None,
            given,
            child: None,
        }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", SocketAddr::new(self.address, PORT))
    }

    /// Starts it again on the data that it has, and waits until it answers.
    #[track_caller]
    pub fn up(&mut self) {
        self.spawn();
        eventually(20, "etcd answers", || self.attempt(&["get", "health"]).success().then_some(()));
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the process: connections stay open and nothing is answered.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends it, removes everything it knew and starts it empty.
    #[track_caller]
    pub fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("etcd made the folder");
        self.up();
    }

    /// Saves what it knows now.
    #[track_caller]
    pub fn snapshot(&self) -> PathBuf {
        let file = self.folder.join("snapshot.db");
        let _ = std::fs::remove_file(&file);
        self.ctl(&["snapshot", "save", &file.display().to_string()]);
        file
    }

    /// Ends it and starts it with what a snapshot holds, as an operator restores a store.
    #[track_caller]
    pub fn restore(&mut self, snapshot: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("etcd made the folder");
        let (data, peer) = (self.data().display().to_string(), peer_url());
        let cluster = format!("lab={peer}");
        command::run(&[
            "etcdctl",
            "snapshot",
            "restore",
            &snapshot.display().to_string(),
            "--name=lab",
            &format!("--data-dir={data}"),
            &format!("--initial-cluster={cluster}"),
            &format!("--initial-advertise-peer-urls={peer}"),
        ]);
        self.up();
    }

    /// Forgets every revision before the present one.
    #[track_caller]
    pub fn compact(&self) {
        let revision = self.revision().to_string();
        self.ctl(&["compact", "--physical", &revision]);
    }

    /// The store's revision.
    #[track_caller]
    pub fn revision(&self) -> u64 {
        let said = self.ctl(&["get", "revision", "-w", "json"]);
        let json: serde_json::Value = serde_json::from_str(&said).expect("etcdctl prints JSON");
        json["header"]["revision"].as_u64().expect("a reply has a revision")
    }

    /// The keys below a prefix.
    #[track_caller]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let said = self.ctl(&["get", "--prefix", "--keys-only", prefix]);
        said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// A key's value, if it is there.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<String> {
        let said = self.ctl(&["get", "--print-value-only", key]);
        (!said.is_empty()).then(|| said.trim_end_matches('\n').to_owned())
    }

    /// Writes a key. The value goes by standard input, whatever bytes it has.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        let mut argv = self.argv(&["put"]);
        argv.push(key.to_owned());
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        command::checked(&argv, command::feed(&argv, value));
    }

    /// Where a node's record is.
    pub fn record_key(&self, name: &str) -> String {
        format!("/warren/lab/v1/nodes/{name}")
    }

    /// Where the owner of a prefix is.
    pub fn allocation_key(&self, cidr: &str) -> String {
        format!("/warren/lab/v1/alloc/{}", cidr.replace('/', "-"))
    }

    /// What is there.
    pub fn allocation_value(&self, name: &str) -> String {
        format!("{{\"node\":\"{name}\"}}")
    }

    /// Runs transactions of at most 100 operations, each a line as `etcdctl txn` takes it.
    #[track_caller]
    pub fn transact(&self, operations: &[String]) {
        for batch in operations.chunks(100) {
            let argv = self.argv(&["txn"]);
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            command::checked(&argv, command::feed(&argv, &format!("\n{}\n\n\n", batch.join("\n"))));
        }
    }

    /// `etcdctl`, which must succeed; its standard output.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> String {
        let finished = self.attempt(words);
        assert!(finished.success(), "etcdctl {words:?} failed: {}", finished.said());
        finished.stdout
    }

    /// `etcdctl`, however it ends.
    #[track_caller]
    pub fn attempt(&self, words: &[&str]) -> Finished {
        let argv = self.argv(words);
        command::attempt(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Has `etcdctl` and `warren cluster` log in from now on.
    pub fn log_in(&mut self, user: &str, password: &str) {
        self.credentials = Some((user.to_owned(), password.to_owned()));
    }

    /// A client certificate by this etcd's authority.
    #[track_caller]
    pub fn certify(&self, name: &str) -> Certificate {
        self.tls.as_ref().expect("this etcd has TLS").authority.issue(name, Vec::new())
    }

    /// Has a node use this registry, with a client certificate of its own if there is TLS.
    #[track_caller]
    pub fn join(&self, node: &Node, settings: &mut Settings) {
        settings.list("etcd", "endpoints", [self.url()]).text("etcd", "cluster", "lab");
        if let Some((username, password)) = self.given.lock().expect("no thread panics with it").get(&node.name) {
            settings.set("etcd", "username", username).set("etcd", "password", password);
        }
        if let Some(tls) = &self.tls {
            let own = self.certify(&node.name);
            settings
                .text("etcd", "ca_file", tls.authority.ca_file().display())
                .text("etcd", "cert_file", own.cert.display())
                .text("etcd", "key_file", own.key.display());
        }
    }

    /// `warren cluster …` as the administrator, from the hub; however it ends.
    #[track_caller]
    pub fn cluster(&self, words: &[&str]) -> Finished {
        let mut argv: Vec<String> =
            ["ip", "netns", "exec", &self.namespace, crate::agent::program(), "cluster"].map(str::to_owned).to_vec();
        argv.extend(words.iter().map(|&word| word.to_owned()));
        argv.extend(["--endpoints".to_owned(), self.url(), "--cluster".to_owned(), "lab".to_owned()]);
        if let Some(tls) = &self.tls {
            let (ca, cert, key) = (tls.authority.ca_file(), &tls.admin.cert, &tls.admin.key);
            for (flag, file) in [("--ca-file", &ca), ("--cert-file", cert), ("--key-file", key)] {
                argv.extend([flag.to_owned(), file.display().to_string()]);
            }
        }
        if let Some((user, password)) = &self.credentials {
            let file = self.folder.join("password");
            write_secret(&file, password);
            let file = file.display().to_string();
            argv.extend(["--username".to_owned(), user.clone(), "--password-file".to_owned(), file]);
        }
        command::attempt(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `warren cluster init` with the lab's networks.
    #[track_caller]
    pub fn init(&self, lab: &Lab, more: &[&str]) {
        let networks: Vec<String> = lab.networks().iter().map(ToString::to_string).collect();
        let networks = networks.iter().flat_map(|network| ["--network", network.as_str()]);
        let words: Vec<&str> = ["init"].into_iter().chain(networks).chain(more.iter().copied()).collect();
        let finished = self.cluster(&words);
        assert!(finished.success(), "`warren cluster init` failed: {}", finished.said());
    }

    /// `warren cluster add-node` with the node's own CIDRs.
    #[track_caller]
    pub fn add(&self, node: &Node) {
        let cidrs: Vec<String> = node.cidrs().iter().map(ToString::to_string).collect();
        let cidrs = cidrs.iter().flat_map(|cidr| ["--cidr", cidr.as_str()]);
        let words: Vec<&str> = ["add-node", &node.name].into_iter().chain(cidrs).collect();
        let finished = self.cluster(&words);
        assert!(finished.success(), "`warren cluster add-node {}` failed: {}", node.name, finished.said());
        // The node's user and password are in the config file that the administrator gets to carry to the host.
        let line = |key: &str| {
            finished.stdout.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).map(str::to_owned)
        };
        if let Some(given) = line("username").zip(line("password")) {
            self.given.lock().expect("no thread panics with it").insert(node.name.clone(), given);
        }
    }

    /// `warren cluster add-node --address`: the administrator's word that these are the node's own, since others depend
    /// on them.
    #[track_caller]
    pub fn grant(&self, node: &Node) {
        let addresses: Vec<String> = node.addresses().iter().map(ToString::to_string).collect();
        let addresses = addresses.iter().flat_map(|address| ["--address", address.as_str()]);
        let words: Vec<&str> = ["add-node", &node.name, "--no-cidr"].into_iter().chain(addresses).collect();
        let finished = self.cluster(&words);
        assert!(finished.success(), "the addresses of {} were not granted: {}", node.name, finished.said());
    }

    /// Starts agents on all nodes, each added by the administrator before, and waits until each knows all others.
    #[track_caller]
    pub fn mesh(&self, nodes: &[Node]) -> Vec<Agent> {
        let start = |node: &Node| {
            self.add(node);
            node.start(&self.settings(node))
        };
        let agents: Vec<Agent> = nodes.iter().map(start).collect();
        for agent in &agents {
            agent.until("ready with all peers", |status| status.ready() && status.peers().len() == nodes.len() - 1);
        }
        agents
    }

    /// A node's settings with this registry.
    #[track_caller]
    pub fn settings(&self, node: &Node) -> Settings {
        let mut settings = node.settings();
        self.join(node, &mut settings);
        settings
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.join("log")).expect("the folder is ours");
        let (data, url, peer) = (self.data().display().to_string(), self.url(), peer_url());
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "etcd", "--name=lab", "--unsafe-no-fsync"])
            .args([format!("--data-dir={data}"), format!("--initial-cluster=lab={peer}")])
            .args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .args(&self.options);
        if let Some(Tls { authority, server, .. }) = &self.tls {
            command
                .arg("--client-cert-auth")
                .arg(format!("--trusted-ca-file={}", authority.ca_file().display()))
                .arg(format!("--cert-file={}", server.cert.display()))
                .arg(format!("--key-file={}", server.key.display()));
        }
        let errors = log.try_clone().expect("a file can be shared");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.child = Some(child.expect("`ip` is installed"));
    }

    fn argv(&self, words: &[&str]) -> Vec<String> {
        let mut argv =
            ["ip", "netns", "exec", &self.namespace, "etcdctl", "--command-timeout=20s"].map(str::to_owned).to_vec();
        argv.extend(["--endpoints".to_owned(), self.url()]);
        if let Some(Tls { authority, admin, .. }) = &self.tls {
            argv.push(format!("--cacert={}", authority.ca_file().display()));
            argv.push(format!("--cert={}", admin.cert.display()));
            argv.push(format!("--key={}", admin.key.display()));
        }
        if let Some((user, password)) = &self.credentials {
            argv.push(format!("--user={user}:{password}"));
        }
        argv.extend(words.iter().map(|&word| word.to_owned()));
        argv
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().expect("etcd runs").id();
        kill(Pid::from_raw(i32::try_from(id).expect("process ids are small")), signal).expect("etcd is our child");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Alone in its cluster, it talks to itself inside the hub.
fn peer_url() -> String {
    "http://127.0.0.1:2380".to_owned()
}
