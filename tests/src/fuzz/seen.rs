//! What a run of a target saw, in words: an input that shows something new is worth keeping in the corpus.

use std::collections::BTreeSet;

/// The sights of one run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeSet<String>);

impl Seen {
    /// Notes one thing.
    pub fn note(&mut self, what: impl Into<String>) {
        self.0.insert(what.into());
    }

    /// Takes over what `other` saw.
    pub fn learn(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// What `other` does not know.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// Whether this was seen.
    pub fn has(&self, what: &str) -> bool {
        self.0.contains(what)
    }

    /// How many different things.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
