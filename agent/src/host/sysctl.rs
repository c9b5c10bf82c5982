//! Kernel parameters without which nothing is forwarded. What was before is remembered and put back by cleanup.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Desired;

/// Name of the file that remembers what was.
const FILE: &str = "sysctl.json";

/// Parameters that we changed: name, then value before and value written.
#[derive(Debug, Default)]
pub(super) struct Sysctls {
    state_dir: PathBuf,
    changed: BTreeMap<String, (String, String)>,
    /// What is not as it should be and cannot be written.
    pub(super) problems: Vec<String>,
}

impl Sysctls {
    pub(super) fn open(state_dir: &Path) -> Self {
        let text = fs::read(state_dir.join(FILE)).unwrap_or_default();
        let changed = serde_json::from_slice(&text).unwrap_or_default();
        Self { state_dir: state_dir.to_owned(), changed, problems: Vec::new() }
    }

    /// Writes what differs; gives the number of writes.
    pub(super) fn apply(&mut self, desired: &Desired) -> u32 {
        self.problems.clear();
        let has = |v6: bool| desired.local_cidrs.iter().any(|net| net.addr().is_ipv6() == v6);
        let mut writes = 0;
        if has(false) {
            writes += self.ensure("net/ipv4/ip_forward", "1", true);
        }
        if has(true) {
            // A router ignores router advertisements unless told not to (Documentation/networking/ip-sysctl.rst).
            for device in &desired.underlay_devices {
                let name = format!("net/ipv6/conf/{device}/accept_ra");
                if read(&name).as_deref() == Some("1") {
                    writes += self.ensure(&name, "2", true);
                }
            }
            writes += self.ensure("net/ipv6/conf/all/forwarding", "1", true);
        }
        writes + self.device(&desired.device)
    }

    /// Parameters that go with the device need no memory.
    fn device(&mut self, device: &str) -> u32 {
        if !Path::new("/proc/sys/net/ipv4/conf").join(device).exists() {
            return 0;
        }
        let v6 = format!("net/ipv6/conf/{device}");
        let mut writes = 0;
        // Loose: the way back to a node address is the underlay's (RFC 3704).
        let name = format!("net/ipv4/conf/{device}/rp_filter");
        // The stricter of the two counts, but for 2, which is the looser.
        let strict = |name: &str| read(name).as_deref() == Some("1");
        let loose = read(&name).as_deref() == Some("2");
        if !loose && (strict("net/ipv4/conf/all/rp_filter") || strict(&name)) {
            writes += self.ensure(&name, "2", false);
        }
        if Path::new("/proc/sys").join(&v6).exists() {
            writes += wish(&format!("{v6}/accept_ra"), "0");
            // No link-local address: nobody on a TUN would answer.
            writes += wish(&format!("{v6}/addr_gen_mode"), "1");
        }
        writes
    }

    fn ensure(&mut self, name: &str, wanted: &str, remember: bool) -> u32 {
        let Some(present) = read(name) else { return 0 };
        if present == wanted {
            return 0;
        }
        if let Err(error) = fs::write(Path::new("/proc/sys").join(name), wanted) {
            let name = name.replace('/', ".");
            self.problems
                .push(format!("{name} is {present} and cannot be set ({error}): run `sysctl -w {name}={wanted}`"));
            return 0;
        }
        if remember {
            let before = self.changed.remove(name).map_or(present, |(before, _)| before);
            self.changed.insert(name.to_owned(), (before, wanted.to_owned()));
            self.save();
        }
        1
    }

    fn save(&mut self) {
        let file = self.state_dir.join(FILE);
        let text = serde_json::to_vec(&self.changed).unwrap_or_default();
        if let Err(error) = fs::create_dir_all(&self.state_dir).and_then(|()| fs::write(&file, text)) {
            self.problems
                .push(format!("{} cannot be written ({error}): cleanup will not undo sysctls", file.display()));
        }
    }

    /// Puts back what still is as we left it.
    pub(super) fn restore(&mut self) -> Vec<String> {
        let mut restored = Vec::new();
        for (name, (before, written)) in std::mem::take(&mut self.changed) {
            let untouched = read(&name).as_ref() == Some(&written);
            if untouched && fs::write(Path::new("/proc/sys").join(&name), &before).is_ok() {
                restored.push(format!("change of sysctl {}: back to {before}", name.replace('/', ".")));
            }
        }
        let _ = fs::remove_file(self.state_dir.join(FILE));
        restored
    }
}

/// As [`Sysctls::ensure`], for what does no harm where it cannot be written, as in a container that sees /proc/sys read-only:
/// what these would let in or out has link-local addresses, which the data path drops.
fn wish(name: &str, wanted: &str) -> u32 {
    let differs = read(name).is_some_and(|present| present != wanted);
    u32::from(differs && fs::write(Path::new("/proc/sys").join(name), wanted).is_ok())
}

/// The value of a parameter, if the kernel has it.
pub(crate) fn read(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok().map(|text| text.trim().to_owned())
}
