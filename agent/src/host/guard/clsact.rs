//! The guard's filter at the egress hook of traffic control, which is asked last of all, also about packets that traffic
//! control itself redirects. Put there, found again, repaired, removed.
//!
//! Lives with other people's filters: never touches one, and removes the qdisc only when it made it and nobody else has
//! a filter there. Who made it stands in the filter's handle, so it is known as long as the filter is there.

use std::collections::BTreeSet;
use std::io;

use super::message::{Device, EGRESS, Filter, INGRESS, encode};
use super::request::Kernel;
use super::wanted::Wanted;
use crate::host::HostError;

/// Ours have handles that begin like this.
const HANDLE: u32 = 0x7761_7200;
/// The last bits differ: whether the qdisc is ours, and eight turns, since a new filter stands before the old one goes.
const MADE: u32 = 0x1;
const TURNS: u32 = 8;
const LAST_BITS: u32 = 0xf;
// errno-base.h, errno.h.
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EOPNOTSUPP: i32 = 95;

/// The filters of this process.
#[derive(Debug, Default)]
pub(super) struct Filters {
    last: Option<Wanted>,
    gaps: Vec<String>,
    /// Devices, by number, on which this process made the qdisc.
    made: BTreeSet<u32>,
}

impl Filters {
    pub(super) fn gaps(&self) -> &[String] {
        &self.gaps
    }

    /// Puts what is wanted where it is not; gives the number of writes. A kernel that cannot is a gap, no failure: the
    /// rules of nftables stand.
    pub(super) fn apply(&mut self, wanted: &Wanted, touched: bool) -> u32 {
        if !touched && self.last.as_ref() == Some(wanted) {
            return 0;
        }
        let mut gaps = Vec::from_iter(wanted.gap.clone());
        let writes = self.bring_in_line(wanted, &mut gaps).unwrap_or_else(|error| {
            gaps.push(gap(
                "this host",
                &format!("traffic control cannot be asked ({error})"),
                "is CAP_NET_ADMIN there?",
            ));
            0
        });
        for gap in gaps.iter().filter(|gap| !self.gaps.contains(gap)) {
            tracing::warn!("{gap}");
        }
        // What could not be written is tried again.
        self.last = gaps.is_empty().then(|| wanted.clone());
        self.gaps = gaps;
        writes
    }

    fn bring_in_line(&mut self, wanted: &Wanted, gaps: &mut Vec<String>) -> io::Result<u32> {
        let kernel = Kernel::open()?;
        let (guarded, others): (Vec<_>, Vec<_>) =
            kernel.devices()?.into_iter().partition(|device| wanted.devices.contains(&device.name));
        let mut writes = 0;
        for device in guarded {
            match wanted.program(device.link_type) {
                Some([]) => writes += u32::from(!remove_from(&kernel, &device)?.is_empty()),
                Some(program) => match self.ensure(&kernel, &device, &encode(program)) {
                    Ok(written) => writes += written,
                    Err(problem) => gaps.push(problem),
                },
                None => gaps.push(unknown(&device)),
            }
            gaps.extend(ahead(&kernel, &device)?);
        }
        let hooked: BTreeSet<_> = kernel.qdiscs()?.into_iter().map(|qdisc| qdisc.device).collect();
        for device in others.iter().filter(|device| hooked.contains(&device.index)) {
            writes += u32::from(!remove_from(&kernel, device)?.is_empty());
        }
        Ok(writes)
    }

    /// As far to the front as possible: whoever is asked before may let a packet go.
    fn ensure(&mut self, kernel: &Kernel, device: &Device, program: &[u8]) -> Result<u32, String> {
        let asked = |error: io::Error| {
            gap(&device.name, &format!("its filters cannot be listed ({error})"), "is CAP_NET_ADMIN there?")
        };
        let filters = kernel.filters(device.index, EGRESS).map_err(asked)?;
        let priority = foremost(&filters);
        let ours: Vec<_> = filters.iter().filter(|filter| is_ours(filter)).collect();
        let first =
            filters.iter().find(|filter| filter.handle != 0 && filter.chain == 0 && filter.priority >= priority);
        if first.is_some_and(|first| first.priority == priority && first.program == program && ours == [first]) {
            return Ok(0);
        }
        let made = self.have_qdisc(kernel, device)? || ours.iter().any(|filter| filter.handle & MADE != 0);
        let handle = free_handle(&ours) | u32::from(made);
        let refused = |error| refusal(device, &error);
        kernel.add_filter(device.index, priority, handle, program).map_err(refused)?;
        for old in ours {
            kernel.delete_filter(device.index, old).map_err(refused)?;
        }
        Ok(1)
    }

    /// True when it is ours. Somebody else's must be of the same kind: behind another one the kernel would take the
    /// filter for the other hook.
    fn have_qdisc(&mut self, kernel: &Kernel, device: &Device) -> Result<bool, String> {
        match kernel.make_qdisc(device.index) {
            Ok(()) => drop(self.made.insert(device.index)),
            Err(error) if error.raw_os_error() == Some(EEXIST) => {}
            Err(error) => return Err(no_qdisc(device, &error)),
        }
        let qdiscs = kernel.qdiscs().map_err(|error| no_qdisc(device, &error))?;
        match qdiscs.iter().find(|qdisc| qdisc.device == device.index) {
            Some(qdisc) if qdisc.kind == "clsact" => Ok(self.made.contains(&device.index)),
            found => Err(gap(
                &device.name,
                &format!(
                    "a qdisc of kind {} stands where clsact must be",
                    found.map_or("unknown", |qdisc| &qdisc.kind)
                ),
                "let its owner use clsact, which has the same hook and one more",
            )),
        }
    }
}

