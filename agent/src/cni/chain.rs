//! A CNI configuration with the gate behind its other plugins. Everything else stays as it was, byte by byte. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::gate::{PLUGIN, VERSIONS};

/// Why a configuration cannot have the gate: what, and what to do.
pub(super) type Why = String;

/// A list of plugins, or one plugin alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration<'a> {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(borrow)]
    plugins: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
struct Plugin {
    #[serde(default, rename = "type")]
    kind: String,
}

/// Whether the gate is among its plugins.
pub(super) fn has_gate(text: &str) -> bool {
    let plugins = serde_json::from_str::<Configuration<'_>>(text).ok().and_then(|read| read.plugins);
    plugins.is_some_and(|plugins| plugins.iter().any(|plugin| kind(plugin) == PLUGIN))
}

/// The network's name; `None` when it has none.
pub(super) fn name(text: &str) -> Option<String> {
    let read: Configuration<'_> = serde_json::from_str(text).ok()?;
    Some(read.name).filter(|name| !name.is_empty())
}

/// The same with the gate behind the last plugin; a plugin alone becomes a list of two.
pub(super) fn with_gate(text: &str) -> Result<String, Why> {
    let read: Configuration<'_> =
        serde_json::from_str(text).map_err(|error| format!("this is no CNI configuration: {error}"))?;
    if !VERSIONS.contains(&read.cni_version.as_str()) {
        let spoken = VERSIONS.join(", ");
        return Err(format!(
            "{PLUGIN} does not speak CNI {:?}: its cniVersion must be one of {spoken}",
            read.cni_version
        ));
    }
    match &read.plugins {
        None if read.kind.is_empty() => Err("it has neither plugins nor a type".to_owned()),
        None => of_one(text, &read),
        Some(plugins) => behind(text, plugins),
    }
}

/// As runtimes make a list of one plugin.
fn of_one(text: &str, read: &Configuration<'_>) -> Result<String, Why> {
    not_multus(&read.kind)?;
    let (version, name) = (serde_json::json!(read.cni_version), serde_json::json!(read.name));
    let plugin = text.trim();
    Ok(format!("{{\"cniVersion\": {version}, \"name\": {name}, \"plugins\": [{plugin}, {}]}}\n", entry()))
}

fn behind(text: &str, plugins: &[&RawValue]) -> Result<String, Why> {
    let (Some(first), Some(last)) = (plugins.first(), plugins.last()) else {
        return Err("its list of plugins is empty".to_owned());
    };
    not_multus(&kind(first))?;
    // Where a plugin's text lies in the whole.
    let start = |plugin: &RawValue| plugin.get().as_ptr() as usize - text.as_ptr() as usize;
    let end = start(last) + last.get().len();
    let (before, after) = text.split_at_checked(end).ok_or("its plugins cannot be found")?;
    let gap: String = match plugins {
        [.., one, other] => text.get(start(one) + one.get().len()..start(other)).unwrap_or(", ").to_owned(),
        _ => ", ".to_owned(),
    };
    Ok(format!("{before}{gap}{}{after}", entry()))
}

/// It hands on to the first configuration that it finds beside its own, which would be this one.
fn not_multus(kind: &str) -> Result<(), Why> {
    match kind.starts_with("multus") {
        true => Err(format!("the plugin {kind} calls another configuration: {PLUGIN} belongs into that one")),
        false => Ok(()),
    }
}

fn kind(plugin: &RawValue) -> String {
    serde_json::from_str::<Plugin>(plugin.get()).unwrap_or_default().kind
}

/// The gate as an item of a list of plugins.
pub(super) fn entry() -> String {
    format!("{{\"type\": \"{PLUGIN}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixtures() -> Vec<(String, String)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cidrs/fixtures");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let configurations = files.filter(|path| path.extension().is_some_and(|end| end != "env"));
        configurations.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
    }

    #[test]
    fn the_gate_is_the_last_plugin_of_every_cnis_list_and_nothing_else_differs() {
        assert!(fixtures().len() > 8);
        for (name, text) in fixtures() {
            assert!(!has_gate(&text), "{name}");
            let gated = with_gate(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(has_gate(&gated), "{name}: {gated}");
            let mut read: serde_json::Value = serde_json::from_str(&gated).unwrap();
            let last = read["plugins"].as_array_mut().unwrap().pop().unwrap();
            assert_eq!(last, serde_json::json!({ "type": PLUGIN }), "{name}");
            let before: serde_json::Value = serde_json::from_str(&text).unwrap();
            if before["plugins"].is_array() {
                assert_eq!(read, before, "{name}");
                let at = gated.find(&entry()).unwrap();
                assert!(text.starts_with(gated[..at].trim_end().trim_end_matches(',')), "{name}: {gated}");
                assert!(text.ends_with(&gated[at + entry().len()..]), "{name}: {gated}");
            } else {
                assert_eq!(read["plugins"][0], before, "{name}");
                assert_eq!(read["name"], before["name"], "{name}");
            }
        }
    }

    #[test]
    fn what_cannot_have_a_gate_is_named() {
        for (text, why) in [
            ("", "no CNI configuration"),
            (r#"{"cniVersion":"0.2.0","plugins":[{"type":"ptp"}]}"#, "0.2.0"),
            (r#"{"plugins":[{"type":"ptp"}]}"#, "cniVersion must be"),
            (r#"{"cniVersion":"1.0.0"}"#, "neither plugins nor a type"),
            (r#"{"cniVersion":"1.0.0","plugins":[]}"#, "empty"),
            (r#"{"cniVersion":"1.0.0","plugins":[{"type":"multus-shim"}]}"#, "multus-shim"),
            (r#"{"cniVersion":"1.0.0","name":"m","type":"multus"}"#, "multus"),
            (r#"{"cniVersion":"1.0.0","plugins":[{"type":"ptp"}],"plugins":[]}"#, "duplicate"),
        ] {
            let said = with_gate(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
