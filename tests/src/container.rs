//! What the DaemonSet's container has, and no more: an agent that `warren-confined --pod` runs.

use crate::{Agent, ApiServer, Node, Settings, Volume};

/// The set that holds CAP_NET_ADMIN alone.
const NET_ADMIN: u64 = 1 << 12;
/// Where every Pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The container of a node's agent.
#[derive(Debug)]
pub struct Container<'a> {
    node: &'a Node,
    environment: Vec<String>,
    /// What runs the agent, with its words.
    launcher: Vec<String>,
    /// Where its volumes are.
    volumes: Vec<String>,
}

impl<'a> Container<'a> {
    /// With the node's folder, made by this launcher.
    pub fn of(launcher: &str, node: &'a Node) -> Self {
        let launcher = [launcher, "--pod", &node.folder().display().to_string()].map(str::to_owned);
        Self { node, environment: Vec::new(), launcher: launcher.into(), volumes: Vec::new() }
    }

    /// With a volume, read-only at this path.
    pub fn volume(mut self, volume: &Volume, at: &str) -> Self {
        self.launcher.extend(["--volume".to_owned(), volume.folder().display().to_string(), at.to_owned()]);
        self.volumes.push(at.to_owned());
        self
    }

    /// With what Kubernetes gives every Pod to reach the API server.
    pub fn service_account(mut self, volume: &Volume, api: &ApiServer) -> Self {
        let address = api.address();
        self.environment.push(format!("KUBERNETES_SERVICE_HOST={}", address.ip()));
        self.environment.push(format!("KUBERNETES_SERVICE_PORT={}", address.port()));
        self.volume(volume, SERVICE_ACCOUNT)
    }

    /// Starts the agent, waits until it is ready, and fails the test unless it is confined.
    #[track_caller]
    pub fn start(&self, settings: &Settings) -> Agent {
        let launcher = ["env".to_owned()].into_iter().chain(self.environment.iter().chain(&self.launcher).cloned());
        let launcher: Vec<String> = launcher.collect();
        let agent = Agent::start_by(&launcher.iter().map(String::as_str).collect::<Vec<_>>(), self.node, settings);
        agent.ready();
        self.assert_confined(&agent);
        agent
    }

    #[track_caller]
    fn assert_confined(&self, agent: &Agent) {
        let read =
            |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", agent.pid())).expect("the agent runs");
        let (status, mounts) = (read("status"), read("mounts"));
        for (set, expected) in [("CapEff", NET_ADMIN), ("CapPrm", NET_ADMIN), ("CapBnd", NET_ADMIN), ("CapInh", 0)] {
            assert!(status.contains(&format!("{set}:\t{expected:016x}")), "more than the Pod has:\n{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp_filters:\t2"), "not confined:\n{status}");
        let locked = |path: &str| {
            let of = |line: &&str| line.split(' ').nth(1) == Some(path);
            mounts.lines().rfind(of).is_some_and(|line| line.split(' ').nth(3).is_some_and(|how| how.starts_with("ro")))
        };
        for path in ["/", "/proc/sys", "/var"].into_iter().chain(self.volumes.iter().map(String::as_str)) {
            assert!(locked(path), "{path} is not read-only:\n{mounts}");
        }
    }
}