/// The first priority that is free, or has a list into which ours fits.
fn foremost(filters: &[Filter]) -> u16 {
    let fits = |priority: &u16| {
        filters.iter().filter(|filter| filter.chain == 0 && filter.priority == *priority).all(Filter::is_alike)
    };
    (1..u16::MAX).find(fits).unwrap_or(u16::MAX)
}

fn is_ours(filter: &Filter) -> bool {
    filter.chain == 0 && filter.is_alike() && filter.handle & !LAST_BITS == HANDLE
}

fn free_handle(ours: &[&Filter]) -> u32 {
    let taken = |handle: u32| ours.iter().any(|filter| filter.handle & !MADE == handle);
    (0..TURNS).map(|turn| HANDLE | turn << 1).find(|handle| !taken(*handle)).unwrap_or(HANDLE)
}

/// Others who are asked before ours.
fn ahead(kernel: &Kernel, device: &Device) -> io::Result<Option<String>> {
    let filters = kernel.filters(device.index, EGRESS)?;
    let mut asked = filters.iter().filter(|filter| filter.handle != 0 && filter.chain == 0);
    let guarded = filters.iter().any(is_ours);
    Ok(asked.next().filter(|first| guarded && !is_ours(first)).map(|first| {
        let what = format!("a filter of kind {} and pref {} is asked before the guard's", first.kind, first.priority);
        gap(&device.name, &what, "give it a pref above 1, if what it lets pass or redirects can be of the overlay")
    }))
}

fn gap(device: &str, what: &str, remedy: &str) -> String {
    format!("{device}: {what}, so the guard does not see what traffic control redirects there: {remedy}")
}

fn unknown(device: &Device) -> String {
    let what = format!("its packets begin in a way that the guard's filter does not know (type {})", device.link_type);
    gap(&device.name, &what, "use no CNI there that routes by eBPF")
}

fn no_qdisc(device: &Device, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(ENOENT) => {
            let remedy = "the kernel needs CONFIG_NET_SCH_INGRESS (`modprobe sch_ingress`)";
            gap(&device.name, "the kernel has no clsact", remedy)
        }
        _ => gap(&device.name, &format!("the kernel refuses clsact ({error})"), "is CAP_NET_ADMIN there?"),
    }
}

fn refusal(device: &Device, error: &io::Error) -> String {
    let (what, remedy) = match error.raw_os_error() {
        Some(ENOENT) => {
            ("the kernel has no classifier by BPF", "it needs CONFIG_NET_CLS_BPF (`modprobe cls_bpf`)".to_owned())
        }
        Some(EOPNOTSUPP) => (
            "the kernel refuses a filter there",
            "it needs CONFIG_NET_CLS_ACT, and a clsact without a shared block".to_owned(),
        ),
        _ => ("the kernel refuses a filter there", format!("it says: {error}; is CAP_NET_ADMIN there?")),
    };
    gap(&device.name, what, &remedy)
}

/// Packets that ours dropped. Where others have filters too nobody can say whose drops are counted: left out.
pub(super) fn dropped() -> u64 {
    let sum = |kernel: Kernel| {
        let alone = |device: u32| {
            let egress = kernel.filters(device, EGRESS).unwrap_or_default();
            let ours = egress.iter().any(is_ours) && egress.iter().all(|filter| filter.handle == 0 || is_ours(filter));
            ours && kernel.filters(device, INGRESS).is_ok_and(|filters| filters.is_empty())
        };
        Ok(kernel.qdiscs()?.iter().filter(|qdisc| alone(qdisc.device)).map(|qdisc| u64::from(qdisc.dropped)).sum())
    };
    Kernel::open().and_then(sum).unwrap_or_default()
}

/// Removes every filter of ours; names what there was.
pub(super) fn remove() -> Result<Vec<String>, HostError> {
    let all = |kernel: Kernel| {
        let hooked: BTreeSet<_> = kernel.qdiscs()?.into_iter().map(|qdisc| qdisc.device).collect();
        let devices = kernel.devices()?.into_iter().filter(|device| hooked.contains(&device.index));
        devices.map(|device| remove_from(&kernel, &device)).collect::<io::Result<Vec<_>>>()
    };
    let removed = Kernel::open().and_then(all);
    let removed = removed.map_err(|error| HostError::Netlink {
        doing: "remove the guard's filters of traffic control".to_owned(),
        detail: error.to_string(),
    });
    removed.map(|removed| removed.concat())
}

/// The qdisc goes too when it is ours and nobody else uses it.
fn remove_from(kernel: &Kernel, device: &Device) -> io::Result<Vec<String>> {
    let filters = kernel.filters(device.index, EGRESS)?;
    let ours: Vec<_> = filters.iter().filter(|filter| is_ours(filter)).collect();
    for filter in &ours {
        kernel.delete_filter(device.index, filter)?;
    }
    let mut removed: Vec<_> = ours.first().map(|_| format!("filter on {}", device.name)).into_iter().collect();
    let made = ours.iter().any(|filter| filter.handle & MADE != 0);
    let used = |hook| kernel.filters(device.index, hook).map(|filters| !filters.is_empty());
    if made && !used(EGRESS)? && !used(INGRESS)? {
        kernel.delete_qdisc(device.index)?;
        removed.push(format!("clsact on {}", device.name));
    }
    Ok(removed)
}
