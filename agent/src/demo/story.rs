//! The demo, step by step.

use std::time::Instant;

use super::agents::{self, Agents};
use super::capture::Capture;
use super::command::Service;
use super::interrupt::Interrupt;
use super::ping::{self, Pings};
use super::report::{Report, Throughput};
use super::screen::Screen;
use super::world::{OVERLAY, World};
use super::{Args, Error, Registry, Result, etcd, rivals, throughput};
use crate::status::Status;

/// Builds, shows, proves, measures and takes down.
pub(super) fn tell(args: &Args, screen: &Screen, stop: &Interrupt) -> Result<Report> {
    let began = Instant::now();
    screen.line(&screen.bold("Three nodes, two Pods on each, one encrypted network"));
    let mut world = screen.step("making nodes and Pods", || {
        let world = World::build(stop)?;
        let said =
            format!("{} nodes and {} Pods in network namespaces {}-*", world.nodes.len(), world.pods.len(), id(&world));
        Ok((world, said))
    })?;
    let capture = screen.step("starting the capture", || {
        let capture = Capture::start(&world.underlay, OVERLAY)?;
        Ok((capture, "capturing on the underlay, before anything else starts".into()))
    })?;
    let registry = registry(args, &world, screen, stop)?;
    let seen = with_agents(args, &world, &capture, screen, stop)?;
    let control_plaintext_packets = control(&world, &capture, screen, stop)?;
    drop(capture);
    let gbps = rivals(args, seen.gbps, &world, screen, stop)?;
    if args.keep {
        leave_up(&mut world, registry, screen, stop)?;
    }
    Ok(Report {
        nodes: world.nodes.len(),
        pods: world.pods.len(),
        pings: seen.pings,
        plaintext_packets: seen.plaintext,
        control_plaintext_packets,
        gbps,
        seconds: began.elapsed().as_secs_f64(),
        tunnel_packets: seen.tunnel,
    })
}

fn id(world: &World) -> String {
    format!("wdemo{}", world.id)
}

fn registry(args: &Args, world: &World, screen: &Screen, stop: &Interrupt) -> Result<Option<Service>> {
    match args.registry {
        Registry::Static => screen.step("writing config files", || {
            agents::write_static(world)?;
            Ok((None, "config files and keys written: each node names the others as peers".into()))
        }),
        Registry::Etcd => screen.step("starting etcd", || {
            let etcd = etcd::start(world, args.keep, stop)?;
            Ok((Some(etcd), "etcd started, cluster initialised, config files written".into()))
        }),
    }
}

/// What was seen while Warren carried the Pods' traffic.
struct Seen {
    pings: Pings,
    plaintext: u64,
    tunnel: u64,
    gbps: f64,
}

fn with_agents(args: &Args, world: &World, capture: &Capture, screen: &Screen, stop: &Interrupt) -> Result<Seen> {
    let running = screen.step("starting the agents", || {
        let mut running = Agents::start(world, false)?;
        running.ready(world, stop)?;
        Ok((running, "agents started: guard, routes and peers in place".into()))
    })?;
    let pings = screen.step("pinging", || {
        let pings = ping::all(world, stop)?;
        Ok((pings, format!("{} of {} pings answered between Pods on different nodes", pings.received, pings.sent)))
    })?;
    show_mesh(world, running, capture, pings, args, screen, stop)
}

fn show_mesh(
    world: &World,
    mut running: Agents,
    capture: &Capture,
    pings: Pings,
    args: &Args,
    screen: &Screen,
    stop: &Interrupt,
) -> Result<Seen> {
    for line in mesh(&running.ready(world, stop)?) {
        screen.line(&line);
    }
    let tunnel = capture.tunnel();
    capture.only_clear();
    let gbps = measured("Warren", screen, || throughput::measure(world, args.measure, stop))?;
    let plaintext = screen.step("killing the agents", || {
        running.kill();
        let (one, two) = world.pair()?;
        ping::one(one, two, stop)?;
        let plaintext = capture.plaintext();
        Ok((plaintext, format!("{plaintext} packets in clear so far, also with the agents killed: the guard holds")))
    })?;
    Ok(Seen { pings, plaintext, tunnel, gbps })
}

