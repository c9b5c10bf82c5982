//! How a CNI plugin says no: an object on standard output (CNI specification, "Error").

use std::fmt;

use serde_json::json;

use super::network::NEWEST;

/// The specification's codes, as far as they are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// This version of CNI is not spoken.
    Version = 1,
    /// A variable is missing or wrong.
    Environment = 4,
    /// Standard input cannot be read.
    Io = 5,
    /// What came is no configuration.
    Content = 6,
    /// It is one that makes no sense here.
    Configuration = 7,
    /// The runtime should try again.
    TryAgainLater = 11,
    /// Adding does not work at the moment.
    NotAvailable = 50,
}

/// Why not: what is wrong where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    version: String,
    pub(super) code: Code,
    pub(super) what: String,
    remedy: String,
}

impl Refusal {
    pub(super) fn new(code: Code, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { version: NEWEST.to_owned(), code, what: what.into(), remedy: remedy.into() }
    }

    /// In the version that was spoken to us.
    pub(super) fn in_version(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code as u32;
        json!({ "cniVersion": self.version, "code": code, "msg": self.what, "details": self.remedy }).fmt(f)
    }
}
