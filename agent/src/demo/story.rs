//! The demo, step by step.

use std::time::Instant;

use super::agents::{self, Agents};
use super::capture::Capture;
use super::command::Service;
use super::interrupt::Interrupt;
use super::ping::{self, Pings};
use super::report::{Report, Throughput};
use super::screen::Screen;
use super::world::{OVERLAY, PREFIX, World};
use super::{Args, Error, Registry, Result, etcd, rivals, throughput};
use crate::status::Status;

/// What every step needs.
pub(super) struct Story<'a> {
    /// What was asked for.
    pub(super) args: &'a Args,
    /// Where it is told.
    pub(super) screen: &'a Screen,
    /// What ends it early.
    pub(super) stop: &'a Interrupt,
}

/// What was seen while Warren carried the Pods' traffic.
struct Seen {
    pings: Pings,
    tunnel: u64,
    gbps: f64,
    plaintext: u64,
}

impl Story<'_> {
    /// Builds, shows, proves, measures and takes down; what came out, and what to say of what was left up.
    pub(super) fn tell(&self) -> Result<(Report, Vec<String>)> {
        let began = Instant::now();
        self.screen.line(&self.screen.bold("Three nodes, two Pods on each, one encrypted network"));
        let mut world = self.world()?;
        let capture = self.capture(&world)?;
        let registry = self.registry(&world)?;
        let seen = self.with_agents(&world, &capture)?;
        let control_plaintext_packets = self.control(&world, &capture)?;
        drop(capture);
        let gbps = Throughput {
            warren: seen.gbps,
            wireguard_go: self.measured("wireguard-go", |seconds| rivals::wireguard_go(&world, seconds, self.stop))?,
            vxlan: self.measured("VXLAN", |seconds| rivals::vxlan(&world, seconds, self.stop))?,
        };
        let report = Report {
            nodes: world.nodes.len(),
            pods: world.pods.len(),
            pings: seen.pings,
            plaintext_packets: seen.plaintext,
            control_plaintext_packets,
            gbps,
            seconds: began.elapsed().as_secs_f64(),
            tunnel_packets: seen.tunnel,
        };
        let left_up = if self.args.keep { self.leave_up(&mut world, registry)? } else { Vec::new() };
        Ok((report, left_up))
    }

    fn world(&self) -> Result<World> {
        self.screen.step("making nodes and Pods", || {
            let world = World::build(self.stop)?;
            let (nodes, pods, id) = (world.nodes.len(), world.pods.len(), world.id);
            Ok((world, format!("{nodes} nodes and {pods} Pods in network namespaces {PREFIX}{id}-*")))
        })
    }

    fn capture(&self, world: &World) -> Result<Capture> {
        self.screen.step("starting the capture", || {
            let capture = Capture::start(&world.underlay, OVERLAY)?;
            Ok((capture, "capture on the underlay, from before anything else starts".into()))
        })
    }

    fn registry(&self, world: &World) -> Result<Option<Service>> {
        match self.args.registry {
            Registry::Static => self.screen.step("writing config files", || {
                agents::write_static(world)?;
                Ok((None, "config files and keys: each node names the others as peers".into()))
            }),
            Registry::Etcd => self.screen.step("starting etcd", || {
                let etcd = etcd::start(world, self.args.keep, self.stop)?;
                Ok((Some(etcd), "etcd, a cluster in it, and a config file for each node".into()))
            }),
        }
    }

    fn with_agents(&self, world: &World, capture: &Capture) -> Result<Seen> {
        let mut running = self.screen.step("starting the agents", || {
            let mut running = Agents::start(world, false)?;
            running.ready(world, self.stop)?;
            Ok((running, "agents: guard, routes and peers in place on every node".into()))
        })?;
        let pings = self.screen.step("pinging", || {
            let pings = ping::all(world, self.stop)?;
            let lost = if pings.received < pings.sent { ": some were LOST" } else { "" };
            let said =
                format!("{} of {} pings answered, every Pod to every other node's{lost}", pings.received, pings.sent);
            Ok((pings, said))
        })?;
        mesh(&running.ready(world, self.stop)?).iter().for_each(|line| self.screen.line(line));
        let tunnel = capture.tunnel();
        capture.only_clear();
        let gbps = self.measured("Warren", |seconds| throughput::measure(world, seconds, self.stop))?;
        let plaintext = self.kill(running, world, capture)?;
        Ok(Seen { pings, tunnel, gbps, plaintext })
    }

    /// Without agents nothing crosses, and nothing leaks: the guard is not theirs to take along.
    fn kill(&self, running: Agents, world: &World, capture: &Capture) -> Result<u64> {
        self.screen.step("killing the agents", || {
            running.kill();
            let (one, two) = world.pair()?;
            ping::one(one, two, self.stop)?;
            let plaintext = capture.plaintext();
            Ok((
                plaintext,
                format!("agents killed, Pods still sending: {plaintext} packets in clear from the start until now"),
            ))
        })
    }

    /// The same capture, with plain routes in place of Warren: it must see what it did not see before.
    fn control(&self, world: &World, capture: &Capture) -> Result<u64> {
        self.screen.step("the control: the same without Warren", || {
            agents::cleanup(world, self.stop)?;
            let before = capture.plaintext();
            rivals::plain_routes(world, self.stop)?;
            let (one, two) = world.pair()?;
            let pings = ping::one(one, two, self.stop)?;
            let seen = capture.plaintext() - before;
            rivals::no_plain_routes(world, self.stop)?;
            if pings.received == 0 {
                return Err(Error::new("`warren cleanup` left something behind: plain routes do not work after it"));
            }
            Ok((
                seen,
                format!("control: Warren removed, plain routes instead; the same capture sees {seen} packets in clear"),
            ))
        })
    }

    fn measured(&self, name: &str, work: impl FnOnce(u16) -> Result<f64>) -> Result<f64> {
        self.screen.step(&format!("iperf3 through {name}"), || {
            let gbps = work(self.args.measure)?;
            Ok((gbps, format!("iperf3 through {name}: {gbps:.2} Gb/s")))
        })
    }

    fn leave_up(&self, world: &mut World, registry: Option<Service>) -> Result<Vec<String>> {
        self.screen.step("starting the agents again", || {
            let mut running = Agents::start(world, true)?;
            running.ready(world, self.stop)?;
            running.release();
            registry.into_iter().for_each(Service::release);
            world.keep()?;
            Ok(((), "agents started again; everything stays up".into()))
        })?;
        playground(world)
    }
}

