//! A file of wg-quick (wg-quick(8)) as a configuration of ours. Pure. What has no counterpart is named, not dropped in silence;
//! what cannot be read is an error with its line and without its value, which may be a key.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use warren_crypto::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::Draft;

/// What came of a file.
pub(super) struct Imported {
    /// warren.toml and the keys.
    pub(super) drafts: Vec<Draft>,
    /// What has no counterpart, one sentence each.
    pub(super) notes: Vec<String>,
}

#[derive(Default)]
struct Interface {
    key: Option<Zeroizing<String>>,
    addresses: Vec<IpNet>,
    port: Option<u16>,
    mtu: Option<u16>,
}

#[derive(Default)]
struct Peer {
    line: usize,
    public_key: Option<PublicKey>,
    endpoint: Option<SocketAddr>,
    cidrs: Vec<IpNet>,
    preshared: Option<Zeroizing<String>>,
    keepalive: Option<u16>,
}

/// While a file is read.
#[derive(Default)]
struct Reader {
    interface: Interface,
    peers: Vec<Peer>,
    notes: Vec<String>,
    section: Section,
}

#[derive(Clone, Copy, Default)]
enum Section {
    #[default]
    None,
    Interface,
    Peer,
}

/// The configuration of the same host; keys are files of their own in `folder`.
///
/// # Errors
/// Line and what is wrong there.
pub(super) fn import(text: &str, folder: &Path) -> Result<Imported, String> {
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            reader.take(number, line).map_err(|what| format!("{number}: {what}"))?;
        }
    }
    reader.finish(folder)
}

impl Reader {
    fn take(&mut self, number: usize, line: &str) -> Result<(), String> {
        match line.to_ascii_lowercase().as_str() {
            "[interface]" => self.section = Section::Interface,
            "[peer]" => {
                self.section = Section::Peer;
                self.peers.push(Peer { line: number, ..Peer::default() });
            }
            _ => {
                let (key, value) = line.split_once('=').ok_or("neither a section nor KEY = VALUE")?;
                let (key, value) = (key.trim(), value.trim());
                match (self.section, self.peers.last_mut()) {
                    (Section::Interface, _) => self.interface.take(key, value, &mut self.notes)?,
                    (Section::Peer, Some(peer)) => peer.take(key, value, &mut self.notes)?,
                    _ => return Err("a key before any section".to_owned()),
                }
            }
        }
        Ok(())
    }

    fn finish(self, folder: &Path) -> Result<Imported, String> {
        let Self { interface, peers, notes, .. } = self;
        let key = interface.key.as_ref().ok_or("1: [Interface] has no PrivateKey")?;
        let mut drafts = vec![Draft { name: "private.key".to_owned(), text: line(key) }];
        let mut text = interface.write(folder);
        for (number, peer) in peers.iter().enumerate().map(|(index, peer)| (index + 1, peer)) {
            let file = format!("peer-{number}.psk");
            text += &peer.write(number, &folder.join(&file))?;
            drafts.extend(peer.preshared.as_ref().map(|key| Draft { name: file, text: line(key) }));
        }
        drafts.push(Draft { name: "warren.toml".to_owned(), text: Zeroizing::new(text) });
        Ok(Imported { drafts, notes })
    }
}

/// Where a `=` is missing, a secret may stand in the place of a word: it ends in one.
fn unknown(word: &str, section: &str) -> String {
    let is_word = word.len() < 32 && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    if is_word {
        format!("{word:?} is no key of {section}")
    } else {
        format!("what stands here is no key of {section}")
    }
}

fn line(key: &Zeroizing<String>) -> Zeroizing<String> {
    Zeroizing::new(format!("{}\n", key.as_str()))
}

impl Interface {
    fn take(&mut self, key: &str, value: &str, notes: &mut Vec<String>) -> Result<(), String> {
        match key.to_ascii_lowercase().as_str() {
            "privatekey" => {
                value.parse::<PrivateKey>().map_err(|error| format!("PrivateKey: {error}"))?;
                self.key = Some(Zeroizing::new(value.to_owned()));
            }
            "address" => self.addresses.extend(prefixes(key, value)?),
            "listenport" => self.port = Some(number(key, value)?),
            "mtu" => self.mtu = Some(number(key, value)?),
            "dns" => notes.push("DNS: Warren sets no resolver".to_owned()),
            "preup" | "postup" | "predown" | "postdown" => notes.push(format!(
                "{key}: Warren runs no commands; `warren preflight` says what the host lacks, such as forwarding, and all else \
                 is for a unit of systemd"
            )),
            "saveconfig" => notes.push("SaveConfig: Warren never writes its configuration".to_owned()),
            "table" | "fwmark" => notes.push(format!("{key}: Warren has its own, overlay.table and overlay.mark")),
            _ => return Err(unknown(key, "[Interface]")),
        }
        Ok(())
    }

