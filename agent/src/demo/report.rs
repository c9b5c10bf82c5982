//! What came out: the table for people, the line of JSON for machines, and what of it is a failure.

use serde::Serialize;

use super::ping::Pings;

/// Everything the demo found; the field names are the JSON that scripts read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// Nodes.
    pub(super) nodes: usize,
    /// Pods.
    pub(super) pods: usize,
    /// Pings between Pods on different nodes.
    pub(super) pings: Pings,
    /// Frames of the overlay in clear on the underlay, from before the agents started until after they were killed.
    pub(super) plaintext_packets: u64,
    /// The same, by the same capture, with plain routes in place of Warren.
    pub(super) control_plaintext_packets: u64,
    /// One TCP stream, Pod to Pod.
    pub(super) gbps: Throughput,
    /// How long the demo took.
    pub(super) seconds: f64,
    /// Datagrams of the tunnel that the capture saw.
    #[serde(skip)]
    pub(super) tunnel_packets: u64,
}

/// Gb/s of one TCP stream, Pod to Pod.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Throughput {
    /// Through Warren.
    pub(super) warren: f64,
    /// Through wireguard-go.
    pub(super) wireguard_go: f64,
    /// Through VXLAN, which encrypts nothing.
    pub(super) vxlan: f64,
}

impl Report {
    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(&self.rounded()).unwrap_or_default()
    }

    /// The table.
    pub(super) fn table(&self) -> String {
        let gbps = self.gbps;
        let row = |name: &str, rate: f64, wire: &str| {
            format!(
                "  {name:<22}{rate:>6.2} Gb/s   {:>5.1} x   {wire}\n",
                rate / gbps.wireguard_go.max(f64::MIN_POSITIVE)
            )
        };
        let mut text = String::from("\n  Pod to Pod, 1 stream         TCP   beside   on the wire\n");
        text += &row("Warren", gbps.warren, "encrypted");
        text += &row("wireguard-go", gbps.wireguard_go, "encrypted");
        text += &row("VXLAN", gbps.vxlan, "in clear");
        text += &format!("\n  pings answered             {} of {}\n", self.pings.received, self.pings.sent);
        text += &format!(
            "  in clear with Warren       {} packets (and {} encrypted)\n",
            self.plaintext_packets, self.tunnel_packets
        );
        text += &format!(
            "  in clear without it        {} packets: the capture would have seen them\n",
            self.control_plaintext_packets
        );
        text += &format!("  all in                     {:.0} s", self.seconds);
        text
    }

    /// What a demo must not show, one sentence each.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let Pings { sent, received } = self.pings;
        if sent == 0 || received < sent {
            failures.push(format!("{} of {sent} pings were lost", sent.saturating_sub(received)));
        }
        if self.plaintext_packets > 0 {
            failures.push(format!("{} packets of the overlay crossed the underlay in clear", self.plaintext_packets));
        }
        if self.control_plaintext_packets == 0 {
            failures.push("the capture saw nothing without encryption either: it proves nothing".into());
        }
        if self.tunnel_packets == 0 {
            failures.push("the capture saw no datagram of the tunnel".into());
        }
        for (name, rate) in
            [("warren", self.gbps.warren), ("wireguard-go", self.gbps.wireguard_go), ("vxlan", self.gbps.vxlan)]
        {
            if rate <= 0.0 {
                failures.push(format!("nothing arrived through {name}"));
            }
        }
        failures
    }

    /// Numbers with as many digits as were measured.
    fn rounded(&self) -> Self {
        let mut report = self.clone();
        let rates =
            [&mut report.gbps.warren, &mut report.gbps.wireguard_go, &mut report.gbps.vxlan, &mut report.seconds];
        for rate in rates {
            *rate = (*rate * 1000.0).round() / 1000.0;
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            nodes: 3,
            pods: 6,
            pings: Pings { sent: 72, received: 72 },
            plaintext_packets: 0,
            control_plaintext_packets: 6,
            gbps: Throughput { warren: 3.0004, wireguard_go: 0.5, vxlan: 9.0 },
            seconds: 31.25,
            tunnel_packets: 150,
        }
    }

    #[test]
    fn the_json_has_exactly_the_documented_fields() {
        let expected = r#"{"nodes":3,"pods":6,"pings":{"sent":72,"received":72},"plaintext_packets":0,"control_plaintext_packets":6,"gbps":{"warren":3.0,"wireguard_go":0.5,"vxlan":9.0},"seconds":31.25}"#;
        assert_eq!(good().json(), expected);
    }

    #[test]
    fn a_good_run_has_no_failure_and_every_bad_fact_is_one() {
        assert_eq!(good().failures(), Vec::<String>::new());
        let bad: [fn(&mut Report); 6] = [
            |report| report.pings.received = 71,
            |report| report.pings = Pings::default(),
            |report| report.plaintext_packets = 1,
            |report| report.control_plaintext_packets = 0,
            |report| report.tunnel_packets = 0,
            |report| report.gbps.warren = 0.0,
        ];
        for break_it in bad {
            let mut report = good();
            break_it(&mut report);
            assert_eq!(report.failures().len(), 1);
        }
    }

    #[test]
    fn the_table_compares_with_wireguard_go() {
        assert!(good().table().contains("3.00 Gb/s     6.0 x   encrypted"));
    }
}
