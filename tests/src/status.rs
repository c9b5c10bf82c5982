//! What `warren status -o json` said, read by key as a script of an operator would.

use serde_json::Value;

/// An agent at one moment.
#[derive(Clone, Debug)]
pub struct Status(Value);

impl Status {
    /// Reads the command's output; `None` when it is no JSON object.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(Value::is_object).map(Self)
    }

    /// The whole.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Guard, routes and rules are in place.
    pub fn ready(&self) -> bool {
        self.0["ready"] == true
    }

    /// The names of the peers.
    pub fn peers(&self) -> Vec<&str> {
        self.array("peers").iter().filter_map(|peer| peer["name"].as_str()).collect()
    }

    /// The suite of a peer's associations.
    pub fn suite(&self, name: &str) -> Option<&str> {
        self.peer(name)?["association"]["suite"].as_str()
    }

    /// What carries data to a peer.
    pub fn data(&self, name: &str) -> Option<&str> {
        self.peer(name)?["data"].as_str()
    }

    /// Why data to a peer does not travel in associations, or not all of it.
    pub fn why_tunnel(&self, name: &str) -> Option<&str> {
        self.peer(name)?["why_tunnel"].as_str()
    }

    /// Whether all data to a peer is safe from who breaks X25519 later.
    pub fn is_post_quantum(&self, name: &str) -> bool {
        self.peer(name).is_some_and(|peer| peer["association"]["post_quantum"] == true)
    }

    /// One peer.
    pub fn peer(&self, name: &str) -> Option<&Value> {
        self.array("peers").iter().find(|peer| peer["name"] == name)
    }

    /// Packets lost for a reason, by its name.
    pub fn drops(&self, reason: &str) -> u64 {
        self.0["drops"][reason].as_u64().unwrap_or(0)
    }

    /// Refusals by (subject, reason).
    pub fn refusals(&self) -> Vec<(&str, &str)> {
        self.array("refusals").iter().filter_map(both_of).collect()
    }

    /// Whether some refusal has this reason.
    pub fn refused(&self, reason: &str) -> bool {
        self.array("refusals").iter().any(|refusal| refusal["reason"] == reason)
    }

    /// What is wrong, in sentences.
    pub fn problems(&self) -> Vec<&str> {
        self.array("problems").iter().filter_map(Value::as_str).collect()
    }

    /// What the guard counted: `refused` or `passed`.
    pub fn guard(&self, what: &str) -> u64 {
        self.0["guard"][what].as_u64().unwrap_or(0)
    }

    /// Repairs of what somebody else changed.
    pub fn repairs(&self) -> u64 {
        self.0["repairs"].as_u64().unwrap_or(0)
    }

    /// The change that waits for `warren mesh accept`.
    pub fn held(&self) -> Option<&str> {
        self.0["held"].as_str()
    }

    /// The node's own CIDRs.
    pub fn cidrs(&self) -> Vec<&str> {
        self.array("cidrs").iter().filter_map(Value::as_str).collect()
    }

    /// Whether a registry is reachable and current.
    pub fn registry_ok(&self, name: &str) -> Option<bool> {
        self.array("registries").iter().find(|registry| registry["name"] == name)?["ok"].as_bool()
    }

    fn array(&self, key: &str) -> &[Value] {
        self.0[key].as_array().map_or(&[], Vec::as_slice)
    }
}

fn both_of(refusal: &Value) -> Option<(&str, &str)> {
    Some((refusal["subject"].as_str()?, refusal["reason"].as_str()?))
}
