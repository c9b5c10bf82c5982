//! Echo requests that carry the canary.

use std::net::IpAddr;

use crate::namespace::Namespace;
use crate::sniffer::CANARY;

/// Echo requests sent in a row.
const COUNT: u32 = 3;

/// Whether every one of a few echo requests is answered.
#[track_caller]
pub fn ping(from: &Namespace, to: IpAddr) -> bool {
    answered(from, to, COUNT, &[]) == COUNT
}

/// How many of `count` echo requests are answered; `options` go to `ping`.
#[track_caller]
pub fn answered(from: &Namespace, to: IpAddr, count: u32, options: &[&str]) -> u32 {
    let pattern: String = CANARY.iter().map(|byte| format!("{byte:02x}")).collect();
    let (count, to) = (count.to_string(), to.to_string());
    let fixed = ["ping", "-n", "-q", "-i", "0.05", "-W", "1", "-c", &count, "-p", &pattern];
    let said = from.attempt(&[&fixed, options, &[&to]].concat());
    // The kernel refused the first one: there is no route.
    if said.stderr.contains("connect: ") {
        return 0;
    }
    let line = said.stdout.lines().find_map(|line| line.split_once(" packets transmitted, "));
    let number = line.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("cannot read what ping said: {}", said.said()))
}
