//! Longest-prefix match for IPv4 and IPv6: the same table chooses the peer on egress and checks the source on ingress.

use std::net::IpAddr;

use ipnet::IpNet;

/// A prefix table.
#[derive(Clone, Debug, Default)]
pub struct Routes<T> {
    entries: Vec<(IpNet, T)>,
}

#[allow(unused_variables, clippy::todo)]
impl<T> Routes<T> {
    /// Builds the table; of equal prefixes the first wins.
    pub fn new(entries: impl IntoIterator<Item = (IpNet, T)>) -> Self { todo!() }
    /// The value of the longest prefix that holds `address`. Allocates nothing.
    pub fn lookup(&self, address: IpAddr) -> Option<&T> { todo!() }
}
