//! The configuration that a runtime gives to a plugin, with what the plugins before it made. Pure.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::PLUGIN;
use super::answer::{Code, Refusal};

/// The versions of CNI that are spoken: all in which plugins can be chained.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST];
/// Spoken to those who do not say theirs.
pub(super) const NEWEST: &str = "1.1.0";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Network<'a> {
    #[serde(default)]
    cni_version: String,
    #[serde(borrow)]
    prev_result: Option<&'a RawValue>,
}

/// A result, as far as it concerns addresses.
#[derive(Deserialize)]
struct Before {
    ips: Option<Vec<Address>>,
}

#[derive(Deserialize)]
struct Address {
    address: String,
}

impl<'a> Network<'a> {
    pub(super) fn parse(input: &'a [u8]) -> Result<Self, Refusal> {
        let network: Self = serde_json::from_slice(input).map_err(|error| malformed(&error))?;
        if VERSIONS.contains(&network.cni_version.as_str()) {
            return Ok(network);
        }
        let what = format!("{PLUGIN} does not speak CNI {:?}", network.cni_version);
        Err(Refusal::new(Code::Version, what, format!("set cniVersion to one of {}", VERSIONS.join(", "))))
    }

    pub(super) fn version(&self) -> &str {
        &self.cni_version
    }

    /// What the plugins before this one made, as it came, and the addresses in there.
    pub(super) fn before(&self) -> Result<(&'a str, Vec<IpAddr>), Refusal> {
        let before = self.prev_result.map(RawValue::get).ok_or_else(|| {
            let what = format!("{PLUGIN} makes no network: there is no prevResult");
            let remedy = "put it behind the plugin that makes the Pod's interface";
            Refusal::new(Code::Configuration, what, remedy).in_version(&self.cni_version)
        })?;
        let parsed: Before = serde_json::from_str(before).map_err(|error| malformed(&error))?;
        let addresses = parsed.ips.into_iter().flatten().map(|ip| address(&ip.address));
        Ok((before, addresses.collect::<Result<_, _>>()?))
    }
}

/// An address with the length of its prefix.
fn address(text: &str) -> Result<IpAddr, Refusal> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    address.parse().map_err(|_| {
        let what = format!("{PLUGIN} cannot read the address {text:?} in prevResult");
        Refusal::new(Code::Content, what, "look at the plugin before it")
    })
}

fn malformed(error: &serde_json::Error) -> Refusal {
    let what = format!("{PLUGIN} cannot read its network configuration: {error}");
    Refusal::new(Code::Content, what, "look at the CNI's configuration file and at the plugin before this one")
}
