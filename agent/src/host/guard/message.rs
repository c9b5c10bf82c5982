//! Messages of traffic control as rtnetlink has them (include/uapi/linux/rtnetlink.h, pkt_sched.h, pkt_cls.h). Pure.

use super::cbpf::Instruction;

// Kinds of messages.
pub(super) const NEW_LINK: u16 = 16;
pub(super) const GET_LINK: u16 = 18;
pub(super) const NEW_QDISC: u16 = 36;
pub(super) const DELETE_QDISC: u16 = 37;
pub(super) const GET_QDISC: u16 = 38;
pub(super) const NEW_FILTER: u16 = 44;
pub(super) const DELETE_FILTER: u16 = 45;
pub(super) const GET_FILTER: u16 = 46;
// Flags of requests.
pub(super) const REQUEST: u16 = 0x001;
pub(super) const ACKNOWLEDGE: u16 = 0x004;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE_ONLY: u16 = 0x600;
/// Length of a netlink header, and of what is in front of the attributes of a device and of everything else.
pub(super) const HEADER: usize = 16;
const DEVICE_HEADER: usize = 16;
const TC_HEADER: usize = 20;

/// Where the hooks' qdisc hangs, and its two lists of filters.
const CLSACT: u32 = 0xffff_fff1;
pub(super) const INGRESS: u32 = 0xffff_fff2;
pub(super) const EGRESS: u32 = 0xffff_fff3;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// All protocols (`ETH_P_ALL`).
const ALL: u16 = 0x0003;

// Attributes.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const STATISTICS: u16 = 7;
const CHAIN: u16 = 11;
const STATISTICS_QUEUE: u16 = 3;
const LINK_NAME: u16 = 3;
const PROGRAM_LENGTH: u16 = 4;
const PROGRAM: u16 = 5;
const FLAGS: u16 = 8;
const OFFLOAD_FLAGS: u16 = 9;
/// The program's result is the verdict; and it is nothing that hardware could do.
const DIRECT_ACTION: u32 = 1;
const SKIP_HARDWARE: u32 = 1;

/// A network device, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    /// `ARPHRD_*`.
    pub(super) link_type: u16,
    pub(super) name: String,
}

/// The qdisc behind which the hooks' filters are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Qdisc {
    pub(super) device: u32,
    pub(super) kind: String,
    /// Packets that its filters dropped, on both hooks.
    pub(super) dropped: u32,
}

/// One filter of a list, in the order in which the kernel asks them; or, with handle 0, the head of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Only 0 is asked by itself.
    pub(super) chain: u32,
    pub(super) priority: u16,
    pub(super) protocol: u16,
    pub(super) kind: String,
    pub(super) handle: u32,
    /// As the kernel has it; empty for other kinds.
    pub(super) program: Vec<u8>,
}

impl Filter {
    /// Of the kind, and for the packets, of ours.
    pub(super) fn is_alike(&self) -> bool {
        self.kind == "bpf" && self.protocol == ALL.to_be()
    }
}

/// The program as the kernel takes and gives it.
pub(super) fn encode(program: &[Instruction]) -> Vec<u8> {
    let one = |Instruction(code, yes, no, operand): &Instruction| {
        let ([a, b], [e, f, g, h]) = (code.to_ne_bytes(), operand.to_ne_bytes());
        [a, b, *yes, *no, e, f, g, h]
    };
    program.iter().flat_map(one).collect()
}

pub(super) fn any_device() -> Vec<u8> {
    vec![0; DEVICE_HEADER]
}

pub(super) fn any_qdisc() -> Vec<u8> {
    header(0, 0, 0, 0)
}

pub(super) fn filters_of(device: u32, hook: u32) -> Vec<u8> {
    header(device, 0, hook, 0)
}

pub(super) fn qdisc(device: u32) -> Vec<u8> {
    let mut body = header(device, CLSACT_HANDLE, CLSACT, 0);
    attribute(&mut body, KIND, b"clsact\0");
    body
}

pub(super) fn filter(device: u32, priority: u16, handle: u32) -> Vec<u8> {
    let info = u32::from(priority) << 16 | u32::from(ALL.to_be());
    let mut body = header(device, handle, EGRESS, info);
    attribute(&mut body, KIND, b"bpf\0");
    body
}

pub(super) fn filter_with(device: u32, priority: u16, handle: u32, program: &[u8]) -> Vec<u8> {
    let mut options = Vec::new();
    attribute(&mut options, FLAGS, &DIRECT_ACTION.to_ne_bytes());
    attribute(&mut options, OFFLOAD_FLAGS, &SKIP_HARDWARE.to_ne_bytes());
    let length = u16::try_from(program.len() / 8).unwrap_or(u16::MAX);
    attribute(&mut options, PROGRAM_LENGTH, &length.to_ne_bytes());
    attribute(&mut options, PROGRAM, program);
    let mut body = filter(device, priority, handle);
    attribute(&mut body, OPTIONS, &options);
    body
}

fn header(device: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, device, handle, parent, info].iter().flat_map(|field| field.to_ne_bytes()).collect()
}

pub(super) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

pub(super) fn parse_device(body: &[u8]) -> Option<Device> {
    let link_type = u16::from_ne_bytes(body.get(2..4)?.try_into().ok()?);
    let name = text(find(body.get(DEVICE_HEADER..)?, LINK_NAME)?);
    Some(Device { index: word(body, 4)?, link_type, name })
}

/// `None` for every other qdisc.
pub(super) fn parse_qdisc(body: &[u8]) -> Option<Qdisc> {
    if word(body, 12)? != CLSACT {
        return None;
    }
    let attributes = body.get(TC_HEADER..)?;
    let queue = find(attributes, STATISTICS).and_then(|statistics| find(statistics, STATISTICS_QUEUE));
    let dropped = queue.and_then(|queue| word(queue, 8)).unwrap_or_default();
    Some(Qdisc { device: word(body, 4)?, kind: text(find(attributes, KIND)?), dropped })
}

pub(super) fn parse_filter(body: &[u8]) -> Option<Filter> {
    let (handle, info) = (word(body, 8)?, word(body, 16)?);
    let attributes = body.get(TC_HEADER..)?;
    let chain = find(attributes, CHAIN).and_then(|chain| word(chain, 0)).unwrap_or_default();
    let program = find(attributes, OPTIONS).and_then(|options| find(options, PROGRAM)).unwrap_or_default();
    let kind = text(find(attributes, KIND)?);
    let (priority, protocol) = ((info >> 16) as u16, info as u16);
    let program = if kind == "bpf" { program.to_vec() } else { Vec::new() };
    Some(Filter { chain, priority, protocol, kind, handle, program })
}

/// Is this notice about the hooks of traffic control, or about filters of the one where ours is?
pub(in crate::host) fn concerns_guard(notice: &[u8]) -> bool {
    let kind = notice.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    let parent = notice.get(HEADER..).and_then(|body| word(body, 12));
    match kind {
        Some(NEW_QDISC | DELETE_QDISC) => parent == Some(CLSACT),
        _ => parent == Some(EGRESS),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

/// The first attribute of this kind.
pub(super) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let half = |at: usize| attributes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
        let length = usize::from(half(0)?);
        let value = attributes.get(4..length)?;
        // The upper two bits are flags.
        if half(2)? & 0x3fff == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}
