//! What somebody says to somebody in a cluster, and whom the other end must take it for.

use std::net::{IpAddr, SocketAddr};

use super::dns;
use crate::namespace::Namespace;
use crate::sniffer::CANARY;
use crate::witness::{Protocol, ask};

/// Bytes of a connection, each way: enough for full segments.
const STREAM: usize = 192 << 10;
/// Bytes of datagrams: one packet, and fragments of the Pod's own.
const DATAGRAMS: [usize; 2] = [600, 3500];

/// One way through the cluster.
#[derive(Debug)]
pub struct Flow<'a> {
    /// What it stands for: the same for all of one kind.
    pub kind: &'static str,
    /// Who speaks.
    pub from: &'a Namespace,
    /// To whom.
    pub to: SocketAddr,
    /// Whom the other end may take it for; nothing: DNS, which does not say.
    pub sources: Vec<IpAddr>,
    /// Whether it must be encrypted on its whole way: then it carries the canary.
    pub sealed: bool,
}

impl Flow<'_> {
    /// Sends everything, by both protocols; every complaint.
    pub fn run(&self) -> Vec<String> {
        if self.sources.is_empty() {
            return self.told("DNS", dns::resolve(self.from, self.to)).into_iter().collect();
        }
        let stream = self.told("TCP", self.by(Protocol::Tcp, STREAM));
        let datagram = |size| self.told(&format!("UDP of {size} bytes"), self.by(Protocol::Udp, size));
        stream.into_iter().chain(DATAGRAMS.into_iter().filter_map(datagram)).collect()
    }

    fn by(&self, protocol: Protocol, size: usize) -> Result<(), String> {
        let pattern: &[u8] = if self.sealed { &CANARY } else { b"from outside" };
        let payload: Vec<u8> = pattern.iter().copied().cycle().take(size).collect();
        let source = ask(self.from, self.to, protocol, &payload)?;
        if !self.sources.contains(&source) {
            return Err(format!("the source is seen as {source}, not as {:?}", self.sources));
        }
        Ok(())
    }

    fn told(&self, what: &str, result: Result<(), String>) -> Option<String> {
        let error = result.err()?;
        Some(format!("{}: {} → {} by {what}: {error}", self.kind, short(self.from), self.to))
    }
}

/// A namespace's name without the lab's.
fn short(namespace: &Namespace) -> &str {
    namespace.name().splitn(3, '-').nth(2).unwrap_or_default()
}
