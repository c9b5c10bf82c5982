//! JSON written as YAML, for people who read it. Only writes; every text is quoted, so none can mean anything else.

use std::fmt::Write as _;

use serde_json::Value;

/// One document, without its separator.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// The value on lines of its own.
fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let _ = write!(text, "{indent}{}:", name(key));
                inside(value, depth + 1, text);
            }
        }
        Value::Array(list) => {
            for item in list {
                let mut below = String::new();
                block(item, depth + 1, &mut below);
                let _ = write!(text, "{indent}- {}", below.trim_start());
            }
        }
        scalar => {
            let _ = writeln!(text, "{indent}{scalar}");
        }
    }
}

/// The value behind its key: on the same line if it is small.
fn inside(value: &Value, depth: usize, text: &mut String) {
    let is_empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    if is_empty {
        let _ = writeln!(text, " {value}");
    } else {
        text.push('\n');
        block(value, depth, text);
    }
}

/// A key that needs no quotes has none.
fn name(key: &str) -> String {
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/'));
    let word = key.starts_with(|first: char| first.is_ascii_alphabetic());
    let reserved = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if plain && word && !reserved.contains(&key) { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_becomes_the_yaml_that_one_would_write() {
        let value = json!({"a": {"b": [1, {"c": "x: y", "d": []}], "on": true}, "e": {}, "f": null});
        let expected = "a:\n  b:\n    - 1\n    - c: \"x: y\"\n      d: []\n  \"on\": true\ne: {}\nf: null\n";
        assert_eq!(document(&value), expected);
    }
}
