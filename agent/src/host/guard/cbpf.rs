//! Classic BPF, written backwards: every jump of it leads forward, so the target stands already when the jump is
//! written and its distance is known. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The kernel takes no more than 4096 instructions (`BPF_MAXINSNS`, include/uapi/linux/bpf_common.h), and cannot list a
/// filter of more than 32 KiB with all that is said of it: nobody could read back what stands there.
pub(super) const LONGEST: usize = 4000;
/// How far a conditional jump reaches: eight bits.
const REACH: usize = u8::MAX as usize;

/// Loads a word, half word or byte at X + k into A.
pub(super) const LOAD_WORD: u16 = 0x40;
pub(super) const LOAD_HALF: u16 = 0x48;
pub(super) const LOAD_BYTE: u16 = 0x50;
/// Loads the packet's length into A.
pub(super) const LOAD_LENGTH: u16 = 0x80;
/// Loads what the kernel holds the packet for, an Ethernet type, into A; the operand is [`KIND`].
pub(super) const LOAD_KIND: u16 = 0x20;
/// `SKF_AD_OFF + SKF_AD_PROTOCOL` (include/uapi/linux/filter.h).
pub(super) const KIND: u32 = 0xffff_f000;
/// X = k, X = A, A = X.
pub(super) const SET_X: u16 = 0x01;
pub(super) const A_TO_X: u16 = 0x07;
pub(super) const X_TO_A: u16 = 0x87;
/// A = A op k, or op X.
pub(super) const ADD: u16 = 0x04;
pub(super) const ADD_X: u16 = 0x0c;
pub(super) const SUBTRACT_X: u16 = 0x1c;
pub(super) const AND: u16 = 0x54;
pub(super) const SHIFT_LEFT: u16 = 0x64;
/// Jumps: A == k, A >= k, A & k, A >= X.
pub(super) const EQUAL: u16 = 0x15;
pub(super) const AT_LEAST: u16 = 0x35;
pub(super) const ANY_BIT: u16 = 0x45;
pub(super) const AT_LEAST_X: u16 = 0x3d;
/// Goes on k instructions later.
pub(super) const JUMP: u16 = 0x05;
/// Ends with k.
pub(super) const RETURN: u16 = 0x06;

/// One instruction (`struct sock_filter`, include/uapi/linux/filter.h): code, jumps if true and if false, operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instruction(pub(super) u16, pub(super) u8, pub(super) u8, pub(super) u32);

/// A place in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(usize);

/// A program from its end to what is written so far.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The latest jump to a place, for those who do not reach it themselves.
    relays: BTreeMap<Label, Label>,
}

impl Assembler {
    /// Ends with `verdict`.
    pub(super) fn end(&mut self, verdict: u32) -> Label {
        self.push(Instruction(RETURN, 0, 0, verdict))
    }

    /// Does something, and goes on at `next`.
    pub(super) fn then(&mut self, code: u16, operand: u32, next: Label) -> Label {
        if self.distance(next) > 0 {
            self.relay(next);
        }
        self.push(Instruction(code, 0, 0, operand))
    }

    /// Compares, and goes on at `yes` or at `no`.
    pub(super) fn branch(&mut self, code: u16, operand: u32, yes: Label, no: Label) -> Label {
        // One less, since the way to `no` may put a relay in between.
        let yes = self.within(yes, REACH - 1);
        let no = self.within(no, REACH);
        let jump = |to| u8::try_from(self.distance(to)).unwrap_or(u8::MAX);
        self.push(Instruction(code, jump(yes), jump(no), operand))
    }

    /// The program; or how many instructions it would have, when the kernel takes fewer.
    pub(super) fn finish(mut self) -> Result<Vec<Instruction>, usize> {
        if self.reversed.len() > LONGEST {
            return Err(self.reversed.len());
        }
        self.reversed.reverse();
        Ok(self.reversed)
    }

    fn push(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }

    /// How many instructions lie between the next one written and `to`.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len() - 1 - to.0
    }

    /// The place itself, or a relay to it, no further than `reach`.
    fn within(&mut self, to: Label, reach: usize) -> Label {
        let near = |label: &Label| self.distance(*label) <= reach;
        if near(&to) { to } else { self.relays.get(&to).copied().filter(near).unwrap_or_else(|| self.relay(to)) }
    }

    fn relay(&mut self, to: Label) -> Label {
        let distance = u32::try_from(self.distance(to)).unwrap_or(u32::MAX);
        let relay = self.push(Instruction(JUMP, 0, 0, distance));
        self.relays.insert(to, relay);
        relay
    }
}
