//! The control at the end of every leak test: Warren is removed from the very same nodes, the same Pods talk past the
//! same capture, and it must see each way that it held to be encrypted before. A sniffer that would have missed a leak
//! proves nothing by seeing none.

use std::net::IpAddr;

use crate::namespace::Namespace;
use crate::ping::answered;
use crate::{Agent, Pod, Sniffer, eventually};

/// Echo requests on each way; the capture must see every one of them.
const REQUESTS: u32 = 3;
/// How long the host may take until plain routes are in force again.
const SECONDS: u64 = 10;

/// A way that a test's traffic took: who sends, and whereto.
pub type Way<'a> = (&'a Namespace, IpAddr);

/// Removes Warren from the agents' hosts, then fails the test unless the sniffer sees each of the ways in clear.
#[track_caller]
pub fn assert_seen_without_warren<'a>(
    sniffer: &Sniffer,
    agents: &mut [Agent],
    ways: impl IntoIterator<Item = Way<'a>>,
) {
    for agent in agents {
        agent.kill();
        agent.cleanup();
    }
    ways.into_iter().for_each(|way| assert_seen(sniffer, way));
}

/// Every Pod to every address of every other. Each must be on a node of its own.
pub fn between(pods: &[Pod]) -> Vec<Way<'_>> {
    let others = |own: &Pod| pods.iter().filter(move |pod| pod.address() != own.address()).collect::<Vec<_>>();
    let from = |pod| others(pod).into_iter().flat_map(Pod::addresses).map(move |to| (Pod::namespace(pod), *to));
    pods.iter().flat_map(from).collect()
}

#[track_caller]
fn assert_seen(sniffer: &Sniffer, (from, to): Way<'_>) {
    let what = format!("without Warren the sniffer sees what {} sends to {to}", from.name());
    eventually(SECONDS, &what, || {
        let before = sniffer.clear();
        answered(from, to, REQUESTS, &[]);
        (sniffer.clear() - before >= u64::from(REQUESTS)).then_some(())
    });
}
