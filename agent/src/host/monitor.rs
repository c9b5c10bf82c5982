//! Tells that somebody changed links, addresses, routes, rules, our nftables tables or the hooks of traffic control. Says that, not what: whoever
//! hears it reads back the whole.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::sync::{Notify, mpsc};

use super::guard::{TABLE, concerns_guard};

/// `NFNLGRP_NFTABLES`, include/uapi/linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;
/// `RTNLGRP_TC`, include/uapi/linux/rtnetlink.h.
const TRAFFIC_CONTROL_GROUP: u32 = 4;
/// Changes come in swarms; this long they are waited for.
const SETTLE: Duration = Duration::from_millis(100);
/// The longest wait while somebody fights us.
const LONGEST: Duration = Duration::from_secs(30);
/// Repairs this close to each other are a fight.
const FIGHT: Duration = Duration::from_secs(10);
/// Repairs in a row before we slow down.
const PATIENCE: u32 = 3;

/// How often what is ours had to be repaired, and how calm we are about it.
#[derive(Debug)]
pub(super) struct Repairs {
    total: AtomicU64,
    in_a_row: AtomicU32,
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
}

impl Repairs {
    pub(super) fn new() -> Self {
        Self { total: AtomicU64::new(0), in_a_row: AtomicU32::new(0), started: Instant::now(), last: AtomicU64::new(0) }
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        let calm =
            now.saturating_sub(self.last.swap(now, Ordering::Relaxed)) > (FIGHT + self.wait()).as_millis() as u64;
        if calm {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        self.in_a_row.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Set while somebody keeps undoing what we write.
    pub(super) fn fight(&self) -> Option<String> {
        let since = self.started.elapsed().as_millis() as u64 - self.last.load(Ordering::Relaxed);
        let fighting = self.in_a_row.load(Ordering::Relaxed) > PATIENCE && since < 60_000;
        fighting.then(|| {
            "somebody keeps changing our routes, rules or guard; repairs slow down: look for another network agent with \
             `ip monitor`, `nft monitor` and `tc monitor`"
                .to_owned()
        })
    }

    fn wait(&self) -> Duration {
        let beyond = self.in_a_row.load(Ordering::Relaxed).saturating_sub(PATIENCE).min(10);
        (SETTLE * 2_u32.pow(beyond)).min(LONGEST)
    }
}

/// What is heard of those who may touch the guard.
#[derive(Debug, Default)]
pub(super) struct Ears {
    pub(super) nftables: Heard,
    pub(super) traffic_control: Heard,
}

/// Whether anybody touched it since the guard was last looked at. Who does not listen must assume so.
#[derive(Debug, Default)]
pub(super) struct Heard {
    listening: AtomicBool,
    silent: AtomicBool,
}

impl Heard {
    /// Whether the guard must be looked at; says so once.
    pub(super) fn touched(&self) -> bool {
        let silent = self.silent.swap(true, Ordering::Relaxed);
        !(silent && self.listening.load(Ordering::Relaxed))
    }

    pub(super) fn touch(&self) {
        self.silent.store(false, Ordering::Relaxed);
    }
}

/// Starts to listen; a message means: look again.
pub(super) fn monitor(repairs: Arc<Repairs>, heard: Arc<Ears>) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    let changed = Arc::new(Notify::new());
    tokio::spawn(routing(Arc::clone(&changed)));
    tokio::spawn(nftables(Arc::clone(&changed), Arc::clone(&heard)));
    tokio::spawn(traffic_control(Arc::clone(&changed), heard));
    tokio::spawn(async move {
        loop {
            changed.notified().await;
            tokio::time::sleep(repairs.wait()).await;
            if sender.is_closed() {
                return;
            }
            // Full: somebody is about to look anyway.
            let _ = sender.try_send(());
        }
    });
    receiver
}

async fn routing(changed: Arc<Notify>) {
    use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Ipv4Rule, Ipv6Ifaddr, Ipv6Route, Ipv6Rule, Link};
    let groups = [Link, Ipv4Ifaddr, Ipv6Ifaddr, Ipv4Route, Ipv6Route, Ipv4Rule, Ipv6Rule];
    match rtnetlink::new_multicast_connection(&groups) {
        Ok((connection, _handle, mut messages)) => {
            tokio::spawn(connection);
            while messages.next().await.is_some() {
                changed.notify_one();
            }
        }
        Err(error) => {
            tracing::warn!(%error, "changes of routes and rules are not heard of; they are found by checks only")
        }
    }
}

async fn nftables(changed: Arc<Notify>, heard: Arc<Ears>) {
    let name = format!("{TABLE}\0");
    let ours = |message: &[u8]| message.windows(name.len()).any(|window| window == name.as_bytes());
    let Err(error) = listen(NETLINK_NETFILTER, NFTABLES_GROUP, ours, &changed, &heard.nftables).await;
    heard.nftables.listening.store(false, Ordering::Relaxed);
    tracing::warn!(%error, "changes of nftables are not heard of; they are found by checks only");
}

async fn traffic_control(changed: Arc<Notify>, heard: Arc<Ears>) {
    let heard = &heard.traffic_control;
    let Err(error) = listen(NETLINK_ROUTE, TRAFFIC_CONTROL_GROUP, concerns_guard, &changed, heard).await;
    heard.listening.store(false, Ordering::Relaxed);
    tracing::warn!(%error, "changes of traffic control are not heard of; they are found by checks only");
}

/// Ends only when there is nothing to be heard any more.
async fn listen(
    protocol: isize,
    group: u32,
    ours: impl Fn(&[u8]) -> bool,
    changed: &Notify,
    heard: &Heard,
) -> io::Result<Infallible> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_mut().add_membership(group)?;
    heard.listening.store(true, Ordering::Relaxed);
    heard.touch();
    loop {
        let change = match socket.recv_from_full().await {
            Ok((message, _)) => ours(&message),
            // More than the socket holds: something changed, that much is known.
            Err(error) if error.raw_os_error() == Some(105) => true,
            Err(error) => return Err(error),
        };
        if change {
            heard.touch();
            changed.notify_one();
        }
    }
}
