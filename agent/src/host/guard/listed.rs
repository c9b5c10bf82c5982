//! What the kernel lists of our table, as nfnetlink has it (include/uapi/linux/netfilter/nf_tables.h). Pure.
//!
//! Numbers in attributes are in network byte order, other than rtnetlink's.

use super::TABLE;
use super::message::{attribute, find, text};

// Kinds of messages, below their subsystem (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM;
pub(super) const GET_TABLE: u16 = SUBSYSTEM | 1;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
pub(super) const GET_RULE: u16 = SUBSYSTEM | 7;
pub(super) const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
pub(super) const GET_ELEMENTS: u16 = SUBSYSTEM | 13;

/// `struct nfgenmsg` of the family `inet`: family, version, resource.
const HEADER: [u8; 4] = [1, 0, 0, 0];

// Attributes. Tables, chains, rules and lists of elements all begin with the table's name.
const OF_TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const LOOKUP_SET: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;
/// `NFT_TABLE_F_DORMANT`: its hooks are not asked.
const DORMANT: u32 = 1;
/// `NFT_SET_ELEM_INTERVAL_END`
const INTERVAL_END: u32 = 1;

/// A point of an interval set: what begins here is in, or out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) key: Vec<u8>,
    pub(super) inside: bool,
    /// The last address, where the kernel lists a whole interval at once.
    pub(super) last: Option<Vec<u8>>,
}

/// The rules of one chain of our table.
pub(super) fn rules_of(chain: &str) -> Vec<u8> {
    let mut body = HEADER.to_vec();
    attribute(&mut body, OF_TABLE, terminated(TABLE).as_bytes());
    attribute(&mut body, RULE_CHAIN, terminated(chain).as_bytes());
    body
}

/// The elements of one set of our table.
pub(super) fn elements_of(set: &str) -> Vec<u8> {
    let mut body = HEADER.to_vec();
    attribute(&mut body, OF_TABLE, terminated(TABLE).as_bytes());
    attribute(&mut body, ELEMENTS_SET, terminated(set).as_bytes());
    body
}

/// Everything of the family.
pub(super) fn all() -> Vec<u8> {
    HEADER.to_vec()
}

fn terminated(name: &str) -> String {
    format!("{name}\0")
}

/// Of our table: whether its hooks are asked.
pub(super) fn awake(body: &[u8]) -> Option<bool> {
    let flags = find(ours(body)?, TABLE_FLAGS).and_then(number).unwrap_or_default();
    Some(flags & DORMANT == 0)
}

/// A chain of our table that hangs on a hook.
pub(super) fn hooked_chain(body: &[u8]) -> Option<String> {
    let chain = ours(body)?;
    find(chain, CHAIN_HOOK)?;
    find(chain, CHAIN_NAME).map(text)
}

/// The sets that a rule looks into, with the rule's chain.
pub(super) fn lookups(body: &[u8]) -> Option<(String, Vec<String>)> {
    let rule = ours(body)?;
    let lookup = |expression: &[u8]| {
        let kind = find(expression, EXPRESSION_NAME).map(text)?;
        let data = find(expression, EXPRESSION_DATA)?;
        (kind == "lookup").then(|| find(data, LOOKUP_SET).map(text)).flatten()
    };
    let sets = nested(find(rule, RULE_EXPRESSIONS)?).filter_map(lookup).collect();
    Some((find(rule, RULE_CHAIN).map(text)?, sets))
}

/// The points of a set, as many as came in one message.
pub(super) fn points(body: &[u8]) -> Option<Vec<Point>> {
    let list = ours(body)?;
    let value = |element: &[u8], kind| find(find(element, kind)?, DATA_VALUE).map(<[u8]>::to_vec);
    let point = |element: &[u8]| {
        let flags = find(element, ELEMENT_FLAGS).and_then(number).unwrap_or_default();
        let key = value(element, ELEMENT_KEY)?;
        Some(Point { key, inside: flags & INTERVAL_END == 0, last: value(element, ELEMENT_KEY_END) })
    };
    Some(nested(find(list, ELEMENTS)?).filter_map(point).collect())
}

/// The attributes of something that is in our table.
fn ours(body: &[u8]) -> Option<&[u8]> {
    let attributes = body.get(HEADER.len()..)?;
    let table = find(attributes, OF_TABLE).map(text)?;
    (table == TABLE && body.first() == HEADER.first()).then_some(attributes)
}

/// What is in the attributes of a list, one after the other.
fn nested(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(list.get(..2)?.try_into().ok()?));
        let value = list.get(4..length)?;
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(value)
    })
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
