//! Which filters of traffic control there shall be, on which devices; kept beside the rules. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cbpf::{Instruction, LONGEST};
use super::program::{Link, program};
use crate::config::Mode;
use crate::host::Desired;

/// One program for each kind of link, empty when none fits the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Of the devices that the guard watches, those that exist.
    pub(super) devices: Vec<String>,
    ethernet: Vec<Instruction>,
    bare: Vec<Instruction>,
    /// What the programs leave out, a sentence.
    pub(super) gap: Option<String>,
}

impl Wanted {
    /// What does not fit is left out from the back, and named.
    pub(super) fn of(desired: &Desired, devices: Vec<String>) -> Self {
        let pods = Desired { mode: Mode::Pods, ..desired.clone() };
        let (none, nobody) = (BTreeSet::new(), BTreeSet::new());
        let network =
            Desired { local_cidrs: none, remote_cidrs: BTreeMap::new(), overlay_addresses: nobody, ..pods.clone() };
        let needed = match Self::whole(desired) {
            Ok(wanted) => return Self { devices, ..wanted },
            Err(needed) => needed,
        };
        let less = [(&pods, "traffic between nodes"), (&network, "traffic outside of the cluster network")];
        let fitting = less.iter().find_map(|(desired, without)| Some((Self::whole(desired).ok()?, *without)));
        let (wanted, without) = fitting.unwrap_or((Self::default(), "anything"));
        let gap = format!(
            "the guard's filter of traffic control would need {needed} instructions, and {LONGEST} are possible: it \
             does not see {without} that traffic control redirects; choose addresses and Pod networks that fit into \
             fewer prefixes"
        );
        Self { devices, gap: Some(gap), ..wanted }
    }

    fn whole(desired: &Desired) -> Result<Self, usize> {
        let (ethernet, bare) = (program(desired, Link::Ethernet)?, program(desired, Link::Bare)?);
        Ok(Self { ethernet, bare, ..Self::default() })
    }

    /// `None` when packets on such a device begin with something unknown.
    pub(super) fn program(&self, device_type: u16) -> Option<&[Instruction]> {
        Link::of(device_type).map(|link| match link {
            Link::Ethernet => self.ethernet.as_slice(),
            Link::Bare => self.bare.as_slice(),
        })
    }
}
