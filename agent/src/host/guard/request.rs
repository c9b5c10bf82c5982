//! Requests to the kernel by netlink, each answered before the next: the guard is loaded, and asked for, where there is no
//! event loop.

use std::io;

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::cbpf::{Instruction, RETURN};
use super::message::{self, ACKNOWLEDGE, CREATE_ONLY, DUMP, Device, Filter, HEADER, Qdisc, REQUEST};
use super::program::PASS;

// Kinds of messages that are no content.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// What is listed changed meanwhile: some of it may be missing (NLM_F_DUMP_INTR).
const TORN: u16 = 0x10;
/// So often a list is asked for until it is whole.
const TRIES: u32 = 32;
/// The kernel lists as much at once as it knows that there is room for; a program longer than that it cannot list at all.
const ROOM: usize = 64 << 10;
/// Bytes of a program that fit into one page with all else that is said of it.
const PAGE_FULL: usize = 2048;

/// One socket, for one conversation.
pub(super) struct Kernel {
    socket: Socket,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        Self::of(NETLINK_ROUTE)
    }

    /// Of another protocol of netlink than that of devices and filters.
    pub(super) fn of(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    pub(super) fn devices(&self) -> io::Result<Vec<Device>> {
        self.dump(message::GET_LINK, message::NEW_LINK, &message::any_device(), message::parse_device)
    }

    /// Those behind which filters of the hooks can be.
    pub(super) fn qdiscs(&self) -> io::Result<Vec<Qdisc>> {
        self.dump(message::GET_QDISC, message::NEW_QDISC, &message::any_qdisc(), message::parse_qdisc)
    }

    /// In the order in which they are asked.
    pub(super) fn filters(&self, device: u32, hook: u32) -> io::Result<Vec<Filter>> {
        let about = message::filters_of(device, hook);
        self.dump(message::GET_FILTER, message::NEW_FILTER, &about, message::parse_filter)
    }

    pub(super) fn make_qdisc(&self, device: u32) -> io::Result<()> {
        self.change(message::NEW_QDISC, CREATE_ONLY, &message::qdisc(device))
    }

    pub(super) fn delete_qdisc(&self, device: u32) -> io::Result<()> {
        self.change(message::DELETE_QDISC, 0, &message::qdisc(device))
    }

    /// Before all others of its priority.
    pub(super) fn add_filter(&self, device: u32, priority: u16, handle: u32, program: &[u8]) -> io::Result<()> {
        let filter = message::filter_with(device, priority, handle, program);
        self.change(message::NEW_FILTER, CREATE_ONLY, &filter)
    }

    /// Kernels that tell of a deletion in one page refuse to delete what does not fit there: a long program goes first.
    pub(super) fn delete_filter(&self, device: u32, filter: &Filter) -> io::Result<()> {
        let (priority, handle) = (filter.priority, filter.handle);
        if filter.program.len() > PAGE_FULL {
            let nothing = message::encode(&[Instruction(RETURN, 0, 0, PASS)]);
            self.change(message::NEW_FILTER, 0, &message::filter_with(device, priority, handle, &nothing))?;
        }
        self.change(message::DELETE_FILTER, 0, &message::filter(device, priority, handle))
    }

    fn change(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, REQUEST | ACKNOWLEDGE | flags, body)?;
        while self.each(|_| {})? {}
        Ok(())
    }

    pub(super) fn dump<T>(
        &self,
        ask: u16,
        answer: u16,
        body: &[u8],
        parse: fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..TRIES {
            let (mut found, mut torn) = (Vec::new(), false);
            self.send(ask, REQUEST | DUMP, body)?;
            while self.each(|message| {
                torn |= message.flags & TORN != 0;
                found.extend((message.kind == answer).then(|| parse(message.body)).flatten());
            })? {}
            if !torn {
                return Ok(found);
            }
        }
        Err(io::Error::other("what the kernel lists changed each time while it was listed"))
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence number and sender: one request at a time needs neither.
        message.extend([0; 8]);
        message.extend(body);
        self.socket.send(&message, 0).map(drop)
    }

    /// Gives `content` every message of one datagram; false when that was the end.
    fn each(&self, content: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        let mut datagram = Vec::with_capacity(ROOM);
        self.socket.recv(&mut datagram, 0)?;
        walk(&datagram, content)
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

/// Gives `content` every message, the last one too; false when that was the end of what was asked for.
fn walk(mut rest: &[u8], mut content: impl FnMut(&Message<'_>)) -> io::Result<bool> {
    while let Some((message, length)) = first(rest) {
        content(&message);
        if matches!(message.kind, DONE | ERROR) {
            return result(message.body).map(|()| false);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// The first of the messages, and how long it is.
fn first(messages: &[u8]) -> Option<(Message<'_>, usize)> {
    let length = u32::from_ne_bytes(messages.get(..4)?.try_into().ok()?) as usize;
    let number = |at: usize| Some(u16::from_ne_bytes(messages.get(at..at + 2)?.try_into().ok()?));
    let message = Message { kind: number(4)?, flags: number(6)?, body: messages.get(HEADER..length)? };
    Some((message, length))
}

/// The errno of an answer is negative; 0 is success.
fn result(body: &[u8]) -> io::Result<()> {
    match body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
        Some(code) if code < 0 => Err(io::Error::from_raw_os_error(-code)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]];
        head.into_iter().chain([body]).flatten().copied().collect()
    }

    #[test]
    fn that_a_list_is_torn_is_seen_wherever_the_kernel_says_it() {
        for torn in 0..3 {
            let flags = |at| if at == torn { TORN } else { 0 };
            let datagram = [message(16, flags(0), b"link"), message(DONE, flags(1), &[0; 4])].concat();
            let (mut bodies, mut seen) = (Vec::new(), false);
            let goes_on = walk(&datagram, |message| {
                seen |= message.flags & TORN != 0;
                bodies.push(message.body.to_vec());
            });
            assert!(!goes_on.unwrap());
            assert_eq!((seen, &bodies[0][..]), (torn < 2, &b"link"[..]));
        }
    }

    #[test]
    fn messages_that_are_cut_short_or_say_so_end_nothing_well() {
        let whole = message(DONE, 0, &[0; 4]);
        for length in 0..whole.len() {
            assert!(walk(&whole[..length], |_| panic!("there is none")).unwrap(), "the end did not come yet");
        }
        assert_eq!(walk(&message(ERROR, 0, &(-1_i32).to_ne_bytes()), |_| {}).unwrap_err().raw_os_error(), Some(1));
    }
}
