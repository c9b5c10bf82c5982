//! `docs/metrics.md`, written from the table of the families.

use std::fmt::Write as _;

use super::{FAMILIES, Family, Kind};

const BEGINNING: &str = "\
# Metrics

`GET /metrics` at `metrics.listen` (127.0.0.1:9586) answers with [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/)
text, without TLS, to whoever asks. It names peers and says how they fare; it holds no secret and changes nothing. For a Prometheus
on another host listen on the node's own address and let the firewall say who may ask: in `overlay.mode = \"nodes\"` the
scrape then travels encrypted. The other limits are those of [health.md](health.md#limits).

Nothing is counted for this: when somebody asks, at most once a second, the control plane reads the counters of the
threads, and the guard's from the kernel. Counters start at 0 with the agent; the guard's live as long as its rules do.

```yaml
scrape_configs:
  - job_name: warren
    static_configs:
      - targets: [\"192.0.2.1:9586\"]
```

## Labels, and how many series there are

| label | values | how many |
|---|---|---|
| `check` | `device`, `guard`, `host`, `routes`, `mesh`, `peers` ([health.md](health.md#readyz)) | 6 |
| `state` | `up`, `connecting`, `idle`, `vanished` | 4 |
| `suite` | `aes-256-gcm`, `chacha20-poly1305`, `tunnel` | 3 |
| `reason` | of a drop or of a refusal, both in [troubleshooting.md](troubleshooting.md) | 22 drops; of refusals only those that there are |
| `registry` | `etcd`, `kubernetes`, `static` | those in use |
| `version`, `node`, `mode`, `enforcement` | this agent's own | 1 each |
| `peer`, `friendly_name` | the peer's name | one per peer |
| `public_key` | the peer's | one per peer |
| `interface` | `overlay.device` | 1 |

Addresses, endpoints and prefixes are no labels. What has a label `peer` or `public_key` makes about fifteen series for
each peer, so a cluster of n nodes has about 15 n² of them: 150,000 with a hundred nodes, too many with a thousand.
`metrics.per_peer = false` leaves these out; the sums over all peers stay.

Series of a peer end when it leaves the mesh, and begin at 0 when it comes back or changes its key. A suite's series of
`warren_peer_lanes` ends when the peer's data travels otherwise.
";

const END: &str = "
## Dashboards and alerts

Dashboards made for `prometheus_wireguard_exporter` find their three names here, with `interface`, `public_key` and
`friendly_name`, but without `allowed_ips`.

| question | expression |
|---|---|
| is a node not ready? | `warren_ready == 0` |
| which check fails? | `warren_check == 0` |
| is a peer silent? | `warren_peers{state=\"connecting\"} > 0` |
| is the registry away for long? | `time() - warren_registry_last_contact_timestamp_seconds > 300` |
| is anything refused in clear? | `increase(warren_guard_refused_packets_total[5m]) > 0` |
| does anybody still send in clear: would `strict` be an outage? | `sum(increase(warren_guard_passed_packets_total[1h])) > 0` |
| who still talks in clear (`permissive`)? | `increase(warren_peer_in_clear_sent_packets_total[1h]) > 0` |
| does somebody fight over routes? | `increase(warren_drift_repairs_total[10m]) > 5` |
| is traffic not post-quantum? | `warren_peer_up == 1 and warren_peer_post_quantum == 0` |

What passes in clear is named by node as far as the registry knows whose prefix it is. The rest shows only in
`warren_guard_passed_packets_total`; so does what an agent that has just started has not set up yet.

This page is written from the table that `/metrics` is written by: `WARREN_WRITE_DOCS=1 cargo test -p warren --lib metrics`.
";

/// The page.
pub fn page() -> String {
    let mut page = BEGINNING.to_owned();
    for (title, per_peer) in [("The node", false), ("Every peer (`metrics.per_peer`)", true)] {
        let _ = write!(page, "\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
        for family in FAMILIES.iter().filter(|family| family.is_per_peer() == per_peer) {
            page.push_str(&row(family));
        }
    }
    page.push_str(END);
    page
}

fn row(family: &Family) -> String {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Info => "info",
    };
    let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {kind} | {} | {} |\n", family.sample_name(), labels.join(", "), family.help)
}
