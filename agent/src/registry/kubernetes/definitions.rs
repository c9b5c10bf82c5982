//! The CustomResourceDefinitions as YAML: `warren crds`, and `deploy/kubernetes/base/crds.yaml`, which is that.

use kube::CustomResourceExt as _;
use serde_json::Value;

use super::resources::{WarrenBlock, WarrenCluster, WarrenNode};
use super::yaml;

/// All of them, one document each.
pub fn definitions() -> String {
    let mut text = String::from("# Made by `warren crds`; the Rust types are the source.\n");
    for definition in [WarrenBlock::crd(), WarrenCluster::crd(), WarrenNode::crd()] {
        text.push_str("---\n");
        text.push_str(&yaml::document(&serde_json::to_value(definition).unwrap_or(Value::Null)));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every schema below a definition, with where it is.
    fn schemas(at: String, schema: &Value, found: &mut Vec<(String, Value)>) {
        found.push((at.clone(), schema.clone()));
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            schemas(format!("{at}.{name}"), below, found);
        }
        if schema["items"].is_object() {
            schemas(format!("{at}[]"), &schema["items"], found);
        }
    }

    fn all() -> Vec<Value> {
        [WarrenBlock::crd(), WarrenCluster::crd(), WarrenNode::crd()]
            .into_iter()
            .map(|definition| serde_json::to_value(definition).unwrap())
            .collect()
    }

    #[test]
    fn the_manifest_in_the_repository_is_what_the_types_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/base/crds.yaml");
        if std::env::var_os("WARREN_WRITE_DOCS").is_some() {
            std::fs::write(&path, definitions()).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == definitions(), "stale: WARREN_WRITE_DOCS=1 cargo test -p warren kubernetes::definitions");
    }

    #[test]
    fn schemas_are_structural_and_bounded() {
        for definition in all() {
            let mut found = Vec::new();
            let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
            let version = &definition["spec"]["versions"][0];
            assert_eq!(definition["spec"]["scope"], "Cluster", "{name}");
            schemas(name, &version["schema"]["openAPIV3Schema"], &mut found);
            assert!(found.len() >= 4);
            for (at, schema) in found {
                assert!(schema["type"].is_string(), "{at} has no type: not structural");
                for forbidden in ["$ref", "oneOf", "anyOf", "allOf", "additionalProperties", "definitions", "$defs"] {
                    assert!(schema.get(forbidden).is_none(), "{at} has {forbidden}");
                }
                if at.contains(".spec.") {
                    let bound = match schema["type"].as_str().unwrap() {
                        "array" => "maxItems",
                        "string" if schema.get("pattern").is_some() => "pattern",
                        "string" => "maxLength",
                        _ => "minimum",
                    };
                    assert!(schema.get(bound).is_some(), "{at} is not bounded by {bound}: {schema}");
                }
            }
        }
    }

    #[test]
    fn blocks_are_immutable_and_named_after_their_prefix() {
        let schema = &all()[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["properties"]["spec"]["x-kubernetes-validations"][0]["rule"], "self == oldSelf");
        let rule = schema["x-kubernetes-validations"][0]["rule"].as_str().unwrap();
        assert!(rule.starts_with("self.metadata.name =="), "{rule}");
    }

    #[test]
    fn every_resource_shows_columns_and_nodes_have_a_status_of_their_own() {
        for definition in all() {
            let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
            assert!(columns.len() >= 3);
        }
        assert!(all()[2]["spec"]["versions"][0]["subresources"]["status"].is_object());
    }
}
