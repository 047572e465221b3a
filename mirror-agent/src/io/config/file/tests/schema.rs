//! Enters: the schema. Leaves: whether it takes what is read, refuses what is not, and stands in the documentation key by key.

use regex::Regex;
use serde_json::{Value, json};

use super::{CONFIGURATION, comparing, example, minimal};
use crate::io::config::schema;

fn value(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

/// Whether a schema of the kind that is made here takes the value.
fn takes(root: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        return takes(root, root.pointer(reference.trim_start_matches('#')).unwrap(), value);
    }
    let is_of_type = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    let fits = |keyword: (&String, &Value)| match (keyword.0.as_str(), keyword.1) {
        ("type", Value::Array(kinds)) => kinds.iter().any(is_of_type),
        ("type", kind) => is_of_type(kind),
        ("anyOf" | "oneOf", options) => {
            options.as_array().unwrap().iter().any(|option| takes(root, option, value))
        }
        ("enum", words) => words.as_array().unwrap().contains(value),
        ("const", word) => word == value,
        ("pattern", pattern) => {
            let pattern = pattern.as_str().unwrap().replace("\\u0000", "\\x00");
            value.as_str().is_none_or(|text| Regex::new(&pattern).unwrap().is_match(text))
        }
        ("minimum", least) => value.as_f64().is_none_or(|number| number >= least.as_f64().unwrap()),
        ("maximum", most) => value.as_f64().is_none_or(|number| number <= most.as_f64().unwrap()),
        ("minLength", least) => {
            value.as_str().is_none_or(|text| text.len() as u64 >= least.as_u64().unwrap())
        }
        ("minItems", least) => {
            value.as_array().is_none_or(|items| items.len() as u64 >= least.as_u64().unwrap())
        }
        ("maxItems", most) => {
            value.as_array().is_none_or(|items| items.len() as u64 <= most.as_u64().unwrap())
        }
        ("items", items) => {
            value.as_array().is_none_or(|list| list.iter().all(|item| takes(root, items, item)))
        }
        ("required", names) => {
            let names = names.as_array().unwrap();
            value
                .as_object()
                .is_none_or(|map| names.iter().all(|name| map.contains_key(name.as_str().unwrap())))
        }
        ("properties", properties) => value.as_object().is_none_or(|map| {
            map.iter()
                .all(|(name, value)| properties.get(name).is_none_or(|schema| takes(root, schema, value)))
        }),
        ("additionalProperties", Value::Bool(false)) => {
            let known = schema["properties"].as_object().unwrap();
            value.as_object().is_none_or(|map| map.keys().all(|name| known.contains_key(name)))
        }
        ("additionalProperties", other) => {
            value.as_object().is_none_or(|map| map.values().all(|value| takes(root, other, value)))
        }
        ("propertyNames", names) => {
            value.as_object().is_none_or(|map| map.keys().all(|name| takes(root, names, &json!(name))))
        }
        ("description" | "default" | "title" | "format" | "examples" | "$schema" | "$defs", _) => true,
        (other, _) => panic!("{other} is not known to this test"),
    };
    schema.as_object().unwrap().iter().all(fits)
}

#[test]
fn the_schema_takes_the_examples_and_refuses_mistakes() {
    let schema = serde_json::to_value(schema()).unwrap();
    for yaml in [example(), comparing::example(), &minimal()] {
        assert!(takes(&schema, &schema, &value(yaml)), "{yaml}");
    }
    for (from, to) in [
        ("ports: [80]", "port: [80]"),
        ("ports: [80]", "ports: [0]"),
        ("ports: [80]", "ports: []"),
        ("expires: never", ""),
        ("name: a", "name: A"),
        ("name: a", "name: a\n  sample: { percent: 101 }"),
        ("url: 'http://a'", "url: 'http://a', order: time"),
        ("url: 'http://a'", "url: 'http://a', timeout: 5"),
        ("url: 'http://a'", "url: 'http://a', interlock: maybe"),
        ("url: 'http://a'", "url: 'http://a', headers: { set: { 'a b': c } }"),
        ("url: 'http://a'", "url: 'http://a', limits: { queue: 0 }"),
        ("interfaces: [lo]", "interfaces: [lo], memoryLimit: 5 cups"),
        ("name: a", "name: a\n  owner:"),
        ("name: a", "name: a\n  compare:"),
        ("name: a", "name: a\n  compare: { numbers: exact }"),
        ("name: a", "name: a\n  compare: { rules: [{ path: $.a, ignore: false }] }"),
        ("name: a", "name: a\n  compare: {}\n  gate: { p95: fast }"),
        ("name: a", "name: a\n  compare: {}\n  control: { name: b }"),
        ("name: a", "name: a\n  compare: {}\n  sinks: [{ file: { path: a } }]"),
    ] {
        let yaml = minimal().replacen(from, to, 1);
        assert!(!takes(&schema, &schema, &value(&yaml)), "{to}");
    }
}

/// Keys below a schema, with their own schemas: those of an item of a list begin anew.
fn keys(root: &Value, schema: &Value, prefix: &str, found: &mut Vec<(String, Value)>) {
    if let Some(reference) = schema["$ref"].as_str() {
        // A control has the keys of a target.
        let prefix = if reference.contains("/Target") { "" } else { prefix };
        return keys(root, root.pointer(reference.trim_start_matches('#')).unwrap(), prefix, found);
    }
    for option in schema["anyOf"].as_array().into_iter().flatten() {
        keys(root, option, prefix, found);
    }
    if schema["items"].is_object() {
        keys(root, &schema["items"], "", found);
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        keys(root, inner, &path, found);
        found.push((path, inner.clone()));
    }
}

#[test]
fn each_key_is_described_and_has_its_line_in_the_documentation_with_its_default() {
    let schema = serde_json::to_value(schema()).unwrap();
    let mut found = Vec::new();
    keys(&schema, &schema, "", &mut found);
    assert!(found.len() > 60, "{}", found.len());
    for (path, inner) in found {
        assert!(inner["description"].is_string(), "{path} is not described");
        let rows: Vec<_> =
            CONFIGURATION.lines().filter(|line| line.starts_with(&format!("| `{path}` |"))).collect();
        // A key that only holds others needs no line of its own.
        let is_told = !rows.is_empty() || CONFIGURATION.contains(&format!("| `{path}."));
        assert!(is_told, "{path} is not in docs/configuration.md");
        let default = match &inner["default"] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        assert!(
            rows.iter().any(|row| row.contains(&format!("`{default}`"))),
            "{path}: {default} is not in {rows:?}"
        );
    }
}
