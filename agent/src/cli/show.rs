//! What people and programs read.

use super::{DEGRADED, FAILED, OK, Output, say};
use crate::admin::Verify;
use crate::cidrs::{Given, Where, look};
use crate::config::{Cidrs, Config};
use crate::counted::counted;
use crate::preflight::Finding;
use crate::status::{AssociationStatus, PeerStatus, Status};

/// The agent on one screen; 1 when something is wrong.
pub(super) fn status(status: &Status, output: Output) -> Result<u8, String> {
    if output == Output::Json {
        say(serde_json::to_string(status).map_err(|error| error.to_string())?);
    } else {
        say(screen(status).trim_end());
    }
    Ok(if status.ready && status.problems.is_empty() { OK } else { DEGRADED })
}

fn screen(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12} {value}\n"));
    line("node", format!("{} ({}, warren {})", status.node, status.public_key, status.version));
    line(
        "overlay",
        format!("mode {}, {}, MTU {}, UDP port {}", status.mode, status.enforcement, status.mtu, status.port),
    );
    line("cidrs", or_none(&status.cidrs));
    line(
        "data path",
        format!(
            "{}, {}, offloads: {}",
            counted(status.workers, "worker"),
            counted(status.strays, "stray"),
            or_none(&status.offloads)
        ),
    );
    let guard = if status.guard.active { "loaded" } else { "NOT LOADED" };
    line("guard", format!("{guard}, {} refused, {} passed in clear", status.guard.refused, status.guard.passed));
    for (node, one) in status.in_clear.iter().filter(|(_, one)| one.sent + one.received > 0) {
        line("in clear", format!("{node}: {} sent, {} received", counted(one.sent, "packet"), one.received));
    }
    let host = if status.ready { "as it should be" } else { "NOT READY" };
    line("host", format!("{host}, {}", counted(status.repairs, "repair")));
    for registry in &status.registries {
        let state = if registry.ok { "well" } else { "NOT WELL" };
        line(&registry.name, format!("{state}: {}", registry.detail));
    }
    let drops: Vec<_> = status.drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    line("drops", or_none(&drops));
    text.push('\n');
    text.push_str(&peers(&status.peers));
    text.push_str(&carriage(&status.peers, status.workers));
    let wrong = wrong(status);
    if !wrong.is_empty() {
        text.push_str(&format!("\n{wrong}"));
    }
    text
}

/// What somebody should look at, a line for each.
fn wrong(status: &Status) -> String {
    let problems = status.problems.iter().map(|problem| format!("problem: {problem}\n"));
    let held = status.held.iter().map(|held| format!("held: {held}\n"));
    let refused = status.refusals.iter();
    let refused = refused.map(|one| format!("refused: {} ({}): {}\n", one.subject, one.reason, one.detail));
    problems.chain(held).chain(refused).collect()
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn peers(peers: &[PeerStatus]) -> String {
    if peers.is_empty() {
        return "no peers\n".to_owned();
    }
    let header = ["PEER", "STATE", "ENDPOINT", "HANDSHAKE", "RECEIVED", "SENT", "DROPS", "CIDRS"].map(str::to_owned);
    let rows = peers.iter().map(|peer| {
        [
            peer.name.clone(),
            peer.state.clone(),
            peer.endpoint.clone().unwrap_or_else(|| "unknown".to_owned()),
            peer.handshake_age.map_or_else(|| "never".to_owned(), |age| format!("{age} s ago")),
            bytes(peer.rx_bytes),
            bytes(peer.tx_bytes),
            peer.drops.to_string(),
            peer.cidrs.join(" "),
        ]
    });
    table(std::iter::once(header).chain(rows).collect())
}

/// What carries data to each peer, and why that is not associations.
fn carriage(peers: &[PeerStatus], workers: u16) -> String {
    if peers.is_empty() {
        return String::new();
    }
    let header = ["PEER", "DATA", "LANES", "AGE", "POST-QUANTUM", "WHY NOT"].map(str::to_owned);
    let none = || "-".to_owned();
    let rows = peers.iter().map(|peer| {
        let association = peer.association.as_ref();
        [
            peer.name.clone(),
            association.map_or_else(|| peer.data.clone(), |one| one.suite.clone()),
            association.map_or_else(none, |one| format!("{} of {workers}", one.lanes)),
            association.map_or_else(none, |one| format!("{} s", one.age)),
            post_quantum(association).to_owned(),
            peer.why_tunnel.clone().unwrap_or_default(),
        ]
    });
    format!("\n{}", table(std::iter::once(header).chain(rows).collect()))
}

fn post_quantum(association: Option<&AssociationStatus>) -> &'static str {
    if association.is_some_and(|one| one.post_quantum) { "yes" } else { "no" }
}

fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (n.max(1).ilog2() / 10).min(4);
    let value = n as f64 / f64::from(1u32 << (10 * unit.min(3))) / if unit == 4 { 1024.0 } else { 1.0 };
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit as usize]) }
}

/// What was verified; 2 when traffic to the peer is not encrypted, 1 when some of it is dropped.
pub(super) fn verify(verify: &Verify, output: Output) -> Result<u8, String> {
    if output == Output::Json {
        say(serde_json::to_string(verify).map_err(|error| error.to_string())?);
    } else {
        say(verified(verify).trim_end());
    }
    Ok(match verify {
        Verify { encrypted: false, .. } => FAILED,
        Verify { dropped: true, .. } => DEGRADED,
        _ => OK,
    })
}

fn verified(verify: &Verify) -> String {
    let yes = |is: bool| if is { "yes" } else { "NO" }.to_owned();
    let association = verify.association.as_ref();
    let data = association.map_or_else(
        || verify.data.clone(),
        |one| format!("{}: {}, {} of {} lanes, {} s old", verify.data, one.suite, one.lanes, verify.workers, one.age),
    );
    let mut lines = vec![
        ("peer", verify.peer.clone()),
        ("lookup", format!("{}: {}", verify.destination, verify.route)),
        ("in tunnel", yes(verify.via_tunnel)),
        ("session", yes(verify.session)),
        ("handshake", verify.rtt_ms.map_or_else(|| "not measured".to_owned(), |rtt| format!("{rtt:.2} ms"))),
        ("data", data),
        ("post-quantum", post_quantum(association).to_owned()),
    ];
    lines.extend(verify.why_tunnel.clone().map(|why| ("why not", why)));
    lines.push(("encrypted", yes(verify.encrypted)));
    let lines: String = lines.iter().map(|(name, value)| format!("{name:<12}  {value}\n")).collect();
    format!("{lines}{}\n", verify.detail)
}

/// What the host lacks; 2 when the agent cannot run.
pub(super) fn findings(findings: &[Finding]) -> u8 {
    for finding in findings {
        say(format_args!("{} {finding}", if finding.ok { "ok  " } else { "LACK" }));
    }
    if findings.iter().any(Finding::is_fatal) {
        return FAILED;
    }
    if findings.iter().all(|finding| finding.ok) { OK } else { DEGRADED }
}

/// What the CNI says at this moment.
fn from_cni(place: &Where) -> String {
    match look(place) {
        Ok(found) => {
            let cidrs: Vec<_> = found.given.cidrs.iter().map(ToString::to_string).collect();
            format!("{} ({}: {})", cidrs.join(", "), place.source, found.from)
        }
        Err(why) => format!("none yet ({}: {why})", place.source),
    }
}

/// What the configuration means.
pub(super) fn config(config: &Config) -> u8 {
    let cidrs = match (&config.node.cidrs_from, &config.node.cidrs) {
        (Some(place), _) if place.source.is_remote() => format!("those that the API server says ({})", place.source),
        (Some(place), _) => from_cni(place),
        (None, Cidrs::Auto { length }) => format!("one of its own choice (/{} or /{})", length.0, length.1),
        (None, Cidrs::Listed(list)) if list.is_empty() && config.has_store() => "what is allocated to it".to_owned(),
        (None, Cidrs::Listed(list) | Cidrs::Given(Given { cidrs: list, .. })) => {
            or_none(&list.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
    };
    say(format_args!("node {} with CIDRs: {cidrs}", config.node.name));
    say(format_args!("device {}, UDP port {}", config.overlay.device, config.underlay.port));
    say(format_args!("registry: {}", registry(config)));
    say(format_args!("static peers: {}", config.peers.len()));
    for (key, origin) in &config.overridden {
        say(format_args!("{key} is set by {origin}"));
    }
    say("the configuration is valid");
    OK
}

/// Where records come from.
fn registry(config: &Config) -> String {
    match (&config.etcd, &config.kubernetes) {
        (Some(etcd), _) => format!("etcd at {}, cluster {}", etcd.endpoints.join(", "), etcd.cluster),
        (_, Some(kubernetes)) => match (&kubernetes.server, &kubernetes.kubeconfig) {
            (Some(server), _) => format!("Kubernetes at {server}"),
            (_, Some(path)) => format!("Kubernetes, as {} says", path.display()),
            _ => "Kubernetes, as the Pod is told".to_owned(),
        },
        _ => "this file alone".to_owned(),
    }
}

#[cfg(test)]
mod tests;
