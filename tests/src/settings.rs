//! The text of an agent's config file.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::Node;
use crate::lab::networks;
use crate::node::PORT;

/// Sections with their keys, and peers.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    sections: BTreeMap<String, BTreeMap<String, String>>,
    peers: Vec<Settings>,
}

impl Settings {
    /// What every node of the lab has.
    pub fn of(node: &Node) -> Self {
        let folder = node.folder().display();
        let mut settings = Self::default();
        settings
            .text("node", "name", &node.name)
            .list("node", "addresses", node.addresses())
            .list("node", "cidrs", node.cidrs())
            .text("node", "state_dir", &folder)
            .text("node", "run_dir", format!("{folder}/run"))
            .text("node", "cni_dir", format!("{folder}/net.d"))
            .list("overlay", "networks", networks(node.plan().overlay))
            .text("log", "level", "info");
        settings
    }

    /// Sets a key to a TOML literal.
    pub fn set(&mut self, section: &str, key: &str, literal: impl Display) -> &mut Self {
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), literal.to_string());
        self
    }

    /// Takes a key out.
    pub fn unset(&mut self, section: &str, key: &str) -> &mut Self {
        self.sections.entry(section.to_owned()).or_default().remove(key);
        self
    }

    /// Sets a key to a string.
    pub fn text(&mut self, section: &str, key: &str, text: impl Display) -> &mut Self {
        self.set(section, key, quoted(text))
    }

    /// Sets a key to a list of strings.
    pub fn list<T: Display>(&mut self, section: &str, key: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        let items: Vec<String> = items.into_iter().map(quoted).collect();
        self.set(section, key, format!("[{}]", items.join(", ")))
    }

    /// Adds another node of the lab as a static peer.
    pub fn peer(&mut self, other: &Node) -> &mut Self {
        self.peer_with(other, other.cidrs())
    }

    /// The same with other prefixes.
    pub fn peer_with(&mut self, other: &Node, cidrs: Vec<ipnet::IpNet>) -> &mut Self {
        let mut peer = Self::default();
        peer.text("", "name", &other.name)
            .text("", "public_key", other.public_key())
            .text("", "endpoint", std::net::SocketAddr::new(other.address(), PORT))
            .list("", "addresses", other.addresses())
            .list("", "cidrs", cidrs)
            .set("", "associations", true);
        self.add_peer(peer)
    }

    /// Adds a static peer whose keys are in the section without a name.
    pub fn add_peer(&mut self, peer: Self) -> &mut Self {
        self.peers.push(peer);
        self
    }

    /// Takes all static peers out.
    pub fn clear_peers(&mut self) -> &mut Self {
        self.peers.clear();
        self
    }
}

impl Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, keys) in &self.sections {
            if !name.is_empty() {
                writeln!(f, "[{name}]")?;
            }
            keys.iter().try_for_each(|(key, literal)| writeln!(f, "{key} = {literal}"))?;
            f.write_char('\n')?;
        }
        self.peers.iter().try_for_each(|peer| write!(f, "[[peer]]\n{peer}"))
    }
}

fn quoted(text: impl Display) -> String {
    format!("\"{text}\"")
}
