//! What this process may do.

use std::fs::OpenOptions;
use std::io;

use super::Finding;

/// include/uapi/linux/capability.h
const CAP_NET_ADMIN: u32 = 12;

pub(super) fn net_admin() -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if has(&status, CAP_NET_ADMIN) {
        return Finding::fine("capability CAP_NET_ADMIN");
    }
    Finding::fatal(
        "the capability CAP_NET_ADMIN is missing",
        "run as root, or with AmbientCapabilities=CAP_NET_ADMIN in the unit, or with NET_ADMIN in the container's \
         securityContext.capabilities.add",
    )
}

/// Is the capability in the effective set of this `/proc/PID/status`?
fn has(status: &str, capability: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> capability & 1 == 1)
}

pub(super) fn tun() -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Finding::fine("/dev/net/tun"),
        Err(error) => refused(&error),
    }
}

fn refused(error: &io::Error) -> Finding {
    match error.kind() {
        io::ErrorKind::NotFound => Finding::fatal(
            "/dev/net/tun does not exist",
            "load the module with `modprobe tun` (and name it in /etc/modules-load.d), or mount the device into the \
             container as a hostPath of type CharDevice",
        ),
        // A device cgroup refuses with EPERM although the node is there: runc 1.2.0 to 1.2.3 do that.
        io::ErrorKind::PermissionDenied => Finding::fatal(
            format!("/dev/net/tun may not be opened ({error}), probably by the container runtime's device rules"),
            "upgrade runc to 1.2.4 or later, or hand the device out by a device plugin, or set privileged: true",
        ),
        _ => Finding::fatal(
            format!("/dev/net/tun cannot be opened ({error})"),
            "the kernel needs CONFIG_TUN: `modprobe tun`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_decides() {
        assert!(has("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000001000\n", CAP_NET_ADMIN));
        assert!(!has("CapPrm:\t0000000000001000\nCapEff:\t0000000000000fff\n", CAP_NET_ADMIN));
        assert!(!has("", CAP_NET_ADMIN));
    }

    #[test]
    fn a_refusal_by_the_container_runtime_has_three_ways_out() {
        let finding = refused(&io::Error::from_raw_os_error(1));
        assert!(finding.is_fatal());
        for way in ["runc", "device plugin", "privileged"] {
            assert!(finding.remedy.contains(way), "{finding}");
        }
        assert!(refused(&io::Error::from_raw_os_error(2)).remedy.contains("modprobe tun"));
    }
}
