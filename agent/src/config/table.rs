//! The file's tables, read key by key: what is wrong is noted with its place, and reading goes on, so that everything is
//! said at once. Knows no key's meaning; never quotes what it cannot read, since it may be a secret.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::fault::{Fault, Place};
use super::keys;
use super::layers::{Origin, Setting};

/// The whole file with what was laid over it. Offsets beyond the text stand for the settings laid over it, in order.
pub(super) struct Document<'i> {
    text: &'i str,
    origins: Vec<Origin>,
    root: DeTable<'i>,
    notes: Vec<Note>,
}

/// What is wrong at which offset.
struct Note(Option<usize>, String);

impl<'i> Document<'i> {
    /// Reads the text; what is no TOML is noted, once a line.
    pub(super) fn new(text: &'i str) -> Self {
        let (root, mut errors) = DeTable::parse_recoverable(text);
        // The strict reader has the last word on what is TOML.
        errors.extend(DeTable::parse(text).err());
        let (mut notes, mut lines) = (Vec::new(), BTreeSet::new());
        for error in errors {
            let at = error.span().map(|span| span.start);
            if lines.insert(at.map(|at| position(text, at).0)) {
                notes.push(Note(at, format!("this is no TOML: {}", error.message())));
            }
        }
        Self { text, origins: Vec::new(), root: root.into_inner(), notes }
    }

    /// True while nothing is wrong.
    pub(super) fn is_sound(&self) -> bool {
        self.notes.is_empty()
    }

    /// Lays a setting over the file's.
    pub(super) fn lay(&mut self, setting: &'i Setting) {
        let at = self.text.len() + 1 + self.origins.len();
        self.origins.push(setting.origin.clone());
        let section = self
            .root
            .entry(Spanned::new(at..at + 1, setting.key.section.into()))
            .or_insert_with(|| Spanned::new(at..at + 1, DeValue::Table(DeTable::new())));
        // What is no table is a fault of the file, noted when it is read.
        if let DeValue::Table(table) = section.get_mut() {
            table.remove(setting.key.name);
            table.insert(Spanned::new(at..at + 1, setting.key.name.into()), setting.value(at));
        }
    }

    /// True when the file or a setting has the key.
    pub(super) fn has(&self, section: &str, name: &str) -> bool {
        let table = self.root.get(section).and_then(|section| section.get_ref().as_table());
        table.is_some_and(|table| table.contains_key(name))
    }

    /// Reads a table, or what holds without it.
    pub(super) fn table<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Table<'_, 'i>) -> Option<T>,
    ) -> Option<T> {
        let value = self.root.remove(name);
        let value = value.unwrap_or_else(|| Spanned::new(0..0, DeValue::Table(DeTable::new())));
        self.read(name, value, read)
    }

    /// Reads a table if it is there.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Table<'_, 'i>) -> Option<T>,
    ) -> Option<T> {
        let value = self.root.remove(name)?;
        self.read(name, value, read)
    }

    /// Reads an array of tables.
    pub(super) fn array<T>(&mut self, name: &'static str, read: impl Fn(&mut Table<'_, 'i>) -> Option<T>) -> Vec<T> {
        let Some(value) = self.root.remove(name) else { return Vec::new() };
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Array(list) => list.into_iter().filter_map(|value| self.read(name, value, &read)).collect(),
            _ => {
                self.notes.push(Note(Some(at), format!("'{name}' must be an array of tables: [[{name}]]")));
                Vec::new()
            }
        }
    }

    fn read<T>(
        &mut self,
        section: &'static str,
        value: Spanned<DeValue<'i>>,
        read: impl FnOnce(&mut Table<'_, 'i>) -> Option<T>,
    ) -> Option<T> {
        let at = value.span().start;
        let DeValue::Table(values) = value.into_inner() else {
            self.notes.push(Note(Some(at), format!("'{section}' must be a table, as [{section}]")));
            return None;
        };
        let mut table = Table { section, subject: String::new(), at, values, notes: &mut self.notes };
        let done = read(&mut table);
        table.refuse_the_rest();
        done
    }

    /// Notes the tables that nobody asked for.
    pub(super) fn refuse_the_rest(&mut self) {
        for (name, _) in &self.root {
            let what = format!("key '{}': unknown; known here: {}", name.get_ref().escape_debug(), keys::names(""));
            self.notes.push(Note(Some(name.span().start), what));
        }
    }

    /// Notes a fault of several tables together.
    pub(super) fn fault(&mut self, what: impl Into<String>) {
        self.notes.push(Note(None, what.into()));
    }

    /// Everything that is wrong, in the order of the file.
    pub(super) fn faults(mut self) -> Vec<Fault> {
        self.notes.sort_by_key(|Note(at, _)| *at);
        let place = |at: Option<usize>| match at {
            None => Place::File,
            Some(at) => match at.checked_sub(self.text.len() + 1).and_then(|number| self.origins.get(number)) {
                Some(origin) => Place::Setting(origin.clone()),
                None => {
                    let (line, column) = position(self.text, at);
                    Place::Line { line, column }
                }
            },
        };
        self.notes.into_iter().map(|Note(at, what)| Fault { place: place(at), what }).collect()
    }
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before.len() - line_start + 1)
}

/// One table while it is read.
pub(super) struct Table<'d, 'i> {
    section: &'static str,
    subject: String,
    at: usize,
    values: DeTable<'i>,
    notes: &'d mut Vec<Note>,
}

impl Table<'_, '_> {
    /// Takes a key's value, if it is there and right. `check` says what is wrong with it.
    pub(super) fn get<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        check: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        let value = self.values.remove(name)?;
        let at = value.span().start;
        let section = self.section;
        let checked = match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => check(value).map_err(|what| format!("{section}.{name}{}: {what}", self.subject)),
            Err(_) => Err(keys::find(&format!("{section}.{name}"))
                .map_or_else(|| format!("key '{section}.{name}': cannot be read"), keys::Key::must_be)),
        };
        checked.map_err(|what| self.notes.push(Note(Some(at), what))).ok()
    }

    /// As [`Self::get`]; that it is missing is a fault.
    pub(super) fn require<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        check: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        if !self.has(name) {
            let what = format!("[{}]: the key '{name}' is missing", self.section);
            self.notes.push(Note(Some(self.at), what));
        }
        self.get(name, check)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Notes a fault of the table as a whole.
    pub(super) fn fault(&mut self, what: impl Into<String>) {
        self.notes.push(Note(Some(self.at), what.into()));
    }

    /// Whose table this is, for what is said of it from now on.
    pub(super) fn belongs_to(&mut self, name: &impl ToString) {
        self.subject = format!(" of {}", name.to_string());
    }

    fn refuse_the_rest(&mut self) {
        for (name, _) in &self.values {
            let (name, at) = (name.get_ref().escape_debug(), name.span().start);
            let known = keys::names(self.section);
            self.notes.push(Note(Some(at), format!("key '{}.{name}': unknown; known here: {known}", self.section)));
        }
    }
}
