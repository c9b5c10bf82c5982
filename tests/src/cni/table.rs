//! The matrix as a table, one row a cell.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::cell::{Cell, Outcome};
use crate::Family;

/// Runs every cell, prints its row as soon as it is known, and then what is not as it must be.
pub fn print(cells: &[Cell]) -> usize {
    println!(
        "{:<26} {:<26} {:<6} {:<5} {:>5} {:>7} {:>9} {:>8} {:>10}",
        "CNI", "kube-proxy", "mode", "IP", "MTU", "reached", "encrypted", "in clear", "control"
    );
    let mut faults = Vec::new();
    for cell in cells {
        let outcome = catch_unwind(AssertUnwindSafe(|| cell.run()));
        let outcome = outcome.unwrap_or_else(|panic| Outcome { faults: vec![said(&*panic)], ..Outcome::default() });
        println!("{}", row(cell, &outcome));
        faults.extend(outcome.faults.into_iter().map(|fault| format!("{}: {fault}", name(cell))));
    }
    faults.iter().for_each(|fault| println!("{fault}"));
    faults.len()
}

/// A cell in words.
pub fn name(cell: &Cell) -> String {
    format!("{}, {}, {}, {}, {}", cell.cni.name(), cell.proxy.name(), cell.mode.name(), family(cell.family), cell.mtu)
}

fn row(cell: &Cell, outcome: &Outcome) -> String {
    format!(
        "{:<26} {:<26} {:<6} {:<5} {:>5} {:>7} {:>9} {:>8} {:>10}{}",
        cell.cni.name(),
        cell.proxy.name(),
        cell.mode.name(),
        family(cell.family),
        cell.mtu,
        format!("{}/{}", outcome.reached, outcome.ways),
        outcome.tunnel,
        outcome.clear,
        format!("{}/{}", outcome.seen, outcome.sealed),
        if outcome.faults.is_empty() { "" } else { "  FAULT" },
    )
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
        Family::Dual => "dual",
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
