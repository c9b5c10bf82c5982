//! The program of eBPF itself, instruction by instruction: no compiler is needed for a dozen of them.

use std::net::IpAddr;

use ipnet::IpNet;

/// The helper's number (`BPF_FUNC_redirect_neigh`, include/uapi/linux/bpf.h).
const REDIRECT_NEIGH: u32 = 152;
/// The verdict "whoever comes next decides" (`TC_ACT_UNSPEC`, include/uapi/linux/pkt_cls.h).
const UNDECIDED: u32 = u32::MAX;
/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;
/// Words of a `struct bpf_redir_neigh`: a family, and room for an address of either.
const NEXT_HOP: usize = 5;
// Families of addresses (include/linux/socket.h).
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
// Registers; calls take 1 to 5 as arguments and answer in 0.
const FRAME: u8 = 10;
/// Where loads from the packet look for it.
const PACKET: u8 = 6;

/// Who says where a packet goes next.
#[derive(Clone, Copy, Debug)]
pub enum NextHop {
    /// The kernel, which looks for a route by the device: the helper is given no next hop.
    Routed,
    /// The program: nobody is asked for a route.
    Given(IpAddr),
}

/// An instruction as the kernel takes it.
type Instruction = [u8; 8];

/// Hands what is for the prefix to the device, and leaves everything else alone.
pub(super) fn redirect(device: u32, to: IpNet, next: NextHop) -> Vec<u8> {
    let hand = hand_over(device, next);
    [asked(to, hand.len()), hand, vec![set(0, UNDECIDED), EXIT]].concat().concat()
}

/// Goes on with the `hand` instructions that follow when the destination is in the prefix, else behind them.
fn asked(to: IpNet, hand: usize) -> Vec<Instruction> {
    let begin = ETHERNET + if to.addr().is_ipv4() { 16 } else { 24 };
    let fields = (begin..).step_by(4).zip(words(to.network()).into_iter().zip(words(to.netmask())));
    let fields: Vec<_> = fields.filter(|(_, (_, mask))| *mask != 0).collect();
    let left = |nth: usize| i16::try_from((fields.len() - 1 - nth) * 3 + hand).expect("a short program");
    let compare = |(nth, (at, (network, mask))): (usize, &(u32, (u32, u32)))| {
        [load(*at), and(0, *mask), unless_equal(0, *network, left(nth))]
    };
    [copy(PACKET, 1)].into_iter().chain(fields.iter().enumerate().flat_map(compare)).collect()
}

/// The helper's verdict is the program's.
fn hand_over(device: u32, next: NextHop) -> Vec<Instruction> {
    let bytes = u32::try_from(NEXT_HOP * 4).expect("a small number");
    let (mut code, length) = match next {
        NextHop::Routed => (vec![set(2, 0)], 0),
        NextHop::Given(address) => {
            ([on_the_stack(address, bytes), vec![copy(2, FRAME), add(2, bytes.wrapping_neg())]].concat(), bytes)
        }
    };
    code.extend([set(1, device), set(3, length), set(4, 0), call(REDIRECT_NEIGH), EXIT]);
    code
}

/// A `struct bpf_redir_neigh` in the last bytes before the frame's end.
fn on_the_stack(address: IpAddr, bytes: u32) -> Vec<Instruction> {
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let address = words(address).into_iter().map(u32::to_be).chain(std::iter::repeat(0));
    let fields = std::iter::once(family).chain(address).take(NEXT_HOP);
    let places = (-i16::try_from(bytes).expect("a small number")..0).step_by(4);
    places.zip(fields).map(|(place, field)| store(place, field)).collect()
}

/// An address as numbers, the first one first.
fn words(address: IpAddr) -> Vec<u32> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.chunks_exact(4).map(|four| u32::from_be_bytes(four.try_into().expect("four"))).collect()
}

const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

/// Register 0 = a word of the packet; the program ends where there is none.
const fn load(at: u32) -> Instruction {
    instruction(0x20, 0, 0, 0, at)
}

const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// Sign-extended, as all that is added or set.
const fn set(to: u8, number: u32) -> Instruction {
    instruction(0xb7, to, 0, 0, number)
}

const fn and(to: u8, mask: u32) -> Instruction {
    instruction(0x54, to, 0, 0, mask)
}

const fn add(to: u8, number: u32) -> Instruction {
    instruction(0x07, to, 0, 0, number)
}

/// Compares the lower halves.
const fn unless_equal(register: u8, number: u32, jump: i16) -> Instruction {
    instruction(0x56, register, 0, jump, number)
}

const fn store(place: i16, word: u32) -> Instruction {
    instruction(0x62, FRAME, 0, place, word)
}

const fn call(helper: u32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, number: u32) -> Instruction {
    let (offset, number) = (offset.to_le_bytes(), number.to_le_bytes());
    [code, to | from << 4, offset[0], offset[1], number[0], number[1], number[2], number[3]]
}
