//! What wins over the file: environment variables, and over those the flags. Both name keys of the file, and are read and
//! checked as if they stood there. Never takes a secret: the process list and /proc show both to others.

use std::ffi::OsString;
use std::fmt;
use std::sync::OnceLock;

use toml::Spanned;
use toml::de::DeValue;

use super::fault::{Fault, Place};
use super::keys::{self, KEYS, Key};

/// Where a setting stands that does not stand in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The variable's name.
    Variable(String),
    /// The flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One key with the value that wins over the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which key.
    pub key: &'static Key,
    /// Its value, as TOML.
    toml: String,
    /// Where it stands.
    pub origin: Origin,
}

impl Setting {
    /// A value as people write it for a flag or variable: text without quotes, lists with commas, or TOML.
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub fn new(path: &str, text: &str, origin: Origin) -> Result<Self, Fault> {
        let fault = |what: String| Fault { place: Place::Setting(origin.clone()), what };
        let key = settable(path).map_err(fault)?;
        let toml = as_toml(key, text.trim());
        if DeValue::parse(&toml).is_err() {
            return Err(fault(key.must_be()));
        }
        Ok(Self { key, toml, origin })
    }

    /// `SECTION.KEY=VALUE`, as `--set` takes it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_flag(text: &str) -> Result<Self, Fault> {
        let origin = Origin::Flag("--set");
        match text.split_once('=') {
            Some((path, value)) if !value.trim().is_empty() => Self::new(path.trim(), value, origin),
            _ => {
                let what = "must be SECTION.KEY=VALUE, as --set overlay.mode=nodes; an empty text is '\"\"'".to_owned();
                Err(Fault { place: Place::Setting(origin), what })
            }
        }
    }

    /// The value, as if it stood in the file at this offset.
    pub(super) fn value(&self, at: usize) -> Spanned<DeValue<'_>> {
        let value = DeValue::parse(&self.toml).map_or(DeValue::String("".into()), Spanned::into_inner);
        Spanned::new(at..at + 1, value)
    }
}

fn settable(path: &str) -> Result<&'static Key, String> {
    let section = path.split('.').next().unwrap_or_default();
    match keys::find(path) {
        Some(key) if key.is_secret() => Err(format!("{path}: never here, where others can read it: use {path}_file")),
        Some(key) if key.is_listed() => Err(format!("{path}: peers stand in the file only, as [[peer]]")),
        Some(key) => Ok(key),
        None if keys::names(section).is_empty() => {
            Err(format!("{}: unknown; the sections are {}", path.escape_debug(), keys::names("")))
        }
        None => Err(format!("{}: unknown; known here: {}", path.escape_debug(), keys::names(section))),
    }
}

/// What kind of value a key takes shows in its example.
fn as_toml(key: &Key, text: &str) -> String {
    let string = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let is_word = |text: &str| text.starts_with(|first: char| first.is_ascii_alphabetic());
    match key.example.as_bytes().first() {
        _ if text.starts_with(['"', '\'', '[']) => text.to_owned(),
        Some(b'"') => string(text),
        Some(b'[') if key.takes.contains(&format!("\"{text}\"")) => string(text),
        Some(b'[') => format!("[{}]", text.split(',').map(|item| string(item.trim())).collect::<Vec<_>>().join(",")),
        _ if is_word(text) && text != "true" && text != "false" => string(text),
        _ => text.to_owned(),
    }
}

/// What wins over the file, the weakest first, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    /// In the order in which they are laid over the file.
    pub settings: Vec<Setting>,
    /// What could not become a setting.
    pub faults: Vec<Fault>,
    /// This process runs in a Pod of Kubernetes.
    pub in_pod: bool,
}

impl Layers {
    /// The environment of this process and its flags.
    pub(super) fn of_this_process() -> Self {
        let mut layers = Self::of_environment(|name| std::env::var_os(name));
        layers.settings.extend(FLAGS.get().into_iter().flatten().cloned());
        layers
    }

    /// An empty variable is none, as a unit or a manifest may leave it.
    pub(super) fn of_environment(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut layers = Self { in_pod: get(IN_POD).is_some(), ..Self::default() };
        for key in KEYS.iter().filter(|key| !key.is_listed()) {
            let name = key.variable();
            let Some(value) = get(&name).filter(|value| !value.is_empty()) else { continue };
            let origin = Origin::Variable(name);
            match value.to_str().map(|text| Setting::new(&key.path(), text, origin.clone())) {
                Some(Ok(setting)) => layers.settings.push(setting),
                Some(Err(fault)) => layers.faults.push(fault),
                None => layers.faults.push(Fault { place: Place::Setting(origin), what: "is no UTF-8".to_owned() }),
            }
        }
        layers
    }
}

/// Every container of a Pod has it.
const IN_POD: &str = "KUBERNETES_SERVICE_HOST";

/// Kept for those who read the file again while the agent runs.
static FLAGS: OnceLock<Vec<Setting>> = OnceLock::new();

/// Makes these the flags of this process, once, before the file is read.
pub fn set_flags(flags: Vec<Setting>) {
    let _ = FLAGS.set(flags);
}