/// The mesh as the agents tell it.
fn mesh(all: &[Status]) -> Vec<String> {
    let lines = all.iter().flat_map(|status| {
        status.peers.iter().map(move |peer| {
            let endpoint = peer.endpoint.as_deref().unwrap_or("-");
            let age = peer.handshake_age.map_or_else(|| "no handshake".into(), |age| format!("handshake {age} s ago"));
            format!(
                "      {} → {}  {endpoint}  {}, {age}  {}",
                status.node,
                peer.name,
                peer.state,
                peer.cidrs.join(" ")
            )
        })
    });
    lines.collect()
}

/// What to try, and how to end it.
fn playground(world: &World) -> Result<Vec<String>> {
    let program = agents::program()?;
    let (pod, other) = world.pair()?;
    let mut lines = vec!["\nNamespaces:".to_owned(), format!("  {}  (underlay)", world.underlay)];
    for node in &world.nodes {
        let pods: Vec<String> = world.pods_of(node).map(|pod| format!("{} {}", pod.namespace, pod.address)).collect();
        lines.push(format!("  {} {}  Pods: {}", node.namespace, node.address, pods.join(", ")));
    }
    lines.push("\nTry:".into());
    lines.push(format!("  ip netns exec {} ping {}", pod.namespace, other.address));
    for node in world.nodes.iter().take(1) {
        lines.push(format!("  ip netns exec {} {program} status --config {}", node.namespace, node.config()));
    }
    lines.push(format!("  ip netns exec {} tcpdump -ni br0", world.underlay));
    lines.push(format!("\nRemove it all:\n  {program} demo --clean"));
    Ok(lines)
}