    fn write(&self, folder: &Path) -> String {
        let own = |v: &IpNet| v.addr().to_string();
        let mut networks: Vec<IpNet> = self.addresses.iter().map(IpNet::trunc).collect();
        networks.retain(|net| net.prefix_len() < net.max_prefix_len());
        let mut text = format!("[node]\nkey_file = {}\n", quoted(&folder.join("private.key").display().to_string()));
        let _ = write!(text, "\n[overlay]\naddress = {}\n", list(self.addresses.iter().map(own)));
        let _ = writeln!(text, "networks = {}", list(networks.iter().map(ToString::to_string)));
        if let Some(mtu) = self.mtu {
            let _ = writeln!(text, "mtu = {mtu}");
        }
        if let Some(port) = self.port {
            let _ = write!(text, "\n[underlay]\nport = {port}\n");
        }
        text
    }
}

impl Peer {
    fn take(&mut self, key: &str, value: &str, notes: &mut Vec<String>) -> Result<(), String> {
        match key.to_ascii_lowercase().as_str() {
            "publickey" => self.public_key = Some(value.parse().map_err(|error| format!("PublicKey: {error}"))?),
            "presharedkey" => {
                value.parse::<PresharedKey>().map_err(|error| format!("PresharedKey: {error}"))?;
                self.preshared = Some(Zeroizing::new(value.to_owned()));
            }
            "endpoint" => match value.parse() {
                Ok(endpoint) => self.endpoint = Some(endpoint),
                Err(_) => notes.push(format!(
                    "Endpoint {value:?} of the peer at line {}: names are not resolved; look it up and set `endpoint`",
                    self.line
                )),
            },
            "allowedips" => self.allow(prefixes(key, value)?, notes),
            "persistentkeepalive" if value.eq_ignore_ascii_case("off") => self.keepalive = None,
            "persistentkeepalive" => self.keepalive = Some(number(key, value)?),
            _ => return Err(unknown(key, "[Peer]")),
        }
        Ok(())
    }

    fn allow(&mut self, prefixes: Vec<IpNet>, notes: &mut Vec<String>) {
        for prefix in prefixes {
            if prefix.prefix_len() == 0 {
                notes.push(format!(
                    "AllowedIPs {prefix} of the peer at line {}: Warren is a mesh, not a way out; list its prefixes",
                    self.line
                ));
            } else {
                self.cidrs.push(prefix.trunc());
            }
        }
    }

    fn write(&self, number: usize, preshared: &Path) -> Result<String, String> {
        let public_key = self.public_key.ok_or_else(|| format!("{}: [Peer] has no PublicKey", self.line))?;
        let mut text = format!("\n[[peer]]\nname = \"peer-{number}\"\npublic_key = \"{public_key}\"\n");
        if let Some(endpoint) = self.endpoint {
            let _ = writeln!(text, "endpoint = \"{endpoint}\"");
        }
        let _ = writeln!(text, "cidrs = {}", list(self.cidrs.iter().map(ToString::to_string)));
        if self.preshared.is_some() {
            let _ = writeln!(text, "preshared_key_file = {}", quoted(&preshared.display().to_string()));
        }
        if let Some(seconds) = self.keepalive {
            let _ = writeln!(text, "persistent_keepalive = {seconds}");
        }
        Ok(text)
    }
}

/// Prefixes or addresses, with commas between them.
fn prefixes(key: &str, value: &str) -> Result<Vec<IpNet>, String> {
    let one = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let items = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    items.map(|text| one(text).map_err(|_| format!("{key}: not all of it are addresses or prefixes"))).collect()
}

fn number(key: &str, value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| format!("{key}: must be a number from 0 to 65535"))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.map(|item| quoted(&item)).collect::<Vec<_>>().join(", "))
}