/// The mesh as the agents tell it.
fn mesh(all: &[Status]) -> Vec<String> {
    let lines = all.iter().flat_map(|status| {
        status.peers.iter().map(move |peer| {
            let endpoint = peer.endpoint.as_deref().unwrap_or("-");
            let age = peer.handshake_age.map_or_else(|| "no handshake".into(), |age| format!("handshake {age} s ago"));
            format!(
                "      {} → {}  {endpoint}  {}  {age}  {}",
                status.node,
                peer.name,
                peer.state,
                peer.cidrs.join(" ")
            )
        })
    });
    lines.collect()
}

/// The same capture, with plain routes in place of Warren: it must see what it did not see before.
fn control(world: &World, capture: &Capture, screen: &Screen, stop: &Interrupt) -> Result<u64> {
    screen.step("the control: the same without Warren", || {
        agents::cleanup(world, stop)?;
        let before = capture.plaintext();
        rivals::plain_routes(world, stop)?;
        let (one, two) = world.pair()?;
        let pings = ping::one(one, two, stop)?;
        let seen = capture.plaintext() - before;
        rivals::no_plain_routes(world, stop)?;
        if pings.received == 0 {
            return Err(Error::new(
                "`warren cleanup` left something behind: plain routes between the nodes do not work",
            ));
        }
        Ok((
            seen,
            format!("control: Warren removed, plain routes instead, and the same capture sees {seen} packets in clear"),
        ))
    })
}

fn rivals(args: &Args, warren: f64, world: &World, screen: &Screen, stop: &Interrupt) -> Result<Throughput> {
    let wireguard_go = measured("wireguard-go", screen, || rivals::wireguard_go(world, args.measure, stop))?;
    let vxlan = measured("VXLAN", screen, || rivals::vxlan(world, args.measure, stop))?;
    Ok(Throughput { warren, wireguard_go, vxlan })
}

fn measured(name: &str, screen: &Screen, work: impl FnOnce() -> Result<f64>) -> Result<f64> {
    screen.step(&format!("iperf3 through {name}"), || {
        work().map(|gbps| (gbps, format!("iperf3 through {name}: {gbps:.2} Gb/s")))
    })
}

fn leave_up(world: &mut World, registry: Option<Service>, screen: &Screen, stop: &Interrupt) -> Result<()> {
    screen.step("starting the agents again", || {
        let mut running = Agents::start(world, true)?;
        running.ready(world, stop)?;
        running.release();
        registry.into_iter().for_each(Service::release);
        world.keep()?;
        Ok(((), "agents started again; everything stays up".into()))
    })?;
    for line in playground(world)? {
        screen.line(&line);
    }
    Ok(())
}

/// What to try, and how to end it.
fn playground(world: &World) -> Result<Vec<String>> {
    let program = agents::program()?;
    let (pod, other) = world.pair()?;
    let mut lines = vec![String::new(), "Namespaces:".into(), format!("  {}  (underlay)", world.underlay)];
    for node in &world.nodes {
        let pods: Vec<String> = world.pods_of(node).map(|pod| format!("{} {}", pod.namespace, pod.address)).collect();
        lines.push(format!("  {} {}  Pods: {}", node.namespace, node.address, pods.join(", ")));
    }
    lines.push("Try:".into());
    lines.push(format!("  ip netns exec {} ping {}", pod.namespace, other.address));
    for node in world.nodes.iter().take(1) {
        lines.push(format!("  ip netns exec {} {program} status --config {}", node.namespace, node.config()));
    }
    lines.push(format!("  ip netns exec {} tcpdump -ni br0", world.underlay));
    lines.push(format!("Remove it all:\n  {program} demo --clean"));
    Ok(lines)
}
