//! What the TOML reader refuses, said with the key and what it takes. Never quotes a value: it may be a secret.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::keys;

/// What is wrong and what is allowed there.
pub(super) fn misread(text: &str, error: &Error) -> String {
    let Ok(table) = DeTable::parse(text) else {
        return format!("this is no TOML: {}", error.message());
    };
    let place = error.span().and_then(|span| locate(table.get_ref(), "", span.start)).unwrap_or_default();
    let section = |path: &str| path.rsplit_once('.').map_or(String::new(), |(section, _)| section.to_owned());
    if error.message().starts_with("unknown field") {
        return format!("key '{}': unknown; known here: {}", place.escape_debug(), keys::names(&section(&place)));
    }
    match (keys::find(&place), missing(error.message())) {
        (_, Some(name)) => format!("[{place}]: the key '{name}' is missing"),
        (Some(key), None) => format!("key '{place}': must be {}, as {}", key.takes, key.example),
        (None, None) if place == "peer" => "'peer' must be an array of tables: [[peer]]".to_owned(),
        (None, None) => format!("'{}' must be a table, as [node]", place.escape_debug()),
    }
}

fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// The dotted name of the innermost key whose name or value covers the offset.
fn locate(table: &DeTable<'_>, above: &str, offset: usize) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let path = if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
        let inside = tables(value).find_map(|table| locate(table, &path, offset));
        inside.or_else(|| (covers(&name.span(), offset) || covers(&value.span(), offset)).then_some(path))
    })
}

fn tables<'v, 'i>(value: &'v Spanned<DeValue<'i>>) -> impl Iterator<Item = &'v DeTable<'i>> {
    let list = value.get_ref().as_array().into_iter().flat_map(|array| array.iter());
    std::iter::once(value).chain(list).filter_map(|value| value.get_ref().as_table())
}

fn covers(span: &Range<usize>, offset: usize) -> bool {
    span.contains(&offset)
}
