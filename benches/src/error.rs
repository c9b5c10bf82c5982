//! What can go wrong while measuring: a sentence that names the command or file.

use std::fmt;

/// A sentence for the person at the terminal.
#[derive(Debug)]
pub struct Error(String);

/// With [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// From a sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
